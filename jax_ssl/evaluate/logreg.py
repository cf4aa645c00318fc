"""Logistic regression on frozen features: a linear layer that is fitted to the end, for a grid of regularisations.

Protocol. Features are standardised by the mean and deviation of the training features. For each C of a grid, L-BFGS
minimises C times the sum of the cross-entropies plus half the squared weights (biases are free), as scikit-learn does.
C is chosen on a tenth of the training images that no fit has seen; with it, all of them are fitted again. The test
images are used once. A C means something for one number of images only: the sum grows with them.

Oquab et al. 2023 (DINOv2), `eval/log_regression.py`, which takes raw features and 45 values of C from 1e-6 to 1e5;
Darcet et al. 2025 (CAPI) standardise, and take 8 on the same range.

How. Along an axis on which images hardly differ the loss hardly bends, and L-BFGS takes thousands of steps to its end.
So features are turned to their principal axes, which changes neither loss nor penalty, and each axis has a unit of
length of its own, by how much the loss bends along it.

Letters: N features, D their width, K classes, H heads, one a value of C, B blocks of R rows.
"""

from collections.abc import Callable
from functools import partial
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax.sharding import NamedSharding
from jax.sharding import PartitionSpec as P

from jax_ssl.errors import UserError
from jax_ssl.evaluate import linear, rules
from jax_ssl.optim import lbfgs
from jax_ssl.sharding import BATCH, make_mesh

NEEDS = ("labels",)
GRID = tuple(float(f"{10**power:.3g}") for power in np.linspace(-6, 5, 8))
TOLERANCE = 1e-5  # of the gradient's norm, as a share of that at zero, where a fit ends; float32 reaches it
WIDEST = 4096  # features that are turned; the axes of wider ones take longer than they save
BLOCK = 4096  # rows whose logits are in memory at a time
HIGHEST = jax.lax.Precision.HIGHEST


class Fit(NamedTuple):
    """Heads on standardised features, logits x @ weights[:, :-1] + weights[:, -1], and how their fits ended."""

    weights: jax.Array  # (H, D + 1, K), the biases last
    iterations: jax.Array  # (H,)
    gradient: jax.Array  # (H,) norm, as a share of that at zero


class Regression(NamedTuple):
    """One head: logits of features x are (x - mean) / deviation @ weights[:-1] + weights[-1]."""

    mean: np.ndarray  # (D,)
    deviation: np.ndarray  # (D,)
    weights: np.ndarray  # (D + 1, K)

    def standardise(self, block) -> np.ndarray:
        return (np.asarray(block, np.float32) - self.mean) / self.deviation

    def predict(self, features) -> np.ndarray:
        """Classes of features (N, D): int (N,)."""
        return np.concatenate([
            np.asarray(_classes(self.weights, self.standardise(block))) for block in rules.blocks(features, BLOCK)
        ])  # fmt: skip


def measure(case, seed, *, grid=GRID, iterations=200) -> tuple[dict, dict]:
    """{"top1"}, and the protocol with what was chosen. Raises UserError for features or labels that can't be used."""
    train, labels, test, truth = case.train.features, case.train.labels, case.test.features, case.test.labels
    rules.check("Logistic regression", train, labels, test)
    check(len(train), grid, iterations)
    held_out = np.isin(np.arange(len(train)), linear.split(len(train), seed)[0])

    def best_of(heads, data, _):
        scores, losses = score(heads, data, held_out)
        best = rules.best_of(scores, losses)
        return best, float(scores[best])

    found, chosen = fit_best(train, labels, held_out, case.classes, grid, iterations, best_of)
    protocol = dict(
        features="standardised", optimiser="lbfgs", grid=list(grid), selection="a tenth of the training features, then "
        "all are fitted again", **chosen,
    )  # fmt: skip
    protocol["held_out_top1"] = protocol.pop("held_out")
    return {"top1": float(np.mean(found.predict(test) == truth))}, protocol


def fit_best(
    features, labels, held_out: np.ndarray, classes: int, grid, iterations: int, best_of: Callable
) -> tuple[Regression, dict]:  # fmt: skip
    """The regression with the best C of the grid, fitted again to all features (N, D), and how it was found.

    held_out: bool (N,), rows that the grid is not fitted to. best_of: (heads of the grid, Data, the same heads as
    Regressions) -> (place of the best in the grid, its score). Raises UserError where a fit did not end in numbers.
    """
    moments_of = moments(features)
    standardise = Regression(*moments_of, None).standardise
    turn = axes(features, standardise)
    regressions = lambda heads: [Regression(*moments_of, turned_back(np.asarray(x), turn)) for x in heads.weights]
    every = np.ones(len(features), bool)
    with jax.set_mesh(make_mesh(devices=jax.local_devices())):
        data = place(features, labels, standardise if turn is None else lambda block: standardise(block) @ turn)
        heads = fit(data, ~held_out, grid, classes, iterations)
        best, held_out_score = best_of(heads, data, regressions(heads))
        final = fit(data, every, (grid[best],), classes, iterations, heads.weights[best][None])
    if not np.isfinite(final.gradient[0]):
        raise UserError("Logistic regression was not fitted, as a gradient is not finite: take --task=linear.")
    chosen = dict(C=grid[best], held_out=held_out_score, iterations=int(final.iterations[0]))
    return regressions(final)[0], chosen | dict(most_iterations=iterations, gradient=float(final.gradient[0]))


@jax.jit
def _classes(weights, x):
    return jnp.argmax(jnp.matmul(x, weights[:-1], precision=HIGHEST) + weights[-1], axis=1)


def check(count: int, grid, iterations: int) -> None:
    """Raises UserError for options or a number of images that nothing can be fitted with."""
    if count < 10:
        raise UserError(f"Logistic regression needs at least 10 labelled images, not {count}: label some more.")
    if not grid or min(grid) <= 0 or iterations < 1:
        raise UserError(f"Logistic regression with grid={grid} and iterations={iterations}: each must be above 0.")


def moments(features) -> tuple[np.ndarray, np.ndarray]:
    """Mean and deviation of each feature, two float32 (D,), in double precision over blocks. features: (N, D)."""
    mean = sum(np.asarray(block, np.float64).sum(0) for block in rules.blocks(features)) / len(features)
    square = sum(((block - mean) ** 2).sum(0) for block in rules.blocks(features)) / len(features)
    return mean.astype(np.float32), np.sqrt(square + 1e-6).astype(np.float32)


def axes(features, standardise) -> np.ndarray | None:
    """Principal axes of standardised features (N, D), as columns: float32 (D, D), or None where D is above WIDEST."""
    if features.shape[1] > WIDEST:
        return None
    product = 0.0
    for block in rules.blocks(features, BLOCK):
        x = standardise(block)
        product = product + x.T @ x
    return np.linalg.eigh(product / np.float32(len(features)))[1]


def turned_back(weights: np.ndarray, turn: np.ndarray | None) -> np.ndarray:
    """A head (D + 1, K) of turned features as one of features that are not."""
    return weights if turn is None else np.concatenate([turn @ weights[:-1], weights[-1:]])


class Data(NamedTuple):
    """Features and labels in blocks, whose rows are split over the devices; the last block is filled with zeros."""

    x: jax.Array  # (B, R, D) float32
    labels: jax.Array  # (B, R) int32
    count: int  # N
    square: np.ndarray  # (D,) mean of the squares of each feature


def place(features, labels, standardise) -> Data:
    """The Data of features (N, D) and labels (N,), on the devices of the mesh that is set."""
    mesh = jax.sharding.get_mesh()
    rows = -(-min(BLOCK, len(features)) // mesh.size) * mesh.size
    count = -(-len(features) // rows)
    x, y = np.zeros((count, rows, features.shape[1]), np.float32), np.zeros((count, rows), np.int32)
    for number in range(count):
        block = features[number * rows : (number + 1) * rows]
        x[number, : len(block)] = standardise(block)
        y[number, : len(block)] = labels[number * rows : (number + 1) * rows]
    split, square = NamedSharding(mesh, P(None, *BATCH)), sum(np.square(block).sum(0) for block in x) / len(features)
    return Data(jax.device_put(x, split), jax.device_put(y, split), len(features), square)


def in_blocks(data: Data, chosen: np.ndarray) -> jax.Array:
    """Which rows count, as weights 0 and 1: bool (N,) -> float32 (B, R)."""
    weight = np.zeros(data.labels.size, np.float32)
    weight[: data.count] = chosen
    return jax.device_put(weight.reshape(data.labels.shape), data.labels.sharding)


def fit(data: Data, chosen: np.ndarray, grid, classes: int, iterations: int, start=None) -> Fit:
    """A head for each C of `grid`, fitted to the `chosen` rows, bool (N,). start: weights (H, D + 1, K), else zeros."""
    start = np.zeros((len(grid), data.x.shape[-1] + 1, classes), np.float32) if start is None else np.asarray(start)
    blocks, unit = (data.x, data.labels, in_blocks(data, chosen)), units(data.square, grid, classes, np.sum(chosen))
    return Fit(*_fit(*blocks, jnp.asarray(grid, jnp.float32), unit, start / unit, iterations))


def units(square, grid, classes: int, count: int) -> np.ndarray:
    """In what lengths weights are measured, float32 (H, D + 1, 1): then the loss of zeros bends alike along all.

    Where all classes are as likely, cross-entropy bends by the mean square times (K - 1) / K^2; the penalty is added.
    """
    bends = np.append(square, 1.0) * (classes - 1) / classes**2
    penalty = np.append(np.ones_like(square), 0.0) / (np.array(grid, np.float64)[:, None] * count)
    return ((bends + penalty) ** -0.5).astype(np.float32)[..., None]


@jax.jit
def _fit(x, labels, weight, grid, unit, start, iterations):
    shape = start.shape

    def loss(flat, wanted):
        value, gradient = losses_of(wanted, unit * flat.reshape(shape), x, labels, weight, grid)
        return value, (unit * gradient).reshape(flat.shape)

    weights, *how = lbfgs.minimise(loss, start.reshape(shape[0], -1), iterations, TOLERANCE)
    return unit * weights.reshape(shape), *how


def losses_of(wanted, weights, x, labels, weight, grid):
    """`losses` of the heads that are wanted, bool (H,); of others it may have zeros.

    A pass over the features costs as much as it has heads. Here it has the fewest, of a few numbers, that hold those.
    """
    heads, order = len(weights), jnp.argsort(~wanted, stable=True)
    sizes = sorted({-(-heads * share // 8) for share in (1, 2, 4, 6, 8)})

    def packed(size: int):
        rows = order[:size]
        found = losses(weights[rows], x, labels, weight, grid[rows])
        return tuple(jnp.zeros((heads, *part.shape[1:])).at[rows].set(part) for part in found)

    place = jnp.searchsorted(jnp.array(sizes), wanted.sum())
    return jax.lax.switch(place, [partial(packed, size) for size in sizes])


def losses(weights, x, labels, weight, grid):
    """Value (H,) and gradient (H, D + 1, K): mean cross-entropy of the rows of weight 1, plus |kernel|^2 / 2C rows.

    Both come from one pass over the blocks, so that the logits of one block are in memory and not of all.
    """
    heads, width, classes = weights.shape
    flat = weights.transpose(1, 0, 2).reshape(width, heads * classes)  # so that all heads are one matrix product
    kernel, bias = flat[:-1], flat[-1]

    def add(carry, block):
        value, of_kernel, of_bias = carry
        rows, truth, counts = block
        logits = (jnp.matmul(rows, kernel, precision=HIGHEST) + bias).reshape(-1, heads, classes)
        scores, right = jax.nn.log_softmax(logits), jax.nn.one_hot(truth, classes)[:, None]
        value -= jnp.sum(counts[:, None, None] * scores * right, axis=(0, 2))
        error = (counts[:, None, None] * (jnp.exp(scores) - right)).reshape(len(rows), -1)
        of_kernel += jnp.matmul(rows.T, error, precision=HIGHEST)
        return (value, of_kernel, of_bias + error.sum(0)), None

    zeros = jnp.zeros(heads), jnp.zeros_like(kernel), jnp.zeros_like(bias)
    (value, of_kernel, of_bias), _ = jax.lax.scan(add, zeros, (x, labels, weight))
    whole = jnp.concatenate([of_kernel, of_bias[None]]).reshape(width, heads, classes).transpose(1, 0, 2)
    decay = weights.at[:, -1].set(0) / grid[:, None, None]  # biases are free
    value += jnp.sum(decay * weights, axis=(1, 2)) / 2
    return value / weight.sum(), (whole + decay) / weight.sum()


def score(fitted: Fit, data: Data, chosen: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Accuracy and mean cross-entropy of each head on the `chosen` rows, two (H,)."""
    found = _score(fitted.weights, data.x, data.labels, in_blocks(data, chosen))
    right, loss = (np.asarray(x, np.float64) for x in found)
    return np.round(right) / np.sum(chosen), loss / np.sum(chosen)


@jax.jit
def _score(weights, x, labels, weight):
    def one(head):
        def add(carry, block):
            rows, truth, counts = block
            scores = jax.nn.log_softmax(jnp.matmul(rows, head[:-1], precision=HIGHEST) + head[-1])
            right = jnp.sum(counts * (jnp.argmax(scores, axis=1) == truth))
            loss = -jnp.sum(counts * jnp.take_along_axis(scores, truth[:, None], axis=1)[:, 0])
            return (carry[0] + right, carry[1] + loss), None

        return jax.lax.scan(add, (0.0, 0.0), (x, labels, weight))[0]

    return jax.lax.map(one, weights)
