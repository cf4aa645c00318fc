"""DINO: the student predicts, from every crop of an image, the teacher's prototype assignments of its large crops.

Paper: Caron et al. 2021, https://arxiv.org/abs/2104.14294
Code:  https://github.com/facebookresearch/dino, main_dino.py
"""

import jax
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

SHOWN = 8  # prototypes that are drawn of an image


def make(backbone, clock, *, prototypes=65536, hidden=2048, bottleneck=256, norm_last_layer=True, use_bn_in_head=False,
         student_temp=0.1,
         teacher_temp=0.04, warmup_teacher_temp=0.04, warmup_teacher_epochs=0.0, centring=True, center_momentum=0.9,
         momentum=0.996, chunks=1) -> Method:  # fmt: skip
    """hidden, bottleneck: widths of the head. norm_last_layer: prototypes have length one, else a learned length.
    use_bn_in_head: batch norm in the head, off by default in the official code.

    teacher_temp: the smaller, the sharper the targets; rises from warmup_teacher_temp over warmup_teacher_epochs.
    centring: subtract the mean of the teacher's scores, so that no prototype takes all images. momentum: of the
    teacher, rises to 1 along a cosine. chunks: scores are computed in this many parts of the batch, one in memory at a
    time.
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
    schedule = teacher_momentum(momentum, clock)

    def init(rng, batch):
        groups = crop_groups(batch)
        if len(groups[0]) % chunks:
            raise UserError(f"method.chunks={chunks} does not divide batch_size={len(groups[0])}.")
        params, stats = apply.init(student, rng, groups)
        return params, {"stats": stats, "teacher_stats": stats, "center": jnp.zeros(prototypes)}

    def embed(params, state, batch, rng):
        """Unit embeddings of the student's crops (V, B, D) and the teacher's (2, B, D), and the new statistics."""
        groups = crop_groups(batch)
        student_z, stats = apply.train(student, params, state.extra["stats"], groups, rng=rng)
        teacher_z, teacher_stats = apply.train(teacher, state.teacher, state.extra["teacher_stats"], groups[:1])
        views_first = lambda x: rearrange(x, "b v d -> v b d")
        return views_first(student_z), views_first(teacher_z), {"stats": stats, "teacher_stats": teacher_stats}

    def loss(params, state, batch, rng):
        student_z, teacher_z, stats = embed(params, state, batch, rng)
        student_rows, teacher_rows = matrix(params["projector"]), matrix(state.teacher["projector"])
        center, temp = state.extra["center"], temperature(state.step)
        compare = lambda s, t: dino(scores(s, student_rows), scores(t, teacher_rows), center, student_temp, temp)
        value = sum_in_chunks(compare, chunks, student_z, teacher_z, axis=1) / chunks
        mean_score = scores(teacher_z.mean((0, 1), keepdims=True), teacher_rows)
        new_center = dino_center(center, mean_score, center_momentum) if centring else center
        targets = dino_targets(scores(teacher_z[0, :64], teacher_rows), center, temp)
        metrics = {"uniform_loss": jnp.log(float(prototypes))} | spread(student_z[0], student_z[1])
        return value, (stats | {"center": new_center}, metrics | prototype_use(targets))

    def show(params, state, batch, rng):
        crops = batch["views"][:8]
        student_z, teacher_z, _ = embed(params, state, batch, rng)
        student = jax.nn.softmax(scores(student_z[1, :8], matrix(params["projector"])) / student_temp)
        teacher = scores(teacher_z[0, :8], matrix(state.teacher["projector"]))
        targets = dino_targets(teacher, state.extra["center"], temperature(state.step))
        highest, numbers = jax.lax.top_k(targets, min(SHOWN, prototypes))
        predicted = jnp.take_along_axis(student, numbers, axis=1)
        found = {"crops": crops, "prototypes": numbers, "teacher": highest, "student": predicted}
        return found | attention_rows(backbone, state.teacher["backbone"], crops)

    guards = {"method.centring": centring, "method.teacher_temp < method.student_temp": teacher_temp < student_temp}
    return Method(
        init, loss, teacher=("backbone", "projector"), momentum=schedule, show=show, guards=guards, min_batch=2,
        curves={"teacher_momentum": schedule, "teacher_temperature": temperature},
        lengths={"method.warmup_teacher_epochs": warmup_teacher_epochs * clock.steps_per_epoch},
    )  # fmt: skip
