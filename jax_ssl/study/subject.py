"""Whose features are drawn, and of what: a run's network or a file's, and a few images."""

import functools
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import optax
from ml_collections import ConfigDict

from jax_ssl import core, encoder, parts
from jax_ssl.data import few
from jax_ssl.encoder import Encoder, freeze
from jax_ssl.errors import UserError
from jax_ssl.optim.schedules import Clock
from jax_ssl.paths import resolve
from jax_ssl.run import checkpoints
from jax_ssl.study import measure
from jax_ssl.visualize import memory
from jax_ssl.weights import load

NETWORKS = ("student", "teacher", "untrained")  # of a run
NEEDED = ("params", "teacher", "extra")  # of a state, by pictures


class Subject(NamedTuple):
    """Whose features are drawn, and of what."""

    encode: Encoder
    name: str  # one of NETWORKS, or the name of a file
    images: np.ndarray  # uint8 (n, S, S, 3)
    config: ConfigDict | None  # of a run, with
    state: core.TrainState | None  # its newest state


def open_subject(run, weights: str, folder, size: int | None, count: int, overrides=()) -> Subject:
    """The frozen network and the images that the flags name; overrides: of the run's config."""
    if count < 1 or (size is not None and size < 1):
        raise UserError(f"--count={count} and --size={size or 'that of the run'} must be at least 1.")
    if (run is None) == (weights in NETWORKS):
        raise UserError(f"Give --run=FOLDER, with one of --weights={', '.join(NETWORKS)}, or --weights=FILE alone.")
    config = state = None
    if run is None and overrides:
        raise UserError(f"{overrides[0]} is for the config of a run: give --run=FOLDER, or leave it out.")
    if run is None:
        encode, name = load(weights), resolve(weights).stem
    else:
        config = measure.load_config(run, overrides)
        encode, state = open_run(run, config, weights)
        name = weights
    side = size or encode.size
    check_size(encode.backbone, side)
    check_memory(encode, side, count)
    if folder is not None:
        shown = few.of_folder(folder, count, side)
    elif config is not None:
        shown = few.of_source(
            config.data.probe.name or config.data.name, config.data.dir, count, side, config.data.eval_crop
        )
    else:
        shown = few.of_source("embedded", "", count, side, 1.0)
    return Subject(encode, name, shown, config, state)


def open_run(run: str, config: ConfigDict, which: str) -> tuple[Encoder, core.TrainState]:
    """One of a run's NETWORKS, frozen, and all that its method remembers."""
    state = create(config) if which == "untrained" else restore(run, config)
    if which == "teacher" and "backbone" not in state.teacher:
        raise UserError(f"{run} is a run of {config.method.name}, without a teacher: take --weights=student.")
    kind = "teacher" if which == "teacher" else "student"
    return freeze(parts.make_backbone(config), state, kind, **parts.images_of(config)), state


def restore(run: str, config: ConfigDict) -> core.TrainState:
    """A run's newest good state; what its optimiser remembers is left out."""
    loaded, step = checkpoints.load_raw(f"{run}/checkpoints", names=NEEDED)
    shapes = jax.eval_shape(lambda: create(config))

    def find(path, expected):  # by name: a checkpoint has no empty dicts, and its tuples are dicts of "0", "1", ...
        names = [str(getattr(entry, "key", getattr(entry, "idx", entry))) for entry in path]
        found = functools.reduce(lambda tree, name: tree.get(name, {}) if isinstance(tree, dict) else {}, names, loaded)
        if isinstance(found, dict) or found.shape != expected.shape:
            raise UserError(
                f"{'/'.join(names)} is another in {run} than --config says now: leave out what changes the network."
            )
        return found

    trees = jax.tree_util.tree_map_with_path(find, {name: getattr(shapes, name) for name in NEEDED})
    return core.TrainState(jnp.int32(step), opt_state=(), rng=jax.random.key(0), skipped=jnp.int32(0), **trees)


def create(config: ConfigDict) -> core.TrainState:
    """The state before the first step, as training with this config and seed makes it, without an optimiser's."""
    make = functools.partial(measure.new_state, config, make_method(config), optax.identity())
    return jax.jit(make)(jax.random.key(config.seed))


def check_size(backbone, side: int) -> None:
    """Raises UserError for images that can't be cut into the network's patches."""
    patch = getattr(backbone, "patch", 1) if getattr(backbone, "stem", "patch") == "patch" else 1
    if side % patch:
        raise UserError(
            f"--size={side} is no multiple of the network's patch of {patch}: take {max(side // patch, 1) * patch}."
        )


def check_memory(encode: Encoder, side: int, count: int) -> None:
    """Raises UserError for images larger than the network's own whose way through it would not fit into memory."""
    if side <= encode.size:
        return
    what, remedy = f"--size={side}", "a smaller --size or --count"
    pixels = 48 * count * side * side  # of the images themselves, as they are drawn; known without any tracing
    memory.check(lambda: pixels, what, remedy)
    patches, width = encoder.shape_of_patches(encode, side)
    memory.check(lambda: pixels + 32 * count * patches * width + encoder.memory(encode, side), what, remedy)


def make_method(config: ConfigDict, steps: int = 1, **changes) -> core.Method:
    """The run's method, with other keywords; the run is taken for finished after so many steps."""
    make = parts.find_module("methods", config.method.name).make
    keywords = parts.without_name(config.method) | changes
    return make(parts.make_backbone(config), Clock(steps / config.epochs, steps), **keywords)
