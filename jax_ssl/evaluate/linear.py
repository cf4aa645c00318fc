"""Linear probe: one linear layer on frozen features, for a grid of learning rates at once.

Protocol. Features are standardised by the mean and variance of the training features, as by the batch norm
without scale and offset in MAE's probe. Every head of the grid sees the same batches: SGD, momentum 0.9,
no weight decay, cosine to zero, weights from N(0, 0.01). The learning rate is chosen on a tenth of the *training* set
that no head has trained on; the test set is used once, by the chosen head, which is not trained again.

Letters: N features, D their width, C classes, H heads, one a learning rate.
"""

from functools import partial
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from jax_ssl.errors import UserError
from jax_ssl.evaluate import rules
from jax_ssl.optim.schedules import Clock, cosine

LEARNING_RATES = (0.0003, 0.001, 0.003, 0.01, 0.03, 0.1, 0.3, 1.0, 3.0)
BATCH = 256
MAX_STEPS = 6000  # fewer epochs beyond 60 000 features, so that a probe takes seconds
# What a number of this protocol has to say of it, beside what it chose.
PROTOCOL = {
    "name": "linear", "optimiser": "sgd", "momentum": 0.9, "weight_decay": 0.0, "batch": BATCH, "schedule": "cosine",
    "features": "standardised", "selection": "a tenth of the training features", "grid": list(LEARNING_RATES),
}  # fmt: skip
HIGHEST = jax.lax.Precision.HIGHEST


class Probe(NamedTuple):
    """The chosen head and how it was chosen. The logits of features x are (x - mean) * inverse_std @ kernel + bias."""

    mean: jax.Array  # (D,)
    inverse_std: jax.Array  # (D,)
    kernel: jax.Array  # (D, C)
    bias: jax.Array  # (C,)
    learning_rate: float
    held_out_top1: float
    epochs: int


def measure(train, train_labels, test, test_labels, classes, seed=0, **options) -> dict:
    """Accuracies of a probe trained on `train`, as fractions, and what the protocol chose. Arguments as in `fit`.

    predicted: int32 (Q,), the class of each test image by the probe.
    Raises UserError for features or labels that cannot be measured.
    """
    rules.check("The linear probe", train, train_labels, test)
    probe = fit(train, train_labels, classes, seed=seed, **options)
    predicted = np.asarray(predict(probe, test))
    return {
        "top1": float(np.mean(predicted == np.asarray(test_labels))),
        "learning_rate": probe.learning_rate,
        "train_top1": accuracy(probe, train, train_labels),
        "held_out_top1": probe.held_out_top1,
        "epochs": probe.epochs,
        "predicted": predicted,
    }


def fit(features, labels, classes, learning_rates=LEARNING_RATES, epochs=100, seed=0) -> Probe:
    """The best head of the grid. features: (N, D) of any float type. labels: (N,) int. It depends on the seed alone.

    epochs is an upper limit, as no more than MAX_STEPS steps of BATCH features are made. Raises UserError for N < 10.
    """
    if len(features) < 10:
        raise UserError(f"A linear probe needs at least 10 labelled images, not {len(features)}: label some more.")
    features, labels = jnp.asarray(features, jnp.float32), np.asarray(labels, np.int32)
    seed = rules.seed32(seed)
    held_out, fitted = split(len(features), seed)
    batch = min(BATCH, len(fitted))
    epochs = max(1, min(epochs, MAX_STEPS // (len(fitted) // batch)))

    x = features[fitted]
    mean, inverse_std = _statistics(x)
    x, rates, key = _standardise(x, mean, inverse_std), jnp.asarray(learning_rates), jax.random.key(seed)
    kernels, biases = train_heads(x, labels[fitted], rates, key, classes, epochs, batch)
    scores, losses = _score(kernels, biases, _standardise(features[held_out], mean, inverse_std), labels[held_out])
    best = rules.best_of(scores, losses)
    chosen = learning_rates[best], float(scores[best]), epochs
    return Probe(mean, inverse_std, kernels[best], biases[best], *chosen)


def split(count: int, seed: int) -> tuple[np.ndarray, np.ndarray]:
    """Rows of `count` features by which the head is chosen, a tenth, and rows on which all heads are trained."""
    order = np.random.RandomState(rules.seed32(seed)).permutation(count)
    return order[: count // 10], order[count // 10 :]


@jax.jit
def _statistics(x):
    """Mean and inverse standard deviation of each feature, (D,) each."""
    return x.mean(0), 1 / jnp.sqrt(x.var(0) + 1e-6)


@partial(jax.jit, donate_argnames="x")
def _standardise(x, mean, inverse_std):
    """(x - mean) * inverse_std in place, so that memory holds one copy of the features."""
    return (x - mean) * inverse_std


def accuracy(probe, features, labels) -> float:
    """Fraction of the features (N, D) that are classified right."""
    return float(np.mean(np.asarray(predict(probe, features)) == np.asarray(labels)))


@jax.jit
def _logits(probe, x):
    x = (x.astype(jnp.float32) - probe.mean) * probe.inverse_std
    return jnp.matmul(x, probe.kernel, precision=HIGHEST) + probe.bias


def logits(probe, features) -> np.ndarray:
    """Logits of features, (N, D) -> float32 (N, C), on the host."""
    return np.concatenate([np.asarray(_logits(probe, block)) for block in rules.blocks(features)])


@jax.jit
def predict(probe, features):
    """Classes of features: (N, D) -> int32 (N,), in blocks, so that not all logits are in memory at once."""

    def best(x):
        return jnp.argmax(_logits(probe, x)).astype(jnp.int32)

    return jax.lax.map(best, jnp.asarray(features), batch_size=min(4096, len(features)))


@partial(jax.jit, static_argnames=("classes", "epochs", "batch"))
def train_heads(x, labels, learning_rates, key, classes, epochs, batch):
    """Kernels (H, D, C) and biases (H, C) of one trained head for each learning rate. x: (N, D), standardised."""
    steps = len(x) // batch
    schedule = cosine(1.0, 0.0, Clock(steps, epochs * steps))
    first, shuffle = jax.random.split(key)
    kernel = 0.01 * jax.random.normal(first, (x.shape[1], classes))

    def one_epoch(one_step, carry, epoch):
        order = jax.random.permutation(jax.random.fold_in(shuffle, epoch), len(x))
        rows = order[: steps * batch].reshape(steps, batch)
        return jax.lax.scan(one_step, carry, (rows, epoch * steps + jnp.arange(steps)))[0], None

    make = by_features if x.shape[1] > len(x) else by_weights
    start, one_step, heads_of = make(x, labels, learning_rates, schedule, kernel)
    return heads_of(jax.lax.scan(partial(one_epoch, one_step), start, jnp.arange(epochs))[0])


def by_weights(x, labels, learning_rates, schedule, kernel):
    """(start, step, function that takes the heads from what is stepped) of SGD on kernels and biases."""

    def one_step(carry, inputs):
        rows, count = inputs
        gradient = jax.grad(lambda head: _loss(*head, x[rows], labels[rows]))

        def update(rate, head, velocity):
            velocity = jax.tree.map(lambda v, g: 0.9 * v + g, velocity, gradient(head))
            return jax.tree.map(lambda p, v: p - rate * schedule(count) * v, head, velocity), velocity

        return jax.vmap(update)(learning_rates, *carry), None

    heads = jax.tree.map(lambda p: jnp.stack([p] * len(learning_rates)), (kernel, jnp.zeros(kernel.shape[1])))
    return (heads, jax.tree.map(jnp.zeros_like, heads)), one_step, lambda carry: carry[0]


def by_features(x, labels, learning_rates, schedule, kernel):
    """The same for features wider than they are many: a step costs N numbers a head and image and not twice D.

    SGD adds features to a kernel, so it is the first kernel plus x' shares, and logits need x x' alone, made once.
    """
    heads, classes = len(learning_rates), kernel.shape[1]
    alike, first = jnp.matmul(x, x.T, precision=HIGHEST), jnp.matmul(x, kernel, precision=HIGHEST)
    truth = jax.nn.one_hot(labels, classes)

    def one_step(carry, inputs):
        (shares, bias), (of_shares, of_bias) = carry  # (N, H, C) and (H, C)
        rows, count = inputs
        moved = jnp.matmul(alike[rows], shares.reshape(len(x), -1), precision=HIGHEST).reshape(-1, heads, classes)
        error = (jax.nn.softmax(first[rows, None] + moved + bias) - truth[rows, None]) / len(rows)
        velocity = (0.9 * of_shares).at[rows].add(error), 0.9 * of_bias + error.sum(0)
        rate = schedule(count) * learning_rates[:, None]
        return ((shares - rate * velocity[0], bias - rate * velocity[1]), velocity), None

    def heads_of(carry):
        shares, bias = carry[0]
        return kernel + jnp.einsum("nd,nhc->hdc", x, shares, precision=HIGHEST), bias

    zeros = jnp.zeros((len(x), heads, classes)), jnp.zeros((heads, classes))
    return (zeros, zeros), one_step, heads_of


def _loss(kernel, bias, x, labels):
    """Mean cross-entropy."""
    logits = jax.nn.log_softmax(jnp.matmul(x, kernel, precision=HIGHEST) + bias)
    return -jnp.mean(jnp.take_along_axis(logits, labels[:, None], axis=1))


@jax.jit
def _score(kernels, biases, x, labels):
    """Accuracy and loss of every head, two (H,), one head at a time: the logits of all may not fit into memory."""

    def one(head):
        hits = jnp.argmax(jnp.matmul(x, head[0], precision=HIGHEST) + head[1], axis=1) == labels
        return jnp.mean(hits), _loss(*head, x, labels)

    return jax.lax.map(one, (kernels, biases))
