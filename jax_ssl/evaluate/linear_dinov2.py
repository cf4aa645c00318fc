"""The linear probe of DINOv2: 52 heads at once, on random crops, each of which goes through the network.

Protocol `linear-dinov2`: 13 learning rates, on four kinds of features: the class token of the last block or of the last
four, with and without the mean of the patches. SGD, momentum 0.9, no decay; rates per 256 images, cosine to 0 without
warm-up; N(0, 0.01) and no offset at first; 12 500 steps of 1 024 crops with flips. Registers are not used. The official
code takes the best head on the test images; here it is the best on a tenth of the training images, on which none was
trained.

Oquab et al. 2023, https://arxiv.org/abs/2304.07193, Sec. 7.1; facebookresearch/dinov2, eval/linear.py
Letters: B images of a batch, D width of a feature, R rates, C classes.
"""

import collections
from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import optax

from jax_ssl.encoder import at_depths, depths_of, in_batches, outputs, pooled_of
from jax_ssl.errors import UserError
from jax_ssl.evaluate import linear, rules
from jax_ssl.evaluate.augmented import crops, recipe, steps_of
from jax_ssl.models.vit import has_class_token

NEEDS = ("labels", "network", "squares")
SHOWN = ("top1", "held_out_top1")
RATES = (1e-5, 2e-5, 5e-5, 1e-4, 2e-4, 5e-4, 1e-3, 2e-3, 5e-3, 1e-2, 2e-2, 5e-2, 0.1)  # per 256 images
BLOCKS = (1, 4)  # of the last ones
HIGHEST = jax.lax.Precision.HIGHEST


def measure(case, seed, *, steps=12_500, batch=1024) -> tuple[dict, dict]:
    """{top1, held_out_top1} of the best head after `steps` batches; of small sets the batch is an eighth of the set."""
    if not has_class_token(case.encode.backbone):
        raise UserError("DINOv2's linear probe reads the class token, and this network has none: take --task=linear.")
    images, labels = case.train.images, case.train.labels
    rules.check("The linear probe of DINOv2", case.train.features, labels, case.test.features)
    held_out, fitted = linear.split(len(labels), seed)
    batch = min(batch, max(1, len(fitted) // 8))
    if not len(held_out) or steps < 1 or batch < 1:
        raise UserError(f"linear_dinov2 needs 10 labelled images, a step and a batch, not {len(labels)} and {steps}.")
    seed = rules.seed32(seed)
    plan = [(epoch, fitted[rows]) for epoch, rows in steps_of(len(fitted), batch, steps, seed)]
    made, heads = crops(images, plan, recipe(images.shape[1]), seed), None
    rates = np.array(RATES, np.float32) * batch / 256
    for number, (kinds, (_, rows)) in enumerate(zip(features_of(case.encode, made), plan, strict=True)):
        heads = heads or start(jax.random.key(seed), kinds, case.classes)
        heads = step(heads, kinds, labels[rows], rates * (1 + np.cos(np.pi * number / steps)) / 2)
    held = features_of(case.encode, in_batches(case.encode, images, held_out))
    scores = accuracies(heads, held, labels[held_out])
    kind, place = max(scores, key=lambda key: (scores[key], -key[1]))
    chosen = {kind: jax.tree.map(lambda x: x[place : place + 1], heads[kind])}
    test = features_of(case.encode, in_batches(case.encode, case.test.images))
    tested = accuracies(chosen, test, case.test.labels)
    protocol = {
        "name": "linear-dinov2", "optimiser": "sgd", "momentum": 0.9, "steps": steps, "batch": batch,
        "views": "random resized crops, flips", "features": kind, "learning_rate": RATES[place],
        "grid": {"learning_rate": list(RATES), "features": list(heads)},
        "selection": "a tenth of the training images",
    }  # fmt: skip
    return {"top1": tested[kind, 0], "held_out_top1": scores[kind, place]}, protocol


def features_of(encode, batches):
    """Yields {kind: (B, D)} of each batch of images: "last 1", "last 4" (or all), and both "with patches".

    Of a batch, as many images as fit pass the network at once.
    """
    last = at_depths(encode, depths_of(encode.backbone)[-max(BLOCKS) :], token_and_mean)
    counts, of_batch = collections.deque(), []

    def parts():
        for batch in batches:
            counts.append(len(batch))
            yield from in_batches(last, batch)

    for found in outputs(last, parts(), tuple):
        of_batch.append(found)
        if sum(len(mean) for *_, (_, mean) in of_batch) < counts[0]:
            continue
        counts.popleft()
        *tokens, mean = map(np.concatenate, zip(*([*(token for token, _ in part), part[-1][1]] for part in of_batch)))
        of_batch, kinds = [], {}
        for count in sorted({min(count, len(tokens)) for count in BLOCKS}):
            joined = np.concatenate(tokens[-count:], axis=1)
            kinds |= {f"last {count}": joined, f"last {count} with patches": np.concatenate([joined, mean], axis=1)}
        yield kinds


def token_and_mean(features):
    """The class token and the mean of the patches, float32 (B, D)."""
    return pooled_of(features), features.patches.astype(jnp.float32).mean(1)


def start(key, kinds: dict, classes: int) -> dict:
    """{kind: (kernels (R, D, C), biases (R, C), and the velocity of both)}, the same for all rates."""
    made = {}
    for number, (kind, features) in enumerate(kinds.items()):
        kernel = 0.01 * jax.random.normal(jax.random.fold_in(key, number), (features.shape[1], classes))
        head = tuple(jnp.stack([x] * len(RATES)) for x in (kernel, jnp.zeros(classes)))
        made[kind] = *head, *jax.tree.map(jnp.zeros_like, head)
    return made


@jax.jit
def step(heads: dict, kinds: dict, labels, rates) -> dict:
    """All heads after one batch. rates: (R,)."""
    return {kind: jax.vmap(partial(_step, kinds[kind], labels))(rates, *head) for kind, head in heads.items()}


def _step(x, labels, rate, kernel, bias, *velocity):
    def loss(kernel, bias):
        return jnp.mean(optax.softmax_cross_entropy_with_integer_labels(_logits(x, kernel, bias), labels))

    gradient = jax.grad(loss, (0, 1))(kernel, bias)
    velocity = [0.9 * v + g for v, g in zip(velocity, gradient, strict=True)]
    return kernel - rate * velocity[0], bias - rate * velocity[1], *velocity


def _logits(x, kernel, bias):
    return jnp.matmul(x, kernel, precision=HIGHEST) + bias


def accuracies(heads: dict, features, labels) -> dict:
    """{(kind, place of the rate): share of right answers}. features: {kind: (B, D)} for each batch, in order."""
    right, start = {}, 0
    for kinds in features:
        truth = labels[start : start + len(next(iter(kinds.values())))]
        start += len(truth)
        for kind, (kernels, biases, *_) in heads.items():
            guess = np.asarray(_guess(kinds[kind], kernels, biases))
            right[kind] = right.get(kind, 0) + (guess == truth).sum(1)
    return {(kind, place): float(hits) / start for kind, found in right.items() for place, hits in enumerate(found)}


@jax.jit
def _guess(x, kernels, biases):
    return jax.vmap(lambda kernel, bias: jnp.argmax(_logits(x, kernel, bias), axis=1))(kernels, biases)
