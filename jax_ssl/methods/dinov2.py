"""DINOv2: DINO's loss over images, iBOT's over patches, targets balanced by Sinkhorn-Knopp, and the KoLeo loss.

Paper: Oquab et al. 2023, https://arxiv.org/abs/2304.07193
Code:  https://github.com/facebookresearch/dinov2, train/ssl_meta_arch.py, loss/, data/collate.py
"""

import jax
import jax.numpy as jnp
from einops import rearrange

from jax_ssl import bounds, masking
from jax_ssl.core import Method, crop_groups
from jax_ssl.errors import UserError
from jax_ssl.losses import cross_entropy, dino, dino_center, dino_targets, koleo, sinkhorn_center, sum_in_chunks
from jax_ssl.losses.diagnostics import prototype_use, spread
from jax_ssl.models import apply
from jax_ssl.models.attention import attention_rows
from jax_ssl.models.heads import Tokens, check_tokens
from jax_ssl.models.prototypes import DinoHead, check_head, matrix, scores
from jax_ssl.optim.schedules import constant, teacher_momentum


def make(backbone, clock, *, prototypes=65536, hidden=2048, bottleneck=256, patch_prototypes=0, patch_bottleneck=256,
         student_temp=0.1, teacher_temp=0.07, warmup_teacher_temp=0.04, warmup_teacher_epochs=30.0,
         centring="sinkhorn_knopp", iterations=3, center_momentum=0.9, momentum=0.994, mask_share=0.5,
         mask_ratio=(0.1, 0.5), image_weight=1.0, patch_weight=1.0, koleo_weight=0.1, koleo_images=0,
         chunks=1) -> Method:  # fmt: skip
    """patch_prototypes, patch_bottleneck: of a separate head for patches; 0 = patches share the head of the images.

    centring: `sinkhorn_knopp` with `iterations`, `mean` (a moving average, as in DINO) or `none`. mask_share: share of
    the large crops that hide patches; their masked share lies between the two values of mask_ratio. koleo_images: how
    many images the KoLeo loss compares, in the official code those of a GPU; 0 = the whole batch. Arrays of hidden
    patches have the fixed size of the largest mask; the padding costs time in the head too. Each of the three weights
    may be zero. The other keywords are DINO's.
    """
    check_tokens(backbone, "DINOv2")
    bounds.one_of("method.", dict(centring=centring), ("sinkhorn_knopp", "mean", "none"))
    check_head(prototypes, hidden, bottleneck, chunks, student_temp=student_temp, teacher_temp=teacher_temp,
               warmup_teacher_temp=warmup_teacher_temp)  # fmt: skip
    bounds.whole("method.", dict(iterations=iterations), at_least=0)
    bounds.whole("method.", dict(patch_bottleneck=patch_bottleneck))
    weights = dict(image_weight=image_weight, patch_weight=patch_weight, koleo_weight=koleo_weight)
    bounds.bounded("method.", weights | dict(warmup_teacher_epochs=warmup_teacher_epochs), at_least=0)
    shares = dict(mask_share=mask_share, center_momentum=center_momentum, momentum=momentum)
    bounds.bounded("method.", shares, at_least=0, at_most=1)
    bounds.rising_pair("method.", dict(mask_ratio=mask_ratio), above=0, below=1)
    for key, count in dict(patch_prototypes=patch_prototypes, koleo_images=koleo_images).items():
        bounds.whole("method.", {key: count}, at_least=2 if count else 0)
    heads = [DinoHead(prototypes, hidden, bottleneck, False, dtype=backbone.dtype)]
    heads += (
        [DinoHead(patch_prototypes, hidden, patch_bottleneck, False, dtype=backbone.dtype)] if patch_prototypes else []
    )
    student, teacher = Tokens(backbone, *heads), Tokens(apply.without_drop_path(backbone), *heads)
    names = ("backbone", "projector", "patch_projector")[: 1 + len(heads)]
    temperature = constant(teacher_temp, clock, warmup_teacher_epochs, warmup_teacher_temp)
    schedule = teacher_momentum(momentum, clock)

    def hide(rng, views):
        """Mask of the large crops' hidden patches (B, 2, N), and their indices and weights, both (B, 2, M)."""
        grid = (views.shape[2] // backbone.patch, views.shape[3] // backbone.patch)
        most = int(mask_ratio[1] * grid[0] * grid[1])
        masking.check_hidden(most, grid, f"method.mask_ratio={mask_ratio}")
        ratios, blocks = jax.random.split(rng)
        drawn = masking.stratified_ratios(ratios, 2 * len(views), mask_share, *mask_ratio)
        hidden = (drawn * grid[0] * grid[1]).astype(jnp.int32)
        mask = masking.hide(masking.block_scores(blocks, 2 * len(views), grid, hidden, smallest=4), hidden)
        mask = rearrange(mask, "(b v) n -> b v n", v=2)
        return mask, *masking.hidden_places(mask, most)

    def init(rng, batch):
        groups = crop_groups(batch)
        images = len(groups[0])
        if images % chunks or images % (koleo_images or 1):
            raise UserError(
                f"method.chunks={chunks} and method.koleo_images={koleo_images} must divide batch_size={images}."
            )
        mask, chosen, _ = hide(rng, groups[0])
        params, stats = apply.init(student, rng, groups, mask, chosen)
        tokens = {"mask_token": 0.0, "cls_token": 5e-5, "registers": 5e-5}  # times 0.02: the last two have 1e-6
        params["backbone"] |= {
            name: factor * params["backbone"][name] for name, factor in tokens.items() if name in params["backbone"]
        }
        extra = {"stats": stats, "center": jnp.zeros(prototypes)}
        return params, extra | {"patch_center": jnp.zeros(patch_prototypes or prototypes)}

    def centers(extra, images, patches, weight, rows, patch_rows, temp):
        """Image and patch centers of this step, subtracted from the teacher's scores, and those for the next step."""
        if centring == "sinkhorn_knopp":
            balance = lambda z, rows, mask: sinkhorn_center(
                z, temp, iterations, lambda z: scores(z, rows), mask, chunks
            )
            balanced = balance(images, rows, None), balance(patches, patch_rows, weight > 0)
            return *balanced, extra["center"], extra["patch_center"]
        current = extra["center"], extra["patch_center"]
        if centring == "none":
            return *current, *current
        mean = lambda z, w: jnp.sum(z * w[:, None], axis=0, keepdims=True) / jnp.maximum(jnp.sum(w), 1e-9)
        image_mean, patch_mean = mean(images, jnp.ones(len(images))), mean(patches, (weight > 0).astype(jnp.float32))
        center = dino_center(current[0], scores(image_mean, rows), center_momentum)
        return *current, center, dino_center(current[1], scores(patch_mean, patch_rows), center_momentum)

    def loss(params, state, batch, rng):
        groups, extra, temp = crop_groups(batch), state.extra, temperature(state.step)
        stats = extra["stats"]
        mask, chosen, weight = hide(rng, groups[0])
        (student_z, student_patches, pooled), _ = apply.train(student, params, stats, groups, mask, chosen, rng=rng)
        (teacher_z, teacher_patches, _), _ = apply.train(teacher, state.teacher, stats, groups[:1], None, chosen)
        (student_rows, teacher_rows), (student_patch_rows, teacher_patch_rows) = (
            (matrix(params[name]), matrix(state.teacher[name])) for name in (names[1], names[-1])
        )
        flat = lambda x: x.reshape(-1, x.shape[-1])
        center, patch_center, *next_centers = centers(
            extra, flat(teacher_z), flat(teacher_patches), weight.reshape(-1), teacher_rows, teacher_patch_rows, temp
        )

        def images(s, t):
            return dino(scores(s, student_rows), scores(t, teacher_rows), center, student_temp, temp)

        def patches(s, t, w):
            targets = dino_targets(scores(t, teacher_patch_rows), patch_center, temp)
            return jnp.sum(w * cross_entropy(scores(s, student_patch_rows), targets, student_temp))

        views_first = lambda x: rearrange(x, "b v d -> v b d")
        image_loss = sum_in_chunks(images, chunks, views_first(student_z), views_first(teacher_z), axis=1) / chunks
        patch_loss = sum_in_chunks(patches, chunks, student_patches, teacher_patches, weight) / (2 * len(weight))
        # A group is of one view, so KoLeo never compares two crops of an image.
        koleo_groups = views_first(pooled).reshape(-1, koleo_images or len(pooled), pooled.shape[-1])
        koleo_loss = 2 * jax.vmap(koleo)(koleo_groups).mean()
        value = image_weight * image_loss + patch_weight * patch_loss + koleo_weight * koleo_loss
        targets = dino_targets(scores(teacher_z[:64, 0], teacher_rows), center, temp)
        metrics = {"image_loss": image_loss, "patch_loss": patch_loss, "koleo_loss": koleo_loss}
        metrics |= spread(student_z[:, 0], student_z[:, 1]) | prototype_use(targets)
        return value, (extra | dict(zip(("center", "patch_center"), next_centers)), metrics)

    def show(params, state, batch, rng):
        views = batch["views"][:8]
        hidden = masking.cover(views, hide(rng, views)[0], backbone.patch)
        masked = {"hidden": jnp.concatenate([views, hidden], axis=1)}
        return masked | attention_rows(backbone, state.teacher["backbone"], views)

    guards = {"method.centring": centring != "none"}
    return Method(
        init, loss, teacher=names, momentum=schedule, show=show, guards=guards, min_batch=2,
        curves={"teacher_momentum": schedule, "teacher_temperature": temperature},
        lengths={"method.warmup_teacher_epochs": warmup_teacher_epochs * clock.steps_per_epoch},
    )  # fmt: skip
