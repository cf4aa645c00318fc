"""What `visualize` draws: a network, of a run or of a file of weights, and a few images."""

import functools
import math
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from ml_collections import ConfigDict

from jax_ssl import core, encoder, parts
from jax_ssl.data import selection
from jax_ssl.encoder import Encoder, freeze
from jax_ssl.errors import UserError
from jax_ssl.optim.schedules import Clock
from jax_ssl.paths import resolve
from jax_ssl.run import checkpoints
from jax_ssl.study import measure
from jax_ssl.views.sizes import Size, sides, size_of, written
from jax_ssl.visualize import memory
from jax_ssl.weights import load

NETWORKS = ("student", "teacher", "untrained")  # of a run


class Subject(NamedTuple):
    """A frozen network, and the images that are drawn."""

    encode: Encoder
    name: str  # one of NETWORKS, or the name of a file
    images: np.ndarray  # uint8 (n, H, W, 3)
    config: ConfigDict | None  # of the run; None for a file
    state: core.TrainState | None  # the newest of the run; None for a file

    @property
    def size(self) -> Size:
        return size_of(*self.images.shape[1:3])


def open_subject(run, weights: str, folder, size: Size | None, count: int, overrides=()) -> Subject:
    """The Subject that the flags of `visualize` describe; overrides: of the run's config. Raises UserError."""
    if count < 1:
        raise UserError(f"--count={count} must be at least 1.")
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
    size = size or encode.size
    encoder.check_size(encode.backbone, size)
    check_memory(encode, size, count)
    if folder is not None:
        shown = selection.from_folder(folder, count, size)
    elif config is not None:
        shown = selection.from_source(
            config.data.probe.name or config.data.name, config.data.dir, count, size, config.data.eval_crop
        )
    else:
        shown = selection.from_source("embedded", "", count, size, 1.0)
    return Subject(encode, name, shown, config, state)


def open_run(run: str, config: ConfigDict, which: str) -> tuple[Encoder, core.TrainState]:
    """(Encoder of one of a run's NETWORKS, state of the run). which: of NETWORKS. Raises UserError."""
    state = measure.untrained_state(config) if which == "untrained" else restore(run, config)
    if which == "teacher" and "backbone" not in state.teacher:
        raise UserError(f"{run} is a run of {config.method.name}, without a teacher: take --weights=student.")
    kind = "teacher" if which == "teacher" else "student"
    return freeze(parts.network_of(config), state, kind, **parts.images_of(config)), state


def restore(run: str, config: ConfigDict) -> core.TrainState:
    """A run's newest good state, without that of its optimiser. Raises UserError if it does not fit the config."""
    return state_of(*checkpoints.load_raw(f"{run}/checkpoints", names=checkpoints.WITHOUT_OPTIMISER), run, config)


def state_of(loaded: dict, step: int, run: str, config: ConfigDict) -> core.TrainState:
    """`restore` of a checkpoint of that run that is loaded: nested dicts of NumPy arrays."""
    shapes = jax.eval_shape(measure.init_of(config), jax.random.key(0))

    def find(path, expected):  # by name: a checkpoint has no empty dicts, and its tuples are dicts of "0", "1", ...
        names = [str(getattr(entry, "key", getattr(entry, "idx", entry))) for entry in path]
        found = functools.reduce(lambda tree, name: tree.get(name, {}) if isinstance(tree, dict) else {}, names, loaded)
        if isinstance(found, dict) or found.shape != expected.shape:
            raise UserError(
                f"{'/'.join(names)} of {run} does not fit the overrides: leave out those that change the network."
            )
        return found

    wanted = {name: getattr(shapes, name) for name in checkpoints.WITHOUT_OPTIMISER}
    trees = jax.tree_util.tree_map_with_path(find, wanted)
    return core.TrainState(jnp.int32(step), opt_state=(), rng=jax.random.key(0), skipped=jnp.int32(0), **trees)


def check_memory(encode: Encoder, size: Size, count: int) -> None:
    """Raises UserError if images are larger than in training and their forward pass would not fit into memory."""
    if math.prod(sides(size)) <= math.prod(sides(encode.size)):
        return
    what, remedy = f"--size={written(size)}", "a smaller --size or --count"
    pixels = 48 * count * math.prod(sides(size))  # bytes for drawing them; needs no tracing, so it is checked first
    memory.check(lambda: pixels, what, remedy)
    patches, width = encoder.shape_of_patches(encode, size)
    memory.check(lambda: pixels + 32 * count * patches * width + encoder.memory_per_image(encode, size), what, remedy)


def make_method(config: ConfigDict, steps: int = 1, **changes) -> core.Method:
    """The run's method with changed keywords. steps: the length of the run, for its schedules."""
    make = parts.find_module("methods", config.method.name).make
    keywords = parts.without_name(config.method) | changes
    return make(parts.make_backbone(config), Clock(steps / config.epochs, steps), **keywords)
