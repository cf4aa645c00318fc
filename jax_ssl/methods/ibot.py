"""iBOT: DINO, and the student also predicts the teacher's assignments of patches that are hidden from the student.

Paper: Zhou et al. 2022, https://arxiv.org/abs/2111.07832
Code:  https://github.com/bytedance/ibot, main_ibot.py, loader.py, models/head.py
"""

import jax.numpy as jnp
from einops import rearrange

from jax_ssl import bounds, masking
from jax_ssl.core import Method, crop_groups
from jax_ssl.errors import UserError
from jax_ssl.losses import cross_entropy, dino, dino_center, dino_targets, sum_in_chunks
from jax_ssl.losses.diagnostics import prototype_use, spread
from jax_ssl.models import apply
from jax_ssl.models.attention import attention_rows
from jax_ssl.models.heads import Tokens, check_tokens
from jax_ssl.models.prototypes import DinoHead, check_head, matrix, scores
from jax_ssl.optim.schedules import epoch_ramp, teacher_momentum


def make(backbone, clock, *, prototypes=8192, hidden=2048, bottleneck=256, norm_last_layer=True, shared_head=True,
         student_temp=0.1, teacher_temp=0.04, warmup_teacher_temp=0.04, teacher_patch_temp=0.07,
         warmup_teacher_patch_temp=0.04, warmup_teacher_epochs=0.0, centring=True, center_momentum=0.9,
         momentum=0.996, mask_ratio=(0.0, 0.3), mask_spread=(0.0, 0.2), patch_weight=1.0,
         chunks=1) -> Method:  # fmt: skip
    """mask_ratio, mask_spread: each large crop hides one of these shares of its patches, plus or minus its spread.

    patch_weight: of the loss over patches. shared_head: one projector for images and patches, else one for each; the
    official code then shares all layers but the prototypes. The other keywords are DINO's. Masks are unions of
    rectangles, the last one trimmed, and hide exactly the drawn number of patches; those of the official code may hide
    fewer.
    """
    check_tokens(backbone, "iBOT")
    check_head(
        prototypes, hidden, bottleneck, chunks, student_temp=student_temp, teacher_temp=teacher_temp,
        warmup_teacher_temp=warmup_teacher_temp, teacher_patch_temp=teacher_patch_temp,
        warmup_teacher_patch_temp=warmup_teacher_patch_temp,
    )  # fmt: skip
    bounds.bounded("method.", dict(warmup_teacher_epochs=warmup_teacher_epochs, patch_weight=patch_weight), at_least=0)
    bounds.bounded("method.", dict(center_momentum=center_momentum, momentum=momentum), at_least=0, at_most=1)
    bounds.bounded("method.", dict(mask_ratio=mask_ratio, mask_spread=mask_spread), at_least=0, below=1)
    most = max((ratio + more for ratio, more in zip(mask_ratio, mask_spread)), default=0)
    if len(mask_ratio) != len(mask_spread) or not 0 < most < 1:
        raise UserError(
            f"method.mask_ratio={mask_ratio} and method.mask_spread={mask_spread}: give as many of each, with a "
            "largest sum above 0 and below 1."
        )
    head = lambda: DinoHead(prototypes, hidden, bottleneck, norm_last_layer, dtype=backbone.dtype)
    parts = (head(),) if shared_head else (head(), head())
    student, teacher = Tokens(backbone, *parts), Tokens(apply.without_drop_path(backbone), *parts)
    names = ("backbone", "projector") if shared_head else ("backbone", "projector", "patch_projector")
    image_temp = epoch_ramp(warmup_teacher_temp, teacher_temp, warmup_teacher_epochs, clock)
    patch_temp = epoch_ramp(warmup_teacher_patch_temp, teacher_patch_temp, warmup_teacher_epochs, clock)
    schedule = teacher_momentum(momentum, clock)

    def hide(rng, views):
        """Mask of the large crops' hidden patches (B, 2, N), and their indices and weights, both (B, 2, M)."""
        grid = (views.shape[2] // backbone.patch, views.shape[3] // backbone.patch)
        patches, count = grid[0] * grid[1], len(views) * 2
        masking.check_hidden(int(most * patches), grid, f"method.mask_ratio={mask_ratio}")
        hidden = (masking.mixed_ratios(rng, count, mask_ratio, mask_spread) * patches).astype(jnp.int32)
        mask = masking.hide(masking.block_scores(rng, count, grid, hidden, smallest=(min(grid) // 3) ** 2), hidden)
        mask = rearrange(mask, "(b v) n -> b v n", v=2)
        return mask, *masking.hidden_places(mask, int(most * patches))

    def init(rng, batch):
        groups = crop_groups(batch)
        if len(groups[0]) % chunks:
            raise UserError(f"method.chunks={chunks} does not divide batch_size={len(groups[0])}.")
        mask, chosen, _ = hide(rng, groups[0])
        params, stats = apply.init(student, rng, groups, mask, chosen)
        params["backbone"]["mask_token"] = jnp.zeros_like(params["backbone"]["mask_token"])
        centers = {"center": jnp.zeros(prototypes), "patch_center": jnp.zeros(prototypes)}
        return params, {"stats": stats} | centers

    def loss(params, state, batch, rng):
        extra, stats, step = state.extra, state.extra["stats"], state.step
        groups = crop_groups(batch)
        mask, chosen, weight = hide(rng, groups[0])
        all_places = jnp.broadcast_to(jnp.arange(mask.shape[-1]), mask.shape)
        (student_z, student_patches, _), _ = apply.train(student, params, stats, groups, mask, chosen, rng=rng)
        (teacher_z, all_patches, _), _ = apply.train(teacher, state.teacher, stats, groups[:1], None, all_places)
        teacher_patches = jnp.take_along_axis(all_patches, chosen[..., None], axis=2)
        student_rows, teacher_rows = matrix(params["projector"]), matrix(state.teacher["projector"])
        student_patch_rows, teacher_patch_rows = (matrix(tree[names[-1]]) for tree in (params, state.teacher))

        def images(s, t):  # (V, b, D), (2, b, D)
            center, temp = extra["center"], image_temp(step)
            return dino(scores(s, student_rows), scores(t, teacher_rows), center, student_temp, temp)

        def patches(s, t, w):  # (b, 2, M, D) twice, (b, 2, M)
            targets = dino_targets(scores(t, teacher_patch_rows), extra["patch_center"], patch_temp(step))
            return jnp.sum(w * cross_entropy(scores(s, student_patch_rows), targets, student_temp))

        views_first = lambda x: rearrange(x, "b v d -> v b d")
        image_loss = sum_in_chunks(images, chunks, views_first(student_z), views_first(teacher_z), axis=1) / chunks
        patch_loss = sum_in_chunks(patches, chunks, student_patches, teacher_patches, weight) / (2 * len(weight))
        centers = {"center": extra["center"], "patch_center": extra["patch_center"]}
        if centring:
            inputs = {"center": (teacher_z, teacher_rows), "patch_center": (all_patches, teacher_patch_rows)}
            for name, (embedded, rows) in inputs.items():
                mean = embedded.reshape(-1, embedded.shape[-1]).mean(0, keepdims=True)
                centers[name] = dino_center(centers[name], scores(mean, rows), center_momentum)
        targets = dino_targets(scores(teacher_z[:64, 0], teacher_rows), extra["center"], image_temp(step))
        masked_images = (mask.sum(-1) > 0).mean(dtype=jnp.float32)  # the others have no patches to predict
        metrics = {"image_loss": image_loss, "patch_loss": patch_loss} | spread(student_z[:, 0], student_z[:, 1])
        metrics |= {"uniform_loss": jnp.log(float(prototypes)) * (1 + patch_weight * masked_images)}
        return image_loss + patch_weight * patch_loss, (
            {"stats": stats} | centers,
            metrics | prototype_use(targets),
        )

    def show(params, state, batch, rng):
        views = batch["views"][:8]
        mask, _, _ = hide(rng, views)
        hidden = masking.cover(views, mask, backbone.patch)
        return {"hidden": jnp.concatenate([views, hidden], axis=1)} | attention_rows(
            backbone, state.teacher["backbone"], views
        )

    guards = {"method.centring": centring, "method.teacher_temp < method.student_temp": teacher_temp < student_temp}
    curves = {"teacher_momentum": schedule, "teacher_temperature": image_temp, "teacher_patch_temperature": patch_temp}
    return Method(
        init, loss, teacher=names, momentum=schedule, show=show, guards=guards, min_batch=2, curves=curves,
        lengths={"method.warmup_teacher_epochs": warmup_teacher_epochs * clock.steps_per_epoch},
    )  # fmt: skip
