"""Losses of a student that learns the soft assignments of its own moving average: DINO, iBOT, DINOv2.

Letters: V views of an image, the teacher's two first, B images, N patches, M masked patches, K prototypes, D width.
Arrays are global. Of scores that are given, the TPU compiler stores no fp32 copy, forward or backward; where K is so
large that the scores themselves do not fit, make them inside `sum_in_chunks`.
"""

import jax
import jax.numpy as jnp
from jax.lax import stop_gradient

from jax_ssl.losses.contrastive import HIGHEST, unit


def chunks_of(arrays, count, axis=0):
    """The arrays with `count` chunks of their rows, which lie along `axis`, on a new first axis.

    Row i is in chunk i % count, so that on a mesh each chunk has rows of every device. Raises ValueError where the rows
    of an array do not come out even.
    """

    def split(x):
        if x.shape[axis] % count:
            raise ValueError(f"{x.shape[axis]} rows cannot be cut into {count} equal chunks.")
        x = x.reshape(*x.shape[:axis], -1, count, *x.shape[axis + 1 :])
        return jnp.moveaxis(x, axis + 1, 0)

    return [split(x) for x in arrays]


def sum_in_chunks(function, count, *arrays, axis=0):
    """The sum of function(*arrays), a scalar, over chunks of the rows, one in memory at a time.

    arrays: rows along `axis`, as many in each, a multiple of `count`. function may close over parameters, which get
    their gradient too. Each chunk's gradient is made right after its value: stored are sums and gradients, and nothing
    is computed again in the backward pass. Reverse mode only.

        scores = lambda z: jnp.matmul(z, prototypes.T, precision=HIGHEST)
        sum_in_chunks(lambda s, t: dino(scores(s), scores(t), center, 0.1, 0.04), 8, student, teacher, axis=1) / 8
    """
    chunks = chunks_of(arrays, count, axis)
    # The consts are what function closes over. Traced under a new lambda: JAX keeps traces by the function's identity.
    traced = jax.make_jaxpr(lambda *rows: function(*rows))(*(x[0] for x in chunks))
    inexact = lambda x: jnp.issubdtype(x.dtype, jnp.inexact)
    parted = lambda xs: ([x if inexact(x) else None for x in xs], [None if inexact(x) else x for x in xs])
    joined = lambda xs, ys: [y if x is None else x for x, y in zip(xs, ys)]
    value = lambda around, rows: jax.core.eval_jaxpr(traced.jaxpr, around, *rows)[0]

    @jax.custom_vjp
    def total(around, chunks):
        return jax.lax.map(lambda rows: value(around, rows), chunks).sum()

    def forward(around, chunks):
        around, fixed = parted(around)

        def one(gradient, rows):
            rows, others = parted(rows)
            term, back = jax.vjp(lambda a, r: value(joined(a, fixed), joined(r, others)), around, rows)
            of_around, of_rows = back(jnp.ones_like(term))
            return jax.tree.map(jnp.add, gradient, of_around), (term, of_rows)

        gradient, (terms, of_chunks) = jax.lax.scan(one, jax.tree.map(jnp.zeros_like, around), chunks)
        return terms.sum(), (gradient, of_chunks)

    total.defvjp(forward, lambda gradients, g: jax.tree.map(lambda x: (g * x).astype(x.dtype), gradients))
    return total(list(traced.consts), chunks)


def cross_entropy(student, target, student_temp):
    """Row by row: (..., K) scores, (..., K) probabilities without gradient -> (...) fp32; axes may broadcast."""
    predicted = jax.nn.log_softmax(student.astype(jnp.float32) / student_temp)
    return -jnp.sum(stop_gradient(target) * predicted, axis=-1)


def dino_targets(teacher, center, teacher_temp):
    """The teacher's centred and sharpened probabilities: (..., K) scores, (K,) -> (..., K) fp32 without gradient."""
    return stop_gradient(jax.nn.softmax((teacher.astype(jnp.float32) - center) / teacher_temp))


def view_cross_entropy(student, targets, student_temp):
    """Cross-entropy of every student view with each target but that of the same view, averaged over the pairs.

    student: (V, B, K) scores; targets: (2, B, K) probabilities. Returns a fp32 scalar; log K if nothing is known.
    With `sinkhorn` of both teacher views together as targets, this is DINOv2's term over images.
    """
    entropy = jnp.stack([cross_entropy(student, target, student_temp).mean(1) for target in targets])  # (2, V)
    others = 1 - jnp.eye(*entropy.shape)
    return jnp.sum(entropy * others) / jnp.sum(others)


def dino(student, teacher, center, student_temp, teacher_temp):
    """Predict the teacher's assignment of one view from another view; centring keeps a prototype from taking all.

    student: (V, B, K) and teacher: (2, B, K) scores; center: (K,), that of before this batch. No gradient reaches the
    teacher or the center. Returns a fp32 scalar; log K if nothing is known.
    Caron et al. 2021, https://arxiv.org/abs/2104.14294, Eq. 3 and 4; official code main_dino.py, DINOLoss.
    """
    return view_cross_entropy(student, dino_targets(teacher, center, teacher_temp), student_temp)


def dino_center(center, teacher, momentum):
    """The center for the next batch: center (K,) moves towards the mean of the teacher's scores (..., K), all rows.

    The scores are linear in the embeddings, so those of the mean embedding serve as `teacher` where chunks hide the
    rows. Caron et al. 2021, https://arxiv.org/abs/2104.14294, Eq. 4; iBOT has one for images and one for patches.
    """
    mean = jnp.mean(teacher, axis=tuple(range(teacher.ndim - 1)), dtype=jnp.float32)
    return stop_gradient(momentum * center + (1 - momentum) * mean)


def ibot_patch(student_patch, teacher_patch, mask, patch_center, student_temp, teacher_patch_temp):
    """Predict the teacher's assignment of patches that only the student does not see, in the same view.

    student_patch, teacher_patch: (2, B, N, K) scores. mask: (2, B, N), True = hidden from the student. patch_center:
    (K,). Averaged over the hidden patches of a view, then over all views: one without any counts as zero. Returns a
    fp32 scalar. Zhou et al. 2022, https://arxiv.org/abs/2111.07832, Eq. 2; official code main_ibot.py, iBOTLoss.
    """
    hidden = mask.astype(jnp.float32)
    entropy = cross_entropy(student_patch, dino_targets(teacher_patch, patch_center, teacher_patch_temp), student_temp)
    return jnp.mean(jnp.sum(entropy * hidden, axis=-1) / jnp.maximum(hidden.sum(-1), 1))


def patch_weights(mask, rows):
    """What each masked patch counts in `masked_cross_entropy`: (B, N) bool -> (rows,) fp32.

    One over the number of its own image's masked patches, over B. Rows behind the last masked patch are padding: 0.
    """
    count = mask.sum(axis=1)
    last, row = jnp.cumsum(count), jnp.arange(rows)
    image = jnp.minimum(jnp.searchsorted(last, row, side="right"), len(mask) - 1)
    return (row < last[-1]) / (jnp.maximum(count[image], 1) * jnp.float32(len(mask)))


def masked_cross_entropy(student_masked, target, mask, student_temp=0.1):
    """DINOv2's term over patches: predict the target of patches that the student does not see.

    student_masked: (M, K) scores and target: (M, K) probabilities of the masked patches only, image after image in the
    order of the mask, (B, N) bool; where M is more than the mask has, for a fixed shape, the last rows are padding.
    Averaged over the masked patches of an image, then over all B images: one without any counts as zero. Returns a fp32
    scalar.
    Oquab et al. 2023, https://arxiv.org/abs/2304.07193, Sec. 4; official code dinov2/loss/ibot_patch_loss.py.
    """
    weights = patch_weights(mask, len(student_masked))
    return jnp.sum(weights * cross_entropy(student_masked, target, student_temp))


def koleo(x):
    """Push every embedding away from its nearest neighbour, so that they spread over the sphere.

    x: (B, D) of any length, made unit here. Returns a fp32 scalar, minus the mean log distance. Neighbours are those of
    the whole batch given; DINOv2 takes them per GPU and never from the other view of an image.
    Sablayrolles et al. 2019, https://arxiv.org/abs/1806.03198, Eq. 2; official code dinov2/loss/koleo_loss.py.
    """
    x = unit(x)
    cosines = jnp.where(jnp.eye(len(x), dtype=bool), -1.0, jnp.matmul(x, x.T, precision=HIGHEST))
    nearest = x[jnp.argmax(stop_gradient(cosines), axis=1)]
    distance = jnp.sqrt(jnp.sum(jnp.square(x - nearest + 1e-8), axis=-1))
    return -jnp.mean(jnp.log(distance + 1e-8))
