"""iBOT: DINO, and besides the student predicts what the teacher makes of patches that only the teacher sees.

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
from jax_ssl.models.heads import Tokens
from jax_ssl.models.micro import MicroBatched
from jax_ssl.models.prototypes import DinoHead, check_head, matrix, scores
from jax_ssl.optim.schedules import epoch_ramp, teacher_momentum


def make(backbone, clock, *, prototypes=8192, hidden=2048, bottleneck=256, norm_last_layer=True, shared_head=True,
         student_temp=0.1, teacher_temp=0.04, warmup_teacher_temp=0.04, teacher_patch_temp=0.07,
         warmup_teacher_patch_temp=0.04, warmup_teacher_epochs=0.0, centring=True, center_momentum=0.9,
         momentum=0.996, mask_ratio=(0.0, 0.3), mask_spread=(0.0, 0.2), patch_weight=1.0,
         chunks=1) -> Method:  # fmt: skip
    """mask_ratio, mask_spread: each large crop hides one of these shares of its patches, plus or minus its spread.

    patch_weight: of the loss over patches. shared_head: one projector for images and patches, else one for each; the
    official code then shares all but the prototypes. The other keywords are DINO's. Masks are unions of rectangles, the
    last one trimmed, that hide just the drawn number of patches; the official ones may stop short of it.
    """
    if isinstance(backbone, MicroBatched):
        raise UserError("micro_batch is not for iBOT, which needs the patches of whole images: set it to 0.")
    if not hasattr(backbone, "patch") or getattr(backbone, "pool", "") != "cls":
        raise UserError("iBOT needs model.name='vit' with model.pool='cls': it compares patches as well as images.")
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
            f"method.mask_ratio={mask_ratio} and method.mask_spread={mask_spread}: give as many of each, below one."
        )
    head = lambda: DinoHead(prototypes, hidden, bottleneck, norm_last_layer, dtype=backbone.dtype)
    parts = (head(),) if shared_head else (head(), head())
    student, teacher = Tokens(backbone, *parts), Tokens(apply.without_drop_path(backbone), *parts)
    names = ("backbone", "projector") if shared_head else ("backbone", "projector", "patch_projector")
    image_temp = epoch_ramp(warmup_teacher_temp, teacher_temp, warmup_teacher_epochs, clock)
    patch_temp = epoch_ramp(warmup_teacher_patch_temp, teacher_patch_temp, warmup_teacher_epochs, clock)
    follow = teacher_momentum(momentum, clock)

    def hide(rng, views):
        """Which patches of the large crops are hidden (B, 2, N), and where: places (B, 2, M) with their weights."""
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
        extra, step = state.extra, state.step
        groups = crop_groups(batch)
        mask, chosen, weight = hide(rng, groups[0])
        everything = jnp.broadcast_to(jnp.arange(mask.shape[-1]), mask.shape)
        (ours, our_patches, _), _ = apply.train(student, params, extra["stats"], groups, mask, chosen, rng=rng)
        (theirs, all_patches, _), _ = apply.train(teacher, state.teacher, extra["stats"], groups[:1], None, everything)
        their_patches = jnp.take_along_axis(all_patches, chosen[..., None], axis=2)
        own, targets = matrix(params["projector"]), matrix(state.teacher["projector"])
        own_patch, patch_targets = (matrix(tree[names[-1]]) for tree in (params, state.teacher))

        def images(s, t):  # (V, b, D), (2, b, D)
            return dino(scores(s, own), scores(t, targets), extra["center"], student_temp, image_temp(step))

        def patches(s, t, w):  # (b, 2, M, D) twice, (b, 2, M)
            goal = dino_targets(scores(t, patch_targets), extra["patch_center"], patch_temp(step))
            return jnp.sum(w * cross_entropy(scores(s, own_patch), goal, student_temp))

        first = lambda x: rearrange(x, "b v d -> v b d")
        image_loss = sum_in_chunks(images, chunks, first(ours), first(theirs), axis=1) / chunks
        patch_loss = sum_in_chunks(patches, chunks, our_patches, their_patches, weight) / (2 * len(weight))
        moved = {"center": extra["center"], "patch_center": extra["patch_center"]}
        if centring:
            for name, embedded, rows in (("center", theirs, targets), ("patch_center", all_patches, patch_targets)):
                mean = embedded.reshape(-1, embedded.shape[-1]).mean(0, keepdims=True)
                moved[name] = dino_center(moved[name], scores(mean, rows), center_momentum)
        some = dino_targets(scores(theirs[:64, 0], targets), extra["center"], image_temp(step))
        masked_images = (mask.sum(-1) > 0).mean(dtype=jnp.float32)  # the others have no patches to predict
        metrics = {"image_loss": image_loss, "patch_loss": patch_loss} | spread(ours[:, 0], ours[:, 1])
        metrics |= {"uniform_loss": jnp.log(float(prototypes)) * (1 + patch_weight * masked_images)}
        return image_loss + patch_weight * patch_loss, (
            {"stats": extra["stats"]} | moved,
            metrics | prototype_use(some),
        )

    def show(params, state, batch, rng):
        views = batch["views"][:8]
        mask, _, _ = hide(rng, views)
        hidden = masking.cover(views, mask, backbone.patch)
        return {"hidden": jnp.concatenate([views, hidden], axis=1)} | attention_rows(
            backbone, state.teacher["backbone"], views
        )

    guards = {"method.centring": centring, "method.teacher_temp < method.student_temp": teacher_temp < student_temp}
    curves = {"teacher_momentum": follow, "teacher_temperature": image_temp, "teacher_patch_temperature": patch_temp}
    return Method(
        init, loss, teacher=names, momentum=follow, show=show, guards=guards, min_batch=2, curves=curves,
        lengths={"method.warmup_teacher_epochs": warmup_teacher_epochs * clock.steps_per_epoch},
    )  # fmt: skip
