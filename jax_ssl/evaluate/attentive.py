"""How well does a probe tell the classes that chooses which patches it looks at? For networks without a good summary.

MAE and other masked models are not trained to have one vector that sums up an image, and a linear probe of the mean of
the patches underrates them. Here one learned query attends to the patches, then a linear layer tells the class.

Protocol `attentive-capi`: attention with keys and values, one query, D / 64 heads, no norm and no output projection, on
patches alone. AdamW (0.9, 0.95), ten learning rates and three weight decays at once, all see the same batches; none of
the decays on biases; 10 % warm-up, then cosine. The best of them on a tenth of the training images, on which none was
trained, is tested once. Other than in CAPI, patches are of images without augmentation, and there are fewer steps.

Darcet et al. 2025 (CAPI), https://arxiv.org/abs/2502.08769; https://github.com/facebookresearch/capi,
eval_classification.py. Letters: N images, P patches, D width, H heads, C classes, G settings of the grid.
"""

from functools import partial
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import optax

from jax_ssl.errors import UserError
from jax_ssl.evaluate import linear, rules
from jax_ssl.optim.schedules import Clock, cosine

NEEDS = ("labels", "network")
SHOWN = ("top1", "held_out_top1", "train_top1")
RATES = (1e-5, 2e-5, 5e-5, 1e-4, 2e-4, 5e-4, 1e-3, 2e-3, 5e-3, 1e-2)  # per 256 images
DECAYS = (5e-4, 1e-3, 5e-2)
BATCH = 256
WIDTH_OF_HEAD = 64
MEMORY = 4e9  # bytes of patches of training images, at most
HIGHEST = jax.lax.Precision.HIGHEST


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


def measure(case, seed, *, images=10_000, steps=1000) -> tuple[dict, dict]:
    """{top1, held_out_top1, train_top1} of a probe trained on the patches of at most `images` training images."""
    labels = case.train.labels
    rows = rules.some(len(labels), images, seed)
    patches = _patches(case, rows)
    probe, chosen = fit(patches, labels[rows], case.classes, steps, seed)
    guesses = [
        np.asarray(logits(probe, block)).argmax(1)
        for block in case.outputs(rules.blocks(case.test.images, BATCH), patches_of)
    ]
    train = [np.asarray(logits(probe, block)).argmax(1) for block in rules.blocks(patches, BATCH)]
    numbers = {
        "top1": float(np.mean(np.concatenate(guesses) == case.test.labels)),
        "held_out_top1": chosen.pop("held_out_top1"),
        "train_top1": float(np.mean(np.concatenate(train) == labels[rows])),
    }
    protocol = {
        "name": "attentive-capi", "tokens": "patches", "patches": patches.shape[1], "views": "not augmented",
        "probe_images": len(rows), "steps": steps, "batch": min(BATCH, len(rows)), "optimiser": "adamw",
        "grid": {"learning_rate": list(RATES), "weight_decay": list(DECAYS)},
        "selection": "a tenth of the training images",
    }  # fmt: skip
    return numbers, protocol | chosen


def patches_of(features):
    """What is read of the network's output, float32."""
    return features.patches.astype(jnp.float32)


def _patches(case, rows) -> np.ndarray:
    """Patches of the training images at `rows`: float32 (N, P, D). Raises UserError if they are too many for memory."""
    made = case.outputs((case.train.images[rows[i : i + BATCH]] for i in range(0, len(rows), BATCH)), patches_of)
    whole = None
    for number, block in enumerate(made):
        if whole is None:
            size = len(rows) * block[0].nbytes
            if size > MEMORY:
                fit_in = int(MEMORY / block[0].nbytes)
                raise UserError(
                    f"The patches of {len(rows):,} training images are {size / 1e9:.1f} GB, and the attentive probe "
                    f"keeps {MEMORY / 1e9:.0f} GB at most: set --config.attentive.images={fit_in} or less."
                )
            whole = np.empty((len(rows), *block.shape[1:]), np.float32)
        whole[number * BATCH : number * BATCH + len(block)] = block
    return whole


def fit(patches, labels, classes: int, steps: int, seed: int) -> tuple[Probe, dict]:
    """The best probe of the grid and {learning_rate, weight_decay, held_out_top1}. patches: (N, P, D), labels: (N,).

    It depends on the seed alone. Raises UserError for what can't be measured.
    """
    rules.check("The attentive probe", patches.reshape(-1, patches.shape[-1]), labels, patches[:, 0])
    if len(patches) < 10 or steps < 1:
        raise UserError(f"An attentive probe needs 10 labelled images and a step, not {len(patches)} and {steps}.")
    held_out, fitted = linear.split(len(patches), seed)
    batch = min(BATCH, len(fitted))
    grid = np.array([(rate * batch / 256, decay) for rate in RATES for decay in DECAYS], np.float32)
    first, shuffle = jax.random.split(jax.random.key(rules.seed32(seed)))
    probes = train(patches, labels, fitted, grid, start(first, patches.shape[-1], classes), shuffle, steps, batch)
    scores, losses = _score(probes, patches[held_out], labels[held_out])
    best = rules.best_of(scores, losses)
    chosen = {"learning_rate": RATES[best // len(DECAYS)], "weight_decay": DECAYS[best % len(DECAYS)]}
    return jax.tree.map(lambda x: x[best], probes), chosen | {"held_out_top1": float(scores[best])}


def start(key, width: int, classes: int) -> Probe:
    """The probe before its first step: normal numbers of deviation 0.02, and biases of zero."""
    keys = jax.random.split(key, 4)
    normal = lambda key, *shape: 0.02 * jax.random.normal(key, shape)
    matrices = normal(keys[0], width), normal(keys[1], width, width), normal(keys[2], width, width)
    return Probe(*matrices, jnp.zeros(width), normal(keys[3], width, classes), jnp.zeros(classes))


@jax.jit
def logits(probe: Probe, patches):
    """Logits of the classes: patches (B, P, D) -> float32 (B, C).

    The query is the same for all images, so it is multiplied with the keys' matrix first, and patches are averaged
    before they become values: no key and no value of a patch is computed.
    """
    width = len(probe.query)
    heads = max(1, width // WIDTH_OF_HEAD)
    heads = heads if width % heads == 0 else 1
    by_head = lambda matrix: matrix.reshape(*matrix.shape[:-1], heads, width // heads)
    product = partial(jnp.einsum, precision=HIGHEST)
    direction = product("dhk,hk->dh", by_head(probe.key), by_head(probe.query)) / (width // heads) ** 0.5
    weights = jax.nn.softmax(product("bpd,dh->bph", patches, direction), axis=1)
    seen = product("bhd,dhk->bhk", product("bph,bpd->bhd", weights, patches), by_head(probe.value))
    return product("bd,dc->bc", seen.reshape(len(patches), width) + probe.value_bias, probe.kernel) + probe.bias


def _loss(probe, patches, labels):
    return jnp.mean(optax.softmax_cross_entropy_with_integer_labels(logits(probe, patches), labels))


@partial(jax.jit, static_argnames=("steps", "batch"))
def train(patches, labels, fitted, grid, first: Probe, shuffle, steps: int, batch: int) -> Probe:
    """Trained probes, with an axis (G,) in front. grid: (G, 2) learning rates and weight decays; fitted: rows (M,)."""
    whole = len(fitted) // batch  # steps of an epoch
    schedule = cosine(1.0, 0.0, Clock(1, steps), warmup_epochs=steps // 10)
    adam = optax.scale_by_adam(0.9, 0.95, 1e-8)
    decayed = Probe(1.0, 1.0, 1.0, 0.0, 1.0, 0.0)

    def one_step(carry, count):
        order = jax.random.permutation(jax.random.fold_in(shuffle, count // whole), len(fitted))
        rows = fitted[jax.lax.dynamic_slice(order, (count % whole * batch,), (batch,))]
        x, y = patches[rows], labels[rows]

        def update(setting, probe, state):
            step, state = adam.update(jax.grad(_loss)(probe, x, y), state)
            move = lambda p, s, d: p - setting[0] * schedule(count) * (s + setting[1] * d * p)
            return jax.tree.map(move, probe, step, decayed), state

        return jax.vmap(update)(grid, *carry), None

    probes = jax.tree.map(lambda x: jnp.stack([x] * len(grid)), first)
    patches, labels = jnp.asarray(patches), jnp.asarray(labels)
    return jax.lax.scan(one_step, (probes, jax.vmap(adam.init)(probes)), jnp.arange(steps))[0][0]


@jax.jit
def _score(probes, patches, labels):
    """Accuracy and loss of each probe, two (G,), one at a time."""

    def one(probe):
        found = jax.lax.map(lambda x: logits(probe, x[None])[0], patches, batch_size=min(BATCH, len(patches)))
        return jnp.mean(jnp.argmax(found, 1) == labels), jnp.mean(
            optax.softmax_cross_entropy_with_integer_labels(found, labels)
        )

    return jax.lax.map(one, probes)
