"""How well does a probe tell the classes that chooses which patches it looks at? For networks without a good summary.

MAE and other masked models are not trained to have one vector that sums up an image, and a linear probe of the mean of
the patches underrates them. Here one learned query attends to the patches, then a linear layer tells the class.

Protocol `attentive-capi`: attention with keys and values, one query, D / 64 heads, no norm and no output projection, on
patches alone. AdamW (0.9, 0.95), ten learning rates and three weight decays at once, all see the same batches; none of
the decays on biases; 10 % warm-up, then cosine. The best of them on a tenth of the training images, on which none was
trained, is tested once. Other than in CAPI, patches are of images without augmentation, and there are fewer steps.
attentive_vjepa.py has another probe, which is trained and chosen by the same functions.

Darcet et al. 2025 (CAPI), https://arxiv.org/abs/2502.08769; https://github.com/facebookresearch/capi,
eval_classification.py. Letters: N images, P patches, D width, H heads, C classes, G settings of the grid.
"""

from collections.abc import Callable
from functools import partial
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import optax

from jax_ssl.encoder import in_batches
from jax_ssl.errors import UserError
from jax_ssl.evaluate import linear, rules
from jax_ssl.optim.optimizers import peak_lr
from jax_ssl.optim.schedules import Clock, cosine

NEEDS = ("labels", "network")
SHOWN = ("top1", "held_out_top1", "train_top1")
RATES = (1e-5, 2e-5, 5e-5, 1e-4, 2e-4, 5e-4, 1e-3, 2e-3, 5e-3, 1e-2)  # per 256 images
DECAYS = (5e-4, 1e-3, 5e-2)
BATCH = 256
WIDTH_OF_HEAD = 64
MEMORY = 4e9  # bytes of patches of training images, at most
product = partial(jnp.einsum, precision=jax.lax.Precision.HIGHEST)


class Probe(NamedTuple):
    """query (D,), key (D, D), value (D, D), value_bias (D,), kernel (D, C), bias (C,).

    Keys have no bias: it adds the same to the scores of all patches, which changes nothing.
    """

    query: jax.Array
    key: jax.Array
    value: jax.Array
    value_bias: jax.Array
    kernel: jax.Array
    bias: jax.Array


class Kind(NamedTuple):
    """A kind of probe and how it is trained. Equal ones share a compiled program.

    start: (key, D, C) -> a probe. logits: (probe, patches (B, P, D)) -> (B, C). decayed: a probe of zeros and ones.
    rates: of the grid, in the unit `scaling` of optim/optimizers.py. last_decay: share of a weight decay that is left
    at the end of its cosine. clip: of the norm of all gradients. said: what a protocol says besides.
    """

    protocol: str
    start: Callable
    logits: Callable
    decayed: NamedTuple
    rates: tuple[float, ...]
    decays: tuple[float, ...]
    scaling: str
    second_moment: float
    warmup: float
    last_decay: float
    clip: float
    said: tuple[tuple, ...] = ()


def measure(case, seed, *, images=10_000, steps=1000) -> tuple[dict, dict]:
    """{top1, held_out_top1, train_top1} of a probe trained on the patches of at most `images` training images."""
    return measure_kind(CAPI, "attentive", case, seed, images, steps)


def measure_kind(kind: Kind, task: str, case, seed, images: int, steps: int) -> tuple[dict, dict]:
    """`measure` for a kind of probe, whose options are those of `task`."""
    labels = case.train.labels
    rows = rules.some(len(labels), images, seed)
    patches = _patches(case, rows, task)
    probe, chosen = fit(kind, patches, labels[rows], case.classes, steps, seed)
    answer = jax.jit(kind.logits)
    guess = lambda block: np.asarray(answer(probe, block)).argmax(1)
    guesses = [guess(block) for block in case.outputs(in_batches(case.encode, case.test.images), patches_of)]
    train = [guess(block) for block in rules.blocks(patches, BATCH)]
    numbers = {
        "top1": float(np.mean(np.concatenate(guesses) == case.test.labels)),
        "held_out_top1": chosen.pop("held_out_top1"),
        "train_top1": float(np.mean(np.concatenate(train) == labels[rows])),
    }
    protocol = {
        "name": kind.protocol, "tokens": "patches", "patches": patches.shape[1], "views": "not augmented",
        "probe_images": len(rows), "steps": steps, "batch": min(BATCH, len(rows)), "optimiser": "adamw",
        "grid": {"learning_rate": list(kind.rates), "weight_decay": list(kind.decays)},
        "selection": "a tenth of the training images",
    }  # fmt: skip
    return numbers, protocol | dict(kind.said) | chosen


def patches_of(features):
    """What is read of the network's output, float32."""
    return features.patches.astype(jnp.float32)


def _patches(case, rows, task: str) -> np.ndarray:
    """Patches of the training images at `rows`: float32 (N, P, D). Raises UserError if they are too many for memory."""
    made, whole, start = case.outputs(in_batches(case.encode, case.train.images, rows), patches_of), None, 0
    for block in made:
        if whole is None:
            size = len(rows) * block[0].nbytes
            if size > MEMORY:
                fit_in = int(MEMORY / block[0].nbytes)
                raise UserError(
                    f"The patches of {len(rows):,} training images are {size / 1e9:.1f} GB, and the attentive probe "
                    f"keeps {MEMORY / 1e9:.0f} GB at most: set --config.{task}.images={fit_in} or less."
                )
            whole = np.empty((len(rows), *block.shape[1:]), np.float32)
        whole[start : start + len(block)] = block
        start += len(block)
    return whole


def fit(kind: Kind, patches, labels, classes: int, steps: int, seed: int) -> tuple[NamedTuple, dict]:
    """The best probe of the grid and {learning_rate, weight_decay, held_out_top1}. patches: (N, P, D), labels: (N,).

    It depends on the seed alone. Raises UserError for what can't be measured.
    """
    rules.check("The attentive probe", patches.reshape(-1, patches.shape[-1]), labels, patches[:, 0])
    if len(patches) < 10 or steps < 1:
        raise UserError(f"An attentive probe needs 10 labelled images and a step, not {len(patches)} and {steps}.")
    held_out, fitted = linear.split(len(patches), seed)
    batch = min(BATCH, len(fitted))
    rates = [peak_lr(rate, batch, kind.scaling) for rate in kind.rates]
    grid = np.array([(rate, decay) for rate in rates for decay in kind.decays], np.float32)
    begin, shuffle = jax.random.split(jax.random.key(rules.seed32(seed)))
    first = kind.start(begin, patches.shape[-1], classes)
    probes = train(kind, patches, labels, fitted, grid, first, shuffle, steps, batch)
    scores, losses = _score(kind, probes, patches[held_out], labels[held_out])
    best = rules.best_of(scores, losses)
    of_rates, of_decays = divmod(best, len(kind.decays))
    chosen = {"learning_rate": kind.rates[of_rates], "weight_decay": kind.decays[of_decays]}
    return jax.tree.map(lambda x: np.asarray(x)[best], probes), chosen | {"held_out_top1": float(scores[best])}


@partial(jax.jit, static_argnums=(1, 2))
def start(key, width: int, classes: int) -> Probe:
    """The probe before its first step: normal numbers of deviation 0.02, and biases of zero."""
    keys = jax.random.split(key, 4)
    normal = lambda key, *shape: 0.02 * jax.random.normal(key, shape)
    matrices = normal(keys[0], width), normal(keys[1], width, width), normal(keys[2], width, width)
    return Probe(*matrices, jnp.zeros(width), normal(keys[3], width, classes), jnp.zeros(classes))


def logits(probe: Probe, patches):
    """Logits of the classes: patches (B, P, D) -> float32 (B, C).

    The query is the same for all images, so it is multiplied with the keys' matrix first, and patches are averaged
    before they become values: no key and no value of a patch is computed.
    """
    width = len(probe.query)
    heads = max(1, width // WIDTH_OF_HEAD)
    heads = heads if width % heads == 0 else 1
    seen = averaged(patches, directions(probe.query, probe.key, heads))
    values = product("bhd,dhk->bhk", seen, by_head(probe.value, heads)).reshape(len(patches), width)
    return product("bd,dc->bc", values + probe.value_bias, probe.kernel) + probe.bias


def by_head(matrix, heads: int):
    """(..., D) -> (..., H, D / H)."""
    return matrix.reshape(*matrix.shape[:-1], heads, -1)


def directions(query, key, heads: int):
    """What patches are multiplied with for their scores: query (D,) and matrix of keys (D, D) -> (D, H)."""
    return product("dhk,hk->dh", by_head(key, heads), by_head(query, heads)) / (len(query) // heads) ** 0.5


def averaged(patches, direction):
    """The mean of the patches that each head sees, by the softmax of their scores: (B, P, D) -> (B, H, D)."""
    weights = jax.nn.softmax(product("bpd,dh->bph", patches, direction), axis=1)
    return product("bph,bpd->bhd", weights, patches)


def _loss(kind: Kind, probe, patches, labels):
    return jnp.mean(optax.softmax_cross_entropy_with_integer_labels(kind.logits(probe, patches), labels))


@partial(jax.jit, static_argnames=("kind", "steps", "batch"))
def train(kind: Kind, patches, labels, fitted, grid, first, shuffle, steps: int, batch: int):
    """Trained probes, with an axis (G,) in front. grid: (G, 2) learning rates and weight decays; fitted: rows (M,)."""
    whole = len(fitted) // batch  # steps of an epoch
    schedule = cosine(1.0, 0.0, Clock(1, steps), warmup_epochs=int(kind.warmup * steps))
    decay = cosine(1.0, kind.last_decay, Clock(1, steps))
    adam = optax.chain(optax.clip_by_global_norm(kind.clip), optax.scale_by_adam(0.9, kind.second_moment, 1e-8))

    def one_step(carry, count):
        order = jax.random.permutation(jax.random.fold_in(shuffle, count // whole), len(fitted))
        rows = fitted[jax.lax.dynamic_slice(order, (count % whole * batch,), (batch,))]
        x, y = patches[rows], labels[rows]

        def update(setting, probe, state):
            step, state = adam.update(jax.grad(partial(_loss, kind))(probe, x, y), state)
            rate, shrink = setting[0] * schedule(count), setting[1] * decay(count)
            return jax.tree.map(lambda p, s, d: p - rate * (s + shrink * d * p), probe, step, kind.decayed), state

        return jax.vmap(update)(grid, *carry), None

    probes = jax.tree.map(lambda x: jnp.stack([x] * len(grid)), first)
    patches, labels = jnp.asarray(patches), jnp.asarray(labels)
    return jax.lax.scan(one_step, (probes, jax.vmap(adam.init)(probes)), jnp.arange(steps))[0][0]


@partial(jax.jit, static_argnames="kind")
def _score(kind: Kind, probes, patches, labels):
    """Accuracy and loss of each probe, two (G,), one at a time."""

    def one(probe):
        found = jax.lax.map(lambda x: kind.logits(probe, x[None])[0], patches, batch_size=min(BATCH, len(patches)))
        return jnp.mean(jnp.argmax(found, 1) == labels), jnp.mean(
            optax.softmax_cross_entropy_with_integer_labels(found, labels)
        )

    return jax.lax.map(one, probes)


CAPI = Kind(
    "attentive-capi", start, logits, decayed=Probe(1.0, 1.0, 1.0, 0.0, 1.0, 0.0), rates=RATES, decays=DECAYS,
    scaling="linear_256", second_moment=0.95, warmup=0.1, last_decay=1.0, clip=float("inf"),
)  # fmt: skip
