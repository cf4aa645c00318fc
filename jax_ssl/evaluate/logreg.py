"""Logistic regression on frozen features: a linear layer that is fitted to the end, for a grid of regularisations.

Protocol. Features are standardised by the mean and deviation of the training features. For each C of a grid, L-BFGS
minimises C times the sum of the cross-entropies plus half the squared weights (biases are free), as scikit-learn does.
C is chosen on a tenth of the training images that no fit has seen; with it, all of them are fitted again. The test
images are used once. A C means something for one number of images only: the sum grows with them.

Oquab et al. 2023 (DINOv2), `eval/log_regression.py`, which takes raw features and 45 values of C from 1e-6 to 1e5;
Darcet et al. 2025 (CAPI) standardise, and take 8 on the same range.

Letters: N features, D their width, K classes, H heads, one a value of C, B blocks of R rows.
"""

from functools import partial
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import optax
from jax.sharding import NamedSharding
from jax.sharding import PartitionSpec as P

from jax_ssl.errors import UserError
from jax_ssl.evaluate import rules
from jax_ssl.sharding import BATCH, make_mesh, replicated

NEEDS = ("labels",)
GRID = tuple(float(f"{10**power:.3g}") for power in np.linspace(-6, 5, 8))
TOLERANCE = 1e-5  # of the gradient's norm, as a share of that at the start, where a fit ends; float32 reaches it
BLOCK = 4096  # rows whose logits are in memory at a time
HIGHEST = jax.lax.Precision.HIGHEST


class Fit(NamedTuple):
    """Heads on standardised features: logits x @ kernel + bias. The last two say how the fits ended."""

    kernel: jax.Array  # (H, D, K)
    bias: jax.Array  # (H, K)
    iterations: jax.Array  # (H,)
    gradient: jax.Array  # (H,) norm, as a share of that at the start


def measure(case, seed, *, grid=GRID, iterations=500) -> tuple[dict, dict]:
    """{"top1"}, and the protocol with what was chosen. Raises UserError for features or labels that can't be used."""
    train, labels, test, truth = case.train.features, case.train.labels, case.test.features, case.test.labels
    rules.check("Logistic regression", train, labels, test)
    check(len(train), grid, iterations)
    mean, deviation = moments(train)
    standardise = lambda block: (np.asarray(block, np.float32) - mean) / deviation
    order = np.random.RandomState(rules.seed32(seed)).permutation(len(train))
    held_out = np.isin(np.arange(len(train)), order[: len(order) // 10])
    mesh = make_mesh(devices=jax.local_devices())
    with jax.set_mesh(mesh):
        data = place(train, labels, standardise)
        fitted = fit(data, ~held_out, grid, case.classes, iterations)
        scores, losses = score(fitted, data, held_out)
        # The best accuracy; among equals the smallest loss, which is NaN for a fit that failed.
        best = int(np.lexsort((np.nan_to_num(losses, nan=np.inf), -scores))[0])
        start = jax.device_put((fitted.kernel[best][None], fitted.bias[best][None]), replicated(mesh))
        final = fit(data, np.ones(len(train), bool), (grid[best],), case.classes, iterations, start)
        right = score(final, place(test, truth, standardise), np.ones(len(test), bool))[0]
    protocol = dict(
        features="standardised", optimiser="lbfgs", grid=list(grid), selection="a tenth of the training features, then "
        "all are fitted again", C=grid[best], held_out_top1=float(scores[best]), iterations=int(final.iterations[0]),
        most_iterations=iterations, gradient=float(final.gradient[0]),
    )  # fmt: skip
    return {"top1": float(right[0])}, protocol


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


class Data(NamedTuple):
    """Features and labels in blocks, whose rows are split over the devices; the last block is filled with zeros."""

    x: jax.Array  # (B, R, D) float32
    labels: jax.Array  # (B, R) int32
    count: int  # N


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
    split = NamedSharding(mesh, P(None, *BATCH))
    return Data(jax.device_put(x, split), jax.device_put(y, split), len(features))


def in_blocks(data: Data, chosen: np.ndarray) -> jax.Array:
    """Which rows count, as weights 0 and 1: bool (N,) -> float32 (B, R)."""
    weight = np.zeros(data.labels.size, np.float32)
    weight[: data.count] = chosen
    return jax.device_put(weight.reshape(data.labels.shape), data.labels.sharding)


def fit(data: Data, chosen: np.ndarray, grid, classes: int, iterations: int, start=None) -> Fit:
    """A head for each C of `grid`, fitted to the `chosen` rows, bool (N,). start: kernels and biases, else zeros."""
    shape = (len(grid), data.x.shape[-1], classes)
    start = start or (jnp.zeros(shape), jnp.zeros((len(grid), classes)))
    return Fit(*_fit(data.x, data.labels, in_blocks(data, chosen), jnp.asarray(grid, jnp.float32), start, iterations))


@partial(jax.jit, static_argnames="iterations")
def _fit(x, labels, weight, grid, start, iterations):
    objective = objective_of(x, labels, weight)
    solver = optax.lbfgs()

    def one(c, start):
        value = partial(objective, c)
        value_and_gradient = optax.value_and_grad_from_state(value)

        def step(carry):
            head, state, count, _ = carry
            loss, gradient = value_and_gradient(head, state=state)
            updates, state = solver.update(gradient, state, head, value=loss, grad=gradient, value_fn=value)
            head = optax.apply_updates(head, updates)
            return head, state, count + 1, optax.tree.norm(optax.tree.get(state, "grad"))

        # At zeros, whatever the start is: else a good start would ask for a better end.
        first = optax.tree.norm(jax.grad(value)(jax.tree.map(jnp.zeros_like, start)))
        goes_on = lambda carry: (carry[2] < iterations) & (carry[3] > TOLERANCE * first)
        begin = start, solver.init(start), 0, jnp.inf
        (kernel, bias), _, count, norm = jax.lax.while_loop(goes_on, step, begin)
        return kernel, bias, count, norm / first

    return jax.vmap(one)(grid, start)


def objective_of(x, labels, weight):
    """function(C, (kernel, bias)) -> mean cross-entropy over the rows of weight 1, plus |kernel|^2 / (2 C rows).

    Value and gradient come from one pass over the blocks, so that the logits of one block are in memory and not of all.
    """
    total = weight.sum()

    def both(c, head):
        kernel, bias = head

        def add(carry, block):
            value, of_kernel, of_bias = carry
            rows, truth, counts = block
            scores = jax.nn.log_softmax(jnp.matmul(rows, kernel, precision=HIGHEST) + bias)
            right = jax.nn.one_hot(truth, len(bias))
            error = counts[:, None] * (jnp.exp(scores) - right)
            value -= jnp.sum(counts * jnp.sum(scores * right, axis=1))
            return (value, of_kernel + jnp.matmul(rows.T, error, precision=HIGHEST), of_bias + error.sum(0)), None

        zeros = jnp.zeros(()), jnp.zeros_like(kernel), jnp.zeros_like(bias)
        (value, of_kernel, of_bias), _ = jax.lax.scan(add, zeros, (x, labels, weight))
        value = (value + jnp.sum(kernel**2) / (2 * c)) / total
        return value, ((of_kernel + kernel / c) / total, of_bias / total)

    @jax.custom_vjp
    def objective(c, head):
        return both(c, head)[0]

    forward = lambda c, head: both(c, head)
    backward = lambda gradient, g: (None, jax.tree.map(lambda x: g * x, gradient))
    objective.defvjp(forward, backward)
    return objective


def score(fitted: Fit, data: Data, chosen: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Accuracy and mean cross-entropy of each head on the `chosen` rows, two (H,)."""
    found = _score(fitted.kernel, fitted.bias, data.x, data.labels, in_blocks(data, chosen))
    return tuple(np.asarray(x) for x in found)


@jax.jit
def _score(kernel, bias, x, labels, weight):
    def one(head):
        def add(carry, block):
            rows, truth, counts = block
            scores = jax.nn.log_softmax(jnp.matmul(rows, head[0], precision=HIGHEST) + head[1])
            right = jnp.sum(counts * (jnp.argmax(scores, axis=1) == truth))
            loss = -jnp.sum(counts * jnp.take_along_axis(scores, truth[:, None], axis=1)[:, 0])
            return (carry[0] + right, carry[1] + loss), None

        (right, loss), _ = jax.lax.scan(add, (0.0, 0.0), (x, labels, weight))
        return right / weight.sum(), loss / weight.sum()

    return jax.lax.map(one, (kernel, bias))
