"""The training contract: what a method is, what a run remembers, how one step works."""

from collections.abc import Callable, Mapping
from types import MappingProxyType
from typing import Any, NamedTuple

import flax
import jax
import jax.numpy as jnp
import optax

from jax_ssl.errors import UserError
from jax_ssl.sharding import split_strided

PyTree = Any


class Task(NamedTuple):
    """The puzzle that a pretext method trains on, to be solved on held-out images: `evaluate/pretext.py` does that.

    measure(params, state, batch, rng) -> {metric: its mean over the images}
        batch: {"views": (B, 1, S, S, 3)}, held-out images without augmentation, normalised. Which puzzle is set
        follows from `rng` alone, and is the same for everybody who is measured. Running statistics, no training mode.
    metric, better: the number that says whether the puzzle is solved, and whether more of it is better or less.
    chance: {metric: what a guess gets}, where that is known.
    baselines: {name: fit}, cheap ways to solve it without learning features.
        fit(batches, rng, linear) -> function(batch, rng) -> {metric: mean}, as `measure`. batches: of training images,
        an iterable to go through once; linear(features (N, D), labels (N,), classes) -> function(features) -> labels
        fits a linear model. A baseline that learns nothing leaves all three alone.
    summary(means) -> {metric: number}
        What the means over all images become: a root, or the ratio of two of them.
    protocol: the choices that make the puzzle harder or easier, for the record of each number.
    """

    measure: Callable
    metric: str = "accuracy"
    better: str = "higher"  # or "lower"
    chance: Mapping[str, float] = MappingProxyType({})
    baselines: Mapping[str, Callable] = MappingProxyType({})
    summary: Callable = lambda means: means
    protocol: Mapping[str, Any] = MappingProxyType({})


def linear_baseline(puzzle: Callable, classes: int) -> Callable:
    """The baseline of a Task that solves its puzzle by a linear model of given features, as `Task.baselines` wants it.

    puzzle(batch, rng) -> (features (N, D), labels (N,) int from 0 to classes - 1): the puzzles that `measure` sets.
    """

    puzzle = jax.jit(puzzle)

    def fit(batches, rng, linear):
        found = (puzzle(batch, jax.random.fold_in(rng, number)) for number, batch in enumerate(batches))
        features, labels = (jnp.concatenate(parts) for parts in zip(*found))
        predict = linear(features, labels, classes)

        def solve(batch, rng):
            features, labels = puzzle(batch, rng)
            return {"accuracy": jnp.mean(predict(features) == labels)}

        return solve

    return fit


class Method(NamedTuple):
    """A self-supervised method: pure functions, and how its teacher is updated.

    init(rng, batch) -> (params, extra)
        `params` is a dict of named sub-trees; `params["backbone"]` is what evaluation reads.
        `extra` is whatever else must survive between steps: a queue, a centre, a frozen tokenizer.
        Flax's mutable collections (batch statistics) live in `extra["stats"]`.
    loss(params, state, batch, rng) -> (loss, (extra, metrics))
        Written for the *global* batch, as if there were one device. Reads the old state, returns the new `extra`.
        loss: float32 scalar. Metrics are scalars too; well-known ones are `uniform_loss` (the loss of a constant
        output) and `feature_std` (1 = spread like random directions, 0 = collapsed).
    show(params, state, batch, rng) -> {name: array}
        What a person should see: (rows, columns, H, W, 3) in the batch's own units is drawn as a grid of images,
        (H, W) as a heat map; `visualize/NAME.py` of the method's name may draw it in another way. Called now and then,
        outside the training step.
    """

    init: Callable
    loss: Callable
    teacher: tuple[str, ...] = ()  # names in `params` that keep an EMA copy
    momentum: Callable = lambda step: 1.0  # EMA rate at `step`
    show: Callable = lambda params, state, batch, rng: {}
    fresh_teacher: bool = False  # the teacher starts from random parameters of its own (BYOL), not as a copy
    per_image: bool = False  # no image's loss depends on another image: the mean can be computed in pieces
    guards: Mapping[str, bool] = MappingProxyType({})  # {config key of what prevents collapse: whether it is on}
    min_batch: int = 1  # images that the loss needs at once: two where it compares images with each other
    curves: Mapping[str, Callable] = MappingProxyType({})  # {metric: schedule of the step}, such as a temperature's
    lengths: Mapping[str, float] = MappingProxyType({})  # {config key: steps} of what should end before the run does
    memories: Mapping[str, int] = MappingProxyType({})  # {config key: images} of what should fit into the data set
    task: Task | None = None  # the puzzle by which `evaluate --task=pretext` and a run's log measure it
    pixels: tuple[float, float] | None = None  # data.mean and data.std that it counts on: (0, 1) for colours in [0, 1]
    look: Callable | None = None  # raises UserError where images, uint8 (n, S, S, 3), can't teach it anything
    tallies: Mapping[str, Callable] = MappingProxyType({})  # {name in `extra`: images -> numbers}, see run/tallies.py


@flax.struct.dataclass
class TrainState:
    """Everything that changes in a run, as one pytree. What is not in here is a constant."""

    step: jax.Array  # int32, batches consumed, skipped ones included
    params: PyTree
    opt_state: PyTree
    teacher: PyTree
    extra: PyTree
    rng: jax.Array
    skipped: jax.Array  # int32, how many steps in a row were not finite


def create(method: Method, tx: optax.GradientTransformation, rng: jax.Array, batch: PyTree) -> TrainState:
    """The state before the first step. The teacher is a copy of the student, or with `fresh_teacher` a second draw."""
    init_rng, run_rng = jax.random.split(rng)
    params, extra = method.init(init_rng, batch)
    source = method.init(jax.random.fold_in(init_rng, 1), batch)[0] if method.fresh_teacher else params
    return TrainState(
        step=jnp.zeros((), jnp.int32),
        params=params,
        opt_state=tx.init(params),
        teacher={name: source[name] for name in method.teacher},
        extra=extra,
        rng=run_rng,
        skipped=jnp.zeros((), jnp.int32),
    )


def ema(teacher: PyTree, student: PyTree, momentum) -> PyTree:
    """teacher <- momentum * teacher + (1 - momentum) * student, in float32 (bf16 would round 0.999 to 1)."""
    momentum = jnp.asarray(momentum, jnp.float32)
    return jax.tree.map(lambda t, s: momentum * t + (1 - momentum) * s, teacher, student)


def one_view(batch) -> jax.Array:
    """The one view of each image of a batch, (B, H, W, 3). Raises UserError if the config makes more."""
    if {name: views.shape[1] for name, views in batch.items()} != {"views": 1}:
        raise UserError(f"This method sees one view of an image, and the config makes {_list_views(batch)}: leave one.")
    return batch["views"][:, 0]


def two_views(batch) -> tuple[jax.Array, jax.Array]:
    """The two views of a batch, (B, H, W, 3) each. Raises UserError if the config makes other views than a pair."""
    if {name: views.shape[1] for name, views in batch.items()} != {"views": 2}:
        raise UserError(
            f"This method compares two views of an image, and the config makes {_list_views(batch)}: leave one pair."
        )
    return batch["views"][:, 0], batch["views"][:, 1]


def _list_views(batch) -> str:
    return ", ".join(f"{views.shape[1]} in data.crops.{name}" for name, views in batch.items())


def crop_groups(batch) -> list[jax.Array]:
    """The crops of a batch by size: two large ones (B, 2, H, W, 3), and small ones (B, L, h, w, 3) if there are any.

    Raises UserError if the config makes another number of large ones.
    """
    large = batch["views"].shape[1]
    if large != 2:
        raise UserError(
            f"This method compares two large crops, and data.crops.views makes {large}: small ones go to `local`."
        )
    return [batch[name] for name in ("views", "local") if name in batch]


def in_pieces(method: Method, size: int) -> Method:
    """The same method in less memory: the loss of `size` images at a time, each piece recomputed for its gradient.

    Only for a method whose loss is a mean over images (`per_image`): the mean over pieces is then the mean over all.
    """

    def loss(params, state, batch, rng):
        count = len(jax.tree.leaves(batch)[0]) // size
        pieces = jax.tree.map(lambda x: split_strided(x, count), batch)

        @jax.checkpoint
        def one(extra, numbered):
            number, piece = numbered
            value, (extra, metrics) = method.loss(
                params, state.replace(extra=extra), piece, jax.random.fold_in(rng, number)
            )
            return extra, (value, metrics)

        extra, (values, metrics) = jax.lax.scan(one, state.extra, (jnp.arange(count), pieces))
        return jnp.mean(values), (extra, jax.tree.map(lambda m: jnp.mean(m, axis=0), metrics))

    return method._replace(loss=loss)


def train_step(method: Method, tx, state: TrainState, batch: PyTree) -> tuple[TrainState, dict]:
    """One update. A step whose loss or gradient is not finite changes nothing but the step count."""
    rng = jax.random.fold_in(state.rng, state.step)
    grad_fn = jax.value_and_grad(method.loss, has_aux=True)
    (loss, (extra, metrics)), grads = grad_fn(state.params, state, batch, rng)
    grad_norm = optax.tree.norm(grads)
    updates, opt_state = tx.update(grads, state.opt_state, state.params)
    finite = jnp.isfinite(loss) & jnp.isfinite(grad_norm)
    keep = lambda new, old: jax.tree.map(lambda n, o: jnp.where(finite, n, o), new, old)
    opt_state, extra = keep(opt_state, state.opt_state), keep(extra, state.extra)
    # For a skipped step: an update of zero and a momentum of one. `keep` on parameters and teacher would make the
    # compiler read both a second time, an eighth of all bytes that a step of I-JEPA ViT-H moves.
    updates = jax.tree.map(lambda update: jnp.where(finite, update, 0), updates)
    params = optax.apply_updates(state.params, updates)
    # The teacher moves after the optimiser. MoCo's "before the key forward" is the same thing one step earlier.
    momentum = jnp.where(finite, method.momentum(state.step), 1.0)
    teacher = ema(state.teacher, {name: params[name] for name in state.teacher}, momentum)
    skipped = jnp.where(finite, 0, state.skipped + 1)
    metrics = {"loss": loss, "grad_norm": grad_norm, **metrics, "skipped": skipped}
    state = TrainState(state.step + 1, params, opt_state, teacher, extra, state.rng, skipped)
    return state, metrics
