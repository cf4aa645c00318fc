"""The linear probe of MAE: a batch norm without scale and offset, then a linear layer by LARS, on random crops.

Protocol `linear-mae`: each crop goes through the network again. LARS with a trust ratio of 0.001, which the bias does
not have, momentum 0.9 and no weight decay. The rate is 0.1 per 256 images: none is searched for, so nothing is held
out. 90 epochs in batches of 16 384; the rate rises for a ninth of them, and falls along a cosine to 0. The layer starts
at N(0, 0.01), its bias at 0. Batch norm trains with the statistics of the batch and is tested with running ones, to
which each batch gives a tenth. The official code shows the best epoch on the test images; here it is the last.

He et al. 2022, https://arxiv.org/abs/2111.06377, Table 10; facebookresearch/mae, main_linprobe.py
Letters: N images, B of a batch, D width of a feature, C classes.
"""

from collections.abc import Iterator
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import optax

from jax_ssl.encoder import batch_size, pooled_of
from jax_ssl.errors import UserError
from jax_ssl.evaluate import rules
from jax_ssl.evaluate.augmented import crops, recipe, steps_of
from jax_ssl.optim import optimizers, schedules

NEEDS = ("labels", "network")
SHOWN = ("top1", "train_top1")
EPSILON, RUNNING = 1e-6, 0.1  # of batch norm; what a batch changes of the running statistics
WARMUP = 1 / 9  # of the epochs
HIGHEST = jax.lax.Precision.HIGHEST
LARS = optimizers.lars(1.0, momentum=0.9, trust_coefficient=0.001)  # the rate comes after the momentum


class Probe(NamedTuple):
    """params: kernel (D, C) and bias (C,); the optimiser's state; mean and variance (D,): running statistics."""

    params: dict
    state: optax.OptState
    mean: jax.Array
    variance: jax.Array


def measure(case, seed, *, epochs=90, batch=16_384, rate=0.1) -> tuple[dict, dict]:
    """{top1, train_top1} after `epochs`; of small sets the batch is an eighth of the set. rate: per 256 images."""
    images, labels = case.train.images, case.train.labels
    rules.check("The linear probe of MAE", case.train.features, labels, case.test.features)
    if len(labels) < 16 or epochs < 1 or batch < 2 or not rate > 0:
        raise UserError(
            f"The linear probe of MAE needs 16 labelled images, an epoch, a batch of 2 and a rate, not {len(labels)}, "
            f"{epochs}, {batch} and {rate}."
        )
    seed = rules.seed32(seed)
    batch = min(batch, len(labels) // 8)
    plan = list(steps_of(len(labels), batch, epochs * (len(labels) // batch), seed))
    clock = schedules.Clock(len(plan) / epochs, len(plan))
    peak = optimizers.peak_lr(rate, batch, "linear_256")
    rates = np.asarray(schedules.cosine(peak, 0.0, clock, WARMUP * epochs)(np.arange(len(plan))))
    probe = start(jax.random.key(seed), case.train.features.shape[1], case.classes)
    for (_, rows), x, now in zip(plan, features_of(case, images, plan, seed), rates, strict=True):
        probe = step(probe, x, labels[rows], now)
    if not np.isfinite(probe.params["kernel"]).all():
        raise UserError(f"The linear probe of MAE diverged: give --config.linear_mae.rate below {rate:g}.")
    protocol = {
        "name": "linear-mae", "optimiser": "lars", "momentum": 0.9, "trust_coefficient": 0.001, "weight_decay": 0.0,
        "learning_rate": rate, "epochs": epochs, "steps": len(plan), "batch": batch, "schedule": "cosine",
        "warmup_epochs": WARMUP * epochs, "views": "random resized crops, flips", "selection": "none: the last step",
        "features": f"pooled: {getattr(case.encode.backbone, 'pool', 'mean')}",
        "norm": "batch norm, tested with running statistics",
    }  # fmt: skip
    sides = {"top1": case.test, "train_top1": case.train}
    return {name: accuracy(probe, side.features, side.labels) for name, side in sides.items()}, protocol


def features_of(case, images, plan, seed: int) -> Iterator[np.ndarray]:
    """Yields the features of the crops of each batch of the plan, (B, D); as many as fit pass the network at once."""
    size, made_by = batch_size(case.encode, images.shape[1]), recipe(images.shape[1])
    parts = [(epoch, part) for epoch, rows in plan for part in rules.blocks(rows, size)]
    made, of_batch = case.outputs(crops(images, parts, made_by, seed), pooled_of), []
    for features in made:
        of_batch.append(features)
        if sum(map(len, of_batch)) == len(plan[0][1]):
            yield np.concatenate(of_batch)
            of_batch = []


def start(key, width: int, classes: int) -> Probe:
    """The probe before its first step."""
    params = {"kernel": 0.01 * jax.random.normal(key, (width, classes)), "bias": jnp.zeros(classes)}
    return Probe(params, LARS.init(params), jnp.zeros(width), jnp.ones(width))


@jax.jit
def step(probe: Probe, x, labels, rate) -> Probe:
    """The probe after one batch of features (B, D)."""
    mean, variance = x.mean(0), x.var(0)

    def loss(params):
        found = logits(params, x, mean, variance)
        return jnp.mean(optax.softmax_cross_entropy_with_integer_labels(found, labels))

    update, state = LARS.update(jax.grad(loss)(probe.params), probe.state, probe.params)
    params = jax.tree.map(lambda p, u: p + rate * u, probe.params, update)
    move = lambda old, new: (1 - RUNNING) * old + RUNNING * new
    return Probe(params, state, move(probe.mean, mean), move(probe.variance, variance * len(x) / (len(x) - 1)))


def logits(params: dict, x, mean, variance):
    x = (x - mean) / jnp.sqrt(variance + EPSILON)
    return jnp.matmul(x, params["kernel"], precision=HIGHEST) + params["bias"]


@jax.jit
def _right(probe: Probe, x, labels):
    return jnp.sum(jnp.argmax(logits(probe.params, x, probe.mean, probe.variance), axis=1) == labels)


def accuracy(probe: Probe, features, labels) -> float:
    """Share of features (N, D) that are classified right, by running statistics."""
    pairs = zip(rules.blocks(features), rules.blocks(labels), strict=True)
    return sum(int(_right(probe, x, y)) for x, y in pairs) / len(labels)
