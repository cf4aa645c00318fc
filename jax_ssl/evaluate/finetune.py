"""Fine-tuning: train the whole network on labels, and the same network from scratch on the same labels to compare.

Protocol. A class-balanced tenth of the *training* labels is held out; each base learning rate of a grid trains a copy
on the rest. The rate with the best held-out accuracy is chosen, and the test set is used once, by the chosen network,
which is not trained again. The network from scratch has a new backbone and no layer decay, as it has no pre-trained
lower layers; all else is equal, and each may have its own grid. Batches and crops depend on the seed alone.

Recipe: He et al. 2022, Table 9 (https://arxiv.org/abs/2111.06377), without mixup, cutmix, RandAugment and erasing. The
final norm comes before the mean of the patches and keeps its weights (models_vit.py: a new norm, behind the mean).
"""

from collections.abc import Sequence
from functools import partial
from typing import NamedTuple

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import optax

from jax_ssl.encoder import Encoder
from jax_ssl.errors import UserError
from jax_ssl.evaluate.rules import seed32
from jax_ssl.optim import optimizers, schedules, updates
from jax_ssl.sharding import batch_constraint
from jax_ssl.views import device as on_device

AREA, RATIO = 0.5, 4 / 3  # smallest area and largest aspect ratio of a crop; the usual area 0.08 needs more labels
SMOOTHING = 0.1
POOLS = {"mean": lambda features: features.patches.mean(1), "own": lambda features: features.pooled}


class Recipe(NamedTuple):
    """What stays fixed during a training: hashable, so one compiled step serves every learning rate of a grid."""

    backbone: nn.Module
    pixel: tuple  # mean and deviation, by channel
    pool: str
    clock: schedules.Clock
    warmup_epochs: float
    layer_decay: float
    weight_decay: float


class State(NamedTuple):
    """What changes during a training."""

    params: dict  # backbone and head
    stats: dict  # batch statistics, empty without batch norm
    opt_state: optax.OptState


def finetune(
    encode: Encoder, train_images, train_labels, test_images, test_labels, classes: int, *, scratch: bool, epochs: int,
    base_lr: float | Sequence[float], batch: int = 128, layer_decay: float = 0.75, weight_decay: float = 0.05,
    drop_path: float = 0.0, warmup: float = 0.1, pool: str = "mean", seed: int = 0) -> dict:  # fmt: skip
    """Accuracies of the fine-tuned network, as fractions, and what the protocol chose. `encode` is not changed.

    images: uint8 (N, S, S, 3); labels: int (N,). scratch: start from new weights. base_lr: one or a grid, per 256
    images. layer_decay: 1 for networks that are no transformers. warmup: share of the epochs. pool: "mean" of the
    patches, or the encoder's "own". Raises UserError for images, labels or settings that cannot be used.
    """
    side, seed = check(train_images, train_labels, test_images, pool), seed32(seed)
    if epochs < 1:
        raise UserError(f"Fine-tuning for epochs={epochs} would train nothing: give at least 1.")
    train_labels = np.asarray(train_labels, np.int32)
    held_out = fewshot(train_labels, len(train_labels) // 10, seed)
    fitted = np.setdiff1d(np.arange(len(train_labels)), held_out)
    images, labels = jnp.asarray(train_images[fitted]), jnp.asarray(train_labels[fitted])  # on the device from here on
    rows = batches(len(fitted), min(batch, len(fitted)), epochs, seed)
    backbone, clock = with_drop_path(encode.backbone, drop_path), schedules.Clock(len(rows) / epochs, len(rows))
    layer_decay, pixel = 1.0 if scratch else layer_decay, (tuple(encode.mean), tuple(encode.std))
    recipe = Recipe(backbone, pixel, pool, clock, warmup * epochs, layer_decay, weight_decay)
    weights_key, views_key = jax.random.split(jax.random.key(seed))
    first = initial_state(encode, recipe, side, classes, weights_key, scratch)
    grid, best = {}, None
    for rate in map(float, np.atleast_1d(base_lr)):
        peak = optimizers.peak_lr(rate, rows.shape[1], "linear_256")
        state = train(first, images, labels, rows, peak, views_key, recipe)
        grid[rate] = accuracy(state, train_images[held_out], train_labels[held_out], recipe)
        if best is None or grid[rate] > grid[best[0]]:
            best = rate, state._replace(opt_state=())
    rate, state = best
    result = {"top1": accuracy(state, test_images, test_labels, recipe), "learning_rate": rate, "steps": len(rows)}
    chosen = {"held_out_top1": grid[rate], "grid": grid, "layer_decay": layer_decay, "batch": rows.shape[1]}
    return result | {"train_top1": accuracy(state, images, labels, recipe)} | chosen


def options_of(backbone) -> dict:
    """The keywords of `finetune` that a network without a stack of blocks needs; {} for others.

    Layer decay needs such a stack; a network without one also pools its features itself.
    """
    return {} if hasattr(backbone, "depth") else {"layer_decay": 1.0, "pool": "own"}


def fewshot(labels, count: int, seed: int = 0) -> np.ndarray:
    """Sorted indices of a class-balanced choice of images, int (count,); a smaller count gives a subset of a larger."""
    labels = np.asarray(labels)
    if not 0 < count <= len(labels):
        raise UserError(f"Cannot choose {count} of {len(labels)} labelled images: give more labels or choose fewer.")
    order = np.random.RandomState(seed32(seed)).permutation(len(labels))
    rank = np.empty(len(labels), int)  # the place of each image among those of its class
    for label in np.unique(labels):
        rank[labels[order] == label] = np.arange(np.sum(labels == label))
    return np.sort(order[np.argsort(rank, kind="stable")[:count]])


def check(train_images, train_labels, test_images, pool: str) -> int:
    """The side of the images in pixels. Raises UserError if they are not square, of one size, labelled and enough."""
    shapes, side = (train_images.shape[1:], test_images.shape[1:]), train_images.shape[1]
    if set(shapes) != {(side, side, 3)}:
        raise UserError(f"Fine-tuning needs square images of one size, not {shapes[0]} and {shapes[1]}: resize them.")
    if len(train_images) < 10:
        raise UserError(f"Fine-tuning needs at least 10 labelled images, not {len(train_images)}: give more.")
    if not len(test_images):
        raise UserError(
            "Fine-tuning tests on labelled images that it was not trained on, and there are none: give some."
        )
    if len(np.unique(train_labels)) < 2:
        raise UserError(
            "Fine-tuning needs two classes, and all labelled images are of one class: give images of another."
        )
    if pool not in POOLS:
        raise UserError(f"pool={pool!r}: choose one of {', '.join(POOLS)}.")
    return side


def with_drop_path(backbone: nn.Module, drop_path: float) -> nn.Module:
    """The same network with this rate of stochastic depth, and with batch norm over the whole batch."""
    if hasattr(backbone, "backbone"):  # one behind an input stage
        return backbone.clone(backbone=with_drop_path(backbone.backbone, drop_path))
    if drop_path and not hasattr(backbone, "drop_path"):
        raise UserError(f"A {type(backbone).__name__} has no branches to drop: set drop_path to 0.")
    changes = ("drop_path", drop_path), ("norm_groups", 1)
    return backbone.clone(**{name: value for name, value in changes if hasattr(backbone, name)})


def batches(count: int, batch: int, epochs: int, seed: int) -> np.ndarray:
    """Indices of the images of every step: int32 (steps, batch). An epoch is a permutation without a partial batch."""
    random, whole = np.random.RandomState(seed32(seed)), count - count % batch
    return np.array([random.permutation(count)[:whole] for _ in range(epochs)], np.int32).reshape(-1, batch)


def initial_state(encode: Encoder, recipe: Recipe, side: int, classes: int, key, scratch: bool) -> State:
    """The encoder's weights, or new ones from scratch, with a linear head of zeros."""
    image = jnp.zeros((1, side, side, 3))
    variables = jax.jit(recipe.backbone.init)(key, image) if scratch else encode.variables
    width = jax.eval_shape(lambda: POOLS[recipe.pool](recipe.backbone.apply(variables, image))).shape[-1]
    head = {"kernel": jnp.zeros((width, classes)), "bias": jnp.zeros(classes)}
    params = {"backbone": variables["params"], "head": head}
    stats = {name: tree for name, tree in variables.items() if name not in ("params", "intermediates")}
    return State(params, stats, optimiser(0.0, recipe).init(params))


def optimiser(peak, recipe: Recipe) -> optax.GradientTransformation:
    """AdamW with layer-wise learning rate decay. peak: the largest learning rate; it may be traced."""
    schedule = schedules.cosine(peak, 0.0, recipe.clock, recipe.warmup_epochs)
    adam = optimizers.adamw(schedule, recipe.weight_decay, decay="kernels")
    return adam if recipe.layer_decay == 1.0 else optax.chain(adam, updates.layer_decay(recipe.layer_decay))


def random_crops(images, key):
    """One random crop of each uint8 image (B, S, S, 3), half of them mirrored: float32 in [0, 1], of the same shape."""
    count, side = images.shape[:2]
    area, ratio, top, left, flip = jax.random.uniform(key, (5, count))
    area, ratio = 1 - (1 - AREA) * area, RATIO ** (2 * ratio - 1)  # uniform, and uniform in its logarithm
    height, width = side * jnp.sqrt(area / ratio), side * jnp.sqrt(area * ratio)
    lengths = jnp.clip(jnp.round(jnp.stack([height, width], axis=1)), 1, side)  # (B, 2)
    corners = jnp.floor(jnp.stack([top, left], axis=1) * (side - lengths + 1))
    box = jnp.concatenate([corners, lengths], axis=1).astype(jnp.int32)
    return on_device.crop(images, box, flip < 0.5, side, "bicubic")


def train(state: State, images, labels, rows, peak: float, key, recipe: Recipe) -> State:
    """The state after one step for each row of `rows` (steps, B), the indices of a batch."""
    state = jax.tree.map(jnp.array, state)  # a copy, as train_step donates its argument
    for step, chosen in enumerate(rows):
        state = train_step(state, images, labels, chosen, jax.random.fold_in(key, step), peak, recipe)
    return state


@partial(jax.jit, static_argnames="recipe", donate_argnames="state")
def train_step(state: State, images, labels, chosen, key, peak, recipe: Recipe) -> State:
    views_key, drop_key = jax.random.split(key)
    x = batch_constraint(on_device.normalise(random_crops(images[chosen], views_key), *recipe.pixel))

    def loss(params):
        variables, drops = {"params": params["backbone"], **state.stats}, {"drop_path": drop_key}
        features, stats = recipe.backbone.apply(variables, x, train=True, mutable=list(state.stats), rngs=drops)
        scores = jax.nn.log_softmax(head_logits(params["head"], features, recipe))
        label_score = jnp.take_along_axis(scores, labels[chosen][:, None], axis=1)
        return -jnp.mean((1 - SMOOTHING) * label_score + SMOOTHING * scores.mean(axis=1, keepdims=True)), stats

    gradient, stats = jax.grad(loss, has_aux=True)(state.params)
    updates, opt_state = optimiser(peak, recipe).update(gradient, state.opt_state, state.params)
    return State(optax.apply_updates(state.params, updates), stats, opt_state)


def head_logits(head, features, recipe: Recipe):
    """Features -> float32 (B, C)."""
    pooled = POOLS[recipe.pool](features).astype(jnp.float32)
    return jnp.matmul(pooled, head["kernel"], precision=jax.lax.Precision.HIGHEST) + head["bias"]


@partial(jax.jit, static_argnames="recipe")
def predict(params, stats, images, recipe: Recipe):
    """Classes of uint8 images (B, S, S, 3): int32 (B,), -1 where a logit is NaN, which argmax would call class 0."""
    x = on_device.normalise(batch_constraint(images).astype(jnp.float32) / 255, *recipe.pixel)
    logits = head_logits(params["head"], recipe.backbone.apply({"params": params["backbone"], **stats}, x), recipe)
    return jnp.where(jnp.isnan(logits.max(axis=1)), -1, jnp.argmax(logits, axis=1)).astype(jnp.int32)


def accuracy(state: State, images, labels, recipe: Recipe, batch: int = 256) -> float:
    """Fraction of the images that are classified right, without augmentation. The last batch is padded."""
    found = []
    for start in range(0, len(images), batch):
        chunk = np.asarray(images[start : start + batch])
        padded = np.pad(chunk, ((0, batch - len(chunk)), (0, 0), (0, 0), (0, 0)))
        found.append(np.asarray(predict(state.params, state.stats, padded, recipe))[: len(chunk)])
    return float(np.mean(np.concatenate(found) == np.asarray(labels)))
