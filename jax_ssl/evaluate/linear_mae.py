"""The linear probe of MAE: a batch norm without scale and offset, then a linear layer by LARS, on random crops.

Protocol `linear-mae`: each crop goes through the network again. LARS with a trust ratio of 0.001, which the bias does
not have, momentum 0.9 and no weight decay; 90 epochs in batches of 16 384; the rate rises for a ninth of them, and
falls along a cosine to 0. The layer starts at N(0, 0.01), its bias at 0. Batch norm trains with the statistics of the
batch and is tested with running ones, to which each batch gives a tenth. MAE's rate is 0.1 per 256 images. In the small
batches of small sets it hardly moves the layer, so here it is the smallest of six, all trained on the same batches, and
the best on a tenth of the training images, on which none was trained, is tested. With one rate none is held out. The
official code shows the best epoch on the test images; here it is the last.

He et al. 2022, https://arxiv.org/abs/2111.06377, Table 10; facebookresearch/mae, main_linprobe.py
Letters: N images, B of a batch, D width of a feature, C classes, R rates.
"""

from collections.abc import Iterator
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import optax

from jax_ssl.encoder import batch_size, pooled_of
from jax_ssl.errors import UserError
from jax_ssl.evaluate import linear, rules
from jax_ssl.evaluate.augmented import crops, recipe, steps_of
from jax_ssl.optim import optimizers, schedules
from jax_ssl.optim.schedules import Clock

NEEDS = ("labels", "network", "squares")
SHOWN = ("top1", "held_out_top1", "train_top1")
RATES = (0.1, 0.3, 1.0, 3.0, 10.0, 30.0)  # per 256 images
EPSILON, RUNNING = 1e-6, 0.1  # of batch norm; what a batch changes of the running statistics
WARMUP = 1 / 9  # of the epochs
HIGHEST = jax.lax.Precision.HIGHEST
LARS = optimizers.lars(1.0, momentum=0.9, trust_coefficient=0.001)  # the rate comes after the momentum


class Probe(NamedTuple):
    """params: kernels (R, D, C) and biases (R, C); the optimiser's state of each; mean and variance (D,), running."""

    params: dict
    state: optax.OptState
    mean: jax.Array
    variance: jax.Array


def measure(case, seed, *, epochs=90, batch=16_384, rates=RATES) -> tuple[dict, dict]:
    """{top1, held_out_top1, train_top1} after `epochs`; of small sets the batch is an eighth of the set."""
    labels, features = case.train.labels, case.train.features
    rules.check("The linear probe of MAE", features, labels, case.test.features)
    if len(labels) < 20 or epochs < 1 or batch < 2 or not rates or not min(rates) > 0:
        raise UserError(
            f"The linear probe of MAE needs 20 labelled images, an epoch, a batch of 2 and rates above 0, not "
            f"{len(labels)}, {epochs}, {batch} and {rates}."
        )
    seed = rules.seed32(seed)
    held_out, fitted = linear.split(len(labels), seed)
    fitted = fitted if len(rates) > 1 else np.arange(len(labels))
    batch = min(batch, len(fitted) // 8)
    plan = [(epoch, fitted[rows]) for epoch, rows in
            steps_of(len(fitted), batch, epochs * (len(fitted) // batch), seed)]  # fmt: skip
    peaks = optimizers.peak_lr(np.array(rates, np.float32), batch, "linear_256")
    probe = trained(case, plan, epochs, peaks, seed)
    scores, losses = score(probe, features[held_out], labels[held_out])
    best = rules.best_of(scores, losses)
    sides = {"top1": case.test, "train_top1": case.train}
    numbers = {name: float(score(probe, side.features, side.labels)[0][best]) for name, side in sides.items()}
    numbers |= {"held_out_top1": float(scores[best])} if len(rates) > 1 else {}
    protocol = {
        "name": "linear-mae", "optimiser": "lars", "momentum": 0.9, "trust_coefficient": 0.001, "weight_decay": 0.0,
        "learning_rate": rates[best], "grid": {"learning_rate": list(rates)}, "epochs": epochs, "steps": len(plan),
        "selection": "a tenth of the training images" if len(rates) > 1 else "none", "batch": batch,
        "schedule": "cosine", "warmup_epochs": WARMUP * epochs, "views": "random resized crops, flips",
        "features": f"pooled: {getattr(case.encode.backbone, 'pool', 'mean')}",
        "norm": "batch norm, tested with running statistics",
    }  # fmt: skip
    return numbers, protocol


def trained(case, plan, epochs: int, peaks, seed: int) -> Probe:
    """The probe after the batches of a plan, (epoch, rows) of the training images. peaks: largest rates (R,)."""
    clock = Clock(len(plan) / epochs, len(plan))
    share = np.asarray(schedules.cosine(1.0, 0.0, clock, WARMUP * epochs)(np.arange(len(plan))))
    images, labels = case.train.images, case.train.labels
    probe = start(jax.random.key(seed), case.train.features.shape[1], case.classes, len(peaks))
    for (_, rows), x, now in zip(plan, features_of(case, images, plan, seed), share, strict=True):
        probe = step(probe, x, labels[rows], now * peaks)
    return probe


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


def start(key, width: int, classes: int, rates: int) -> Probe:
    """The probe before its first step, the same for all rates."""
    kernel = 0.01 * jax.random.normal(key, (width, classes))
    params = {"kernel": jnp.stack([kernel] * rates), "bias": jnp.zeros((rates, classes))}
    return Probe(params, jax.vmap(LARS.init)(params), jnp.zeros(width), jnp.ones(width))


@jax.jit
def step(probe: Probe, x, labels, rates) -> Probe:
    """The probe after one batch of features (B, D). rates: (R,)."""
    mean, variance = x.mean(0), x.var(0)
    unit = normalised(x, mean, variance)

    def update(params, state, rate):
        slope = jax.grad(lambda params: jnp.mean(cross_entropies(logits(params, unit), labels)))(params)
        change, state = LARS.update(slope, state, params)
        return jax.tree.map(lambda p, u: p + rate * u, params, change), state

    params, state = jax.vmap(update)(probe.params, probe.state, rates)
    move = lambda old, new: (1 - RUNNING) * old + RUNNING * new
    return Probe(params, state, move(probe.mean, mean), move(probe.variance, variance * len(x) / (len(x) - 1)))


cross_entropies = optax.softmax_cross_entropy_with_integer_labels


def normalised(x, mean, variance):
    return (x - mean) / jnp.sqrt(variance + EPSILON)


def logits(params: dict, x):
    return jnp.matmul(x, params["kernel"], precision=HIGHEST) + params["bias"]


def score(probe: Probe, features, labels) -> tuple[np.ndarray, np.ndarray]:
    """Accuracy and mean loss of each rate on features (N, D), by running statistics: two (R,)."""
    pairs = zip(rules.blocks(features), rules.blocks(labels), strict=True)
    return tuple(sum(parts) / len(labels) for parts in zip(*(map(np.asarray, _sums(probe, *pair)) for pair in pairs)))


@jax.jit
def _sums(probe: Probe, x, labels):
    found = jax.vmap(logits, (0, None))(probe.params, normalised(x, probe.mean, probe.variance))
    right = jnp.argmax(found, axis=2) == labels
    return right.sum(1), jax.vmap(cross_entropies, (0, None))(found, labels).sum(1)
