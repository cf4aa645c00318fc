"""A method's own puzzle on held-out images: how well its network solves it, beside chance and cheap baselines.

Which way is up, where does a tile belong, which colour was it? A network that can't solve the puzzle it was trained on
has learned nothing by it, and one that is no better than a linear model on pixels has learned no more than that. What a
method says of its puzzle is a `core.Task`.

Puzzles are fixed by the seed: the network, the untrained one and the baselines get the same.
"""

from collections.abc import Callable, Iterator
from functools import partial

import jax
import jax.numpy as jnp
import numpy as np

from jax_ssl.errors import UserError
from jax_ssl.evaluate import linear
from jax_ssl.evaluate.rules import seed32
from jax_ssl.sharding import batch_constraint, replicated_constraint

BATCH = 256
SETTING, FITTING = 0, 1  # the keys of a seed: one sets the puzzles, the other fits baselines


def batches(encode, images: np.ndarray, batch: int = BATCH) -> Iterator[dict]:
    """Images uint8 (N, S, S, 3), normalised, as a method's `task` gets them: {"views": (B, 1, S, S, 3)}, B `batch`.

    The last one is smaller; images that don't fill a row of devices are left out. encode: says what normalised means.
    """
    devices = jax.device_count()
    whole = len(images) - len(images) % devices
    if not whole:
        raise UserError(f"A puzzle needs {devices} held-out images at least, and there are {len(images)}: give more.")
    batch = max(batch - batch % devices, devices)
    mean, std = jnp.asarray(encode.mean), jnp.asarray(encode.std)
    for start in range(0, whole, batch):
        yield {"views": _views(np.asarray(images[start : min(start + batch, whole)]), mean, std)}


@jax.jit
def _views(images, mean, std):
    return (batch_constraint(images)[:, None].astype(jnp.float32) / 255 - mean) / std


def solved(task, solve: Callable, encode, images: np.ndarray, seed: int = 0) -> dict[str, float]:
    """What `solve(batch, rng) -> {metric: mean}` reaches at the puzzles of these images, uint8 (N, S, S, 3)."""
    key = jax.random.fold_in(jax.random.key(seed32(seed)), SETTING)
    totals, count = {}, 0
    for number, batch in enumerate(batches(encode, images)):
        found = jax.device_get(solve(batch, jax.random.fold_in(key, number)))
        size = len(batch["views"])
        totals = {metric: totals.get(metric, 0.0) + size * float(value) for metric, value in found.items()}
        count += size
    return {metric: float(v) for metric, v in task.summary({m: total / count for m, total in totals.items()}).items()}


def check(task, state, encode, images: np.ndarray) -> None:
    """Raises UserError where the network can't be asked about images of this size; nothing is compiled."""
    batch = jax.eval_shape(lambda: next(batches(encode, images)))
    try:
        jax.eval_shape(partial(_measure, task.measure), state.params, state, batch, jax.random.key(0))
    except UserError:
        raise
    except Exception as error:  # shapes that do not fit raise errors of many kinds
        reason = str(error).strip().partition("\n")[0][:150]
        raise UserError(
            f"The puzzle can't be set on images of {images.shape[1]} pixels ({reason}): take the size of data.crops, "
            "on which the network was trained."
        ) from error


def of_state(task, state, encode, images: np.ndarray, seed: int = 0) -> dict[str, float]:
    """What a training state reaches: {metric: number}. Raises UserError, as `check` does."""
    check(task, state, encode, images)
    return solved(task, partial(_measure, task.measure, state.params, state), encode, images, seed)


def scores(task, state, encode, images: np.ndarray, seed: int = 0, note: Callable = print) -> dict[str, float]:
    """What training logs of it: {"pretext_METRIC": number}, {} for a method without a puzzle (None).

    note: called with the reason where it can't be measured; that must not cost a run its other numbers.
    """
    try:
        found = of_state(task, state, encode, images, seed) if task else {}
    except UserError as error:
        note(str(error))
        found = {}
    return {f"pretext_{metric}": value for metric, value in found.items()}


@partial(jax.jit, static_argnums=0)
def _measure(measure, params, state, batch, rng):
    return jax.tree.map(replicated_constraint, measure(params, state, batch, rng))


def of_baselines(task, encode, train: np.ndarray, test: np.ndarray, seed: int = 0) -> Iterator[tuple[str, dict]]:
    """Each baseline of the task, fitted on `train` where it learns: its name and {metric: number}, and then chance.

    train, test: uint8 (N, S, S, 3).
    """
    key = jax.random.fold_in(jax.random.key(seed32(seed)), FITTING)
    for name, fit in task.baselines.items():
        solve = fit(batches(encode, train), key, partial(fit_linear, seed=seed))
        yield name, solved(task, solve, encode, test, seed)
    if task.chance:
        yield "chance", dict(task.chance)


def fit_linear(features, labels, classes: int, seed: int = 0) -> Callable:
    """A linear model of the linear probe's protocol: features (N, D), labels (N,) -> function(features) -> labels."""
    return partial(linear.predict, linear.fit(np.asarray(features), np.asarray(labels), classes, seed=seed))
