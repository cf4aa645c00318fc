"""Losses of a student that predicts the soft assignments of a teacher, its moving average: DINO, iBOT, DINOv2.

Letters: V views of an image, the teacher's two first, B images, N patches, M masked patches, K prototypes, D width.
Arrays are global. The TPU compiler stores no fp32 copy of scores that a function is given, forward or backward. Where
the scores themselves do not fit into memory, compute them inside `sum_in_chunks`.
"""

import jax
import jax.numpy as jnp
from jax.lax import stop_gradient

from jax_ssl.losses.contrastive import HIGHEST, unit


def chunks_of(arrays, count, axis=0):
    """Each array with its rows, which lie along `axis`, in `count` equal chunks along a new first axis.

    Row i is in chunk i % count, so that on a mesh each chunk has rows of every device. Raises ValueError where `count`
    does not divide the rows of an array.
    """

    def split(x):
        if x.shape[axis] % count:
            raise ValueError(f"{x.shape[axis]} rows cannot be cut into {count} equal chunks.")
        x = x.reshape(*x.shape[:axis], -1, count, *x.shape[axis + 1 :])
        return jnp.moveaxis(x, axis + 1, 0)

    return [split(x) for x in arrays]


def sum_in_chunks(function, count, *arrays, axis=0):
    """The sum of function(*arrays), a scalar, over chunks of the rows, one in memory at a time.

    arrays: rows along `axis`, the same number in each, a multiple of `count`, else ValueError. function may close over
    parameters, which get a gradient too. The gradient of a chunk is computed right after its value, so the backward
    pass computes nothing again. Reverse-mode differentiation only.

        scores = lambda z: jnp.matmul(z, prototypes.T, precision=HIGHEST)
        sum_in_chunks(lambda s, t: dino(scores(s), scores(t), center, 0.1, 0.04), 8, student, teacher, axis=1) / 8
    """
    chunks = chunks_of(arrays, count, axis)
    # traced.consts are what function closes over. A new lambda: JAX caches traces by the identity of the function.
    traced = jax.make_jaxpr(lambda *rows: function(*rows))(*(x[0] for x in chunks))
    inexact = lambda x: jnp.issubdtype(x.dtype, jnp.inexact)
    split = lambda xs: ([x if inexact(x) else None for x in xs], [None if inexact(x) else x for x in xs])
    merge = lambda xs, ys: [y if x is None else x for x, y in zip(xs, ys)]
    value = lambda consts, rows: jax.core.eval_jaxpr(traced.jaxpr, consts, *rows)[0]

    @jax.custom_vjp
    def total(consts, chunks):
        return jax.lax.map(lambda rows: value(consts, rows), chunks).sum()

    def forward(consts, chunks):
        consts, integers = split(consts)  # integers, booleans and keys have no gradient

        def add_chunk(consts_gradient, rows):
            rows, row_integers = split(rows)
            term, vjp = jax.vjp(lambda c, r: value(merge(c, integers), merge(r, row_integers)), consts, rows)
            from_consts, from_rows = vjp(jnp.ones_like(term))
            return jax.tree.map(jnp.add, consts_gradient, from_consts), (term, from_rows)

        zeros = jax.tree.map(jnp.zeros_like, consts)
        consts_gradient, (terms, rows_gradient) = jax.lax.scan(add_chunk, zeros, chunks)
        return terms.sum(), (consts_gradient, rows_gradient)

    total.defvjp(forward, lambda gradients, g: jax.tree.map(lambda x: (g * x).astype(x.dtype), gradients))
    return total(list(traced.consts), chunks)


def cross_entropy(student, target, student_temp):
    """Cross-entropy of each row with its target: (...) fp32.

    student: (..., K) scores, any float type. target: (..., K) probabilities, which get no gradient. Leading axes
    broadcast.
    """
    predicted = jax.nn.log_softmax(student.astype(jnp.float32) / student_temp)
    return -jnp.sum(stop_gradient(target) * predicted, axis=-1)


def dino_targets(teacher, center, teacher_temp):
    """The teacher's centred and sharpened probabilities: (..., K) fp32, without gradient.

    teacher: (..., K) scores, any float type. center: (K,). teacher_temp: the smaller, the sharper.
    """
    return stop_gradient(jax.nn.softmax((teacher.astype(jnp.float32) - center) / teacher_temp))


def view_cross_entropy(student, targets, student_temp):
    """Cross-entropy of every student view with the targets of the other views, averaged over the pairs.

    student: (V, B, K) scores; targets: (2, B, K) probabilities of the first two views. Returns a fp32 scalar; log K if
    the scores are uniform. With targets from `sinkhorn` of both teacher views at once, this is DINOv2's term over
    images.
    """
    entropy = jnp.stack([cross_entropy(student, target, student_temp).mean(1) for target in targets])  # (2, V)
    others = 1 - jnp.eye(*entropy.shape)
    return jnp.sum(entropy * others) / jnp.sum(others)


def dino(student, teacher, center, student_temp, teacher_temp):
    """Cross-entropy of the student's views with the teacher's centred assignments of the other views.

    student: (V, B, K) and teacher: (2, B, K) scores; center: (K,), as it was before this batch. No gradient reaches the
    teacher or the center. Returns a fp32 scalar; log K if the student's scores are uniform.
    Caron et al. 2021, https://arxiv.org/abs/2104.14294, Eq. 3 and 4; official code main_dino.py, DINOLoss.
    """
    return view_cross_entropy(student, dino_targets(teacher, center, teacher_temp), student_temp)


def dino_center(center, teacher, momentum):
    """The center for the next batch: a moving average of the mean of the teacher's scores, (K,) fp32 without gradient.

    center: (K,). teacher: (..., K) scores, averaged over all rows. momentum: weight of the old center, 0 to 1.
    Scores are linear in the embeddings, so `teacher` may be the scores of the mean embedding, as for scores in chunks.
    Caron et al. 2021, https://arxiv.org/abs/2104.14294, Eq. 4; iBOT has one for images and one for patches.
    """
    mean = jnp.mean(teacher, axis=tuple(range(teacher.ndim - 1)), dtype=jnp.float32)
    return stop_gradient(momentum * center + (1 - momentum) * mean)


def ibot_patch(student_patch, teacher_patch, mask, patch_center, student_temp, teacher_patch_temp):
    """Cross-entropy with the teacher's assignments of the patches that are hidden from the student, in the same view.

    student_patch, teacher_patch: (2, B, N, K) scores. mask: (2, B, N), True = hidden from the student. patch_center:
    (K,). Averaged over the hidden patches of a view, then over all views: a view with none counts as zero. Returns a
    fp32 scalar. Zhou et al. 2022, https://arxiv.org/abs/2111.07832, Eq. 2; official code main_ibot.py, iBOTLoss.
    """
    hidden = mask.astype(jnp.float32)
    entropy = cross_entropy(student_patch, dino_targets(teacher_patch, patch_center, teacher_patch_temp), student_temp)
    return jnp.mean(jnp.sum(entropy * hidden, axis=-1) / jnp.maximum(hidden.sum(-1), 1))


def patch_weights(mask, rows):
    """The weight of each masked patch in `masked_cross_entropy`: mask (B, N) bool -> (rows,) fp32.

    It is 1 / (B x the number of masked patches in the same image). Rows after the last masked patch are padding: 0.
    """
    count = mask.sum(axis=1)
    last, row = jnp.cumsum(count), jnp.arange(rows)
    image = jnp.minimum(jnp.searchsorted(last, row, side="right"), len(mask) - 1)
    return (row < last[-1]) / (jnp.maximum(count[image], 1) * jnp.float32(len(mask)))


def masked_cross_entropy(student_masked, target, mask, student_temp=0.1):
    """DINOv2's term over patches: cross-entropy with the targets of patches that are hidden from the student.

    student_masked: (M, K) scores and target: (M, K) probabilities of the masked patches only, image after image in the
    order of the mask, (B, N) bool. If M is larger than the number of masked patches, the last rows are padding.
    Averaged over the masked patches of an image, then over all B images: an image with none counts as zero. Returns a
    fp32 scalar.
    Oquab et al. 2023, https://arxiv.org/abs/2304.07193, Sec. 4; official code dinov2/loss/ibot_patch_loss.py.
    """
    weights = patch_weights(mask, len(student_masked))
    return jnp.sum(weights * cross_entropy(student_masked, target, student_temp))


def koleo(x):
    """Minus the mean logarithm of each embedding's distance to its nearest neighbour: it spreads them over the sphere.

    x: (B, D) of any float type, B > 1, normalised here. Returns a fp32 scalar. Neighbours are searched in the whole
    batch that is given; DINOv2 searches on each GPU, and never in the other view of an image.
    Sablayrolles et al. 2019, https://arxiv.org/abs/1806.03198, Eq. 2; official code dinov2/loss/koleo_loss.py.
    """
    x = unit(x)
    cosines = jnp.where(jnp.eye(len(x), dtype=bool), -1.0, jnp.matmul(x, x.T, precision=HIGHEST))
    nearest = x[jnp.argmax(stop_gradient(cosines), axis=1)]
    distance = jnp.sqrt(jnp.sum(jnp.square(x - nearest + 1e-8), axis=-1))
    return -jnp.mean(jnp.log(distance + 1e-8))
