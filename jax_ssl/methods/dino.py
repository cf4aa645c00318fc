"""DINO: every crop of an image predicts what a slowly moving teacher makes of its large crops.

Paper: Caron et al. 2021, https://arxiv.org/abs/2104.14294
Code:  https://github.com/facebookresearch/dino, main_dino.py
"""

import jax.numpy as jnp
from einops import rearrange

from jax_ssl import bounds
from jax_ssl.core import Method, crop_groups
from jax_ssl.errors import UserError
from jax_ssl.losses import dino, dino_center, dino_targets, sum_in_chunks
from jax_ssl.losses.diagnostics import prototype_use, spread
from jax_ssl.models import apply
from jax_ssl.models.attention import attention_rows
from jax_ssl.models.heads import Crops
from jax_ssl.models.prototypes import DinoHead, check_head, matrix, scores
from jax_ssl.optim.schedules import epoch_ramp, teacher_momentum


def make(backbone, clock, *, prototypes=65536, hidden=2048, bottleneck=256, norm_last_layer=True, use_bn_in_head=False,
         student_temp=0.1,
         teacher_temp=0.04, warmup_teacher_temp=0.04, warmup_teacher_epochs=0.0, centring=True, center_momentum=0.9,
         momentum=0.996, chunks=1) -> Method:  # fmt: skip
    """hidden, bottleneck: widths of the head. norm_last_layer: prototypes of length one, not of a learned length.
    use_bn_in_head: batch normalisation in it, which officially is off.

    teacher_temp: the smaller, the sharper the targets; rises from warmup_teacher_temp over warmup_teacher_epochs.
    centring: subtract the mean of the teacher's scores, so that no prototype takes all images.
    chunks: of the batch, whose scores are in memory at once. momentum: of the teacher, on a cosine to 1.
    """
    check_head(prototypes, hidden, bottleneck, chunks, student_temp=student_temp, teacher_temp=teacher_temp,
               warmup_teacher_temp=warmup_teacher_temp)  # fmt: skip
    bounds.bounded("method.", dict(warmup_teacher_epochs=warmup_teacher_epochs), at_least=0)
    bounds.bounded("method.", dict(center_momentum=center_momentum, momentum=momentum), at_least=0, at_most=1)
    head = DinoHead(
        prototypes, hidden, bottleneck, norm_last_layer, use_bn_in_head, getattr(backbone, "dtype", jnp.float32)
    )
    student, teacher = Crops(backbone, head), Crops(apply.without_drop_path(backbone), head)
    temperature = epoch_ramp(warmup_teacher_temp, teacher_temp, warmup_teacher_epochs, clock)
    follow = teacher_momentum(momentum, clock)

    def init(rng, batch):
        groups = crop_groups(batch)
        if len(groups[0]) % chunks:
            raise UserError(f"method.chunks={chunks} does not divide batch_size={len(groups[0])}.")
        params, stats = apply.init(student, rng, groups)
        return params, {"stats": stats, "teacher_stats": stats, "center": jnp.zeros(prototypes)}

    def embed(params, state, batch, rng):
        """Unit embeddings of the student's crops (V, B, D) and the teacher's (2, B, D), and the new statistics."""
        groups = crop_groups(batch)
        ours, stats = apply.train(student, params, state.extra["stats"], groups, rng=rng)
        theirs, teacher_stats = apply.train(teacher, state.teacher, state.extra["teacher_stats"], groups[:1])
        first = lambda x: rearrange(x, "b v d -> v b d")
        return first(ours), first(theirs), {"stats": stats, "teacher_stats": teacher_stats}

    def loss(params, state, batch, rng):
        ours, theirs, stats = embed(params, state, batch, rng)
        own, targets, center = matrix(params["projector"]), matrix(state.teacher["projector"]), state.extra["center"]
        now = temperature(state.step)
        compare = lambda s, t: dino(scores(s, own), scores(t, targets), center, student_temp, now)
        value = sum_in_chunks(compare, chunks, ours, theirs, axis=1) / chunks
        mean_score = scores(theirs.mean((0, 1), keepdims=True), targets)
        moved = dino_center(center, mean_score, center_momentum) if centring else center
        some = dino_targets(scores(theirs[0, :64], targets), center, now)
        metrics = {"uniform_loss": jnp.log(float(prototypes))} | spread(ours[0], ours[1]) | prototype_use(some)
        return value, (stats | {"center": moved}, metrics)

    def show(params, state, batch, rng):
        _, theirs, _ = embed(params, state, batch, rng)
        probabilities = dino_targets(
            scores(theirs[0], matrix(state.teacher["projector"])), state.extra["center"], temperature(state.step)
        )
        return {"targets": probabilities[:, :256]} | attention_rows(backbone, state.teacher["backbone"], batch["views"])

    guards = {"method.centring": centring, "method.teacher_temp < method.student_temp": teacher_temp < student_temp}
    return Method(
        init, loss, teacher=("backbone", "projector"), momentum=follow, show=show, guards=guards, min_batch=2,
        curves={"teacher_momentum": follow, "teacher_temperature": temperature},
        lengths={"method.warmup_teacher_epochs": warmup_teacher_epochs * clock.steps_per_epoch},
    )  # fmt: skip
