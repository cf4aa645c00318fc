"""The frozen encoder, which every evaluation and every picture uses."""

import contextlib
import dataclasses
import functools
from collections.abc import Callable, Iterable, Iterator

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np

from jax_ssl.errors import UserError
from jax_ssl.models.features import Features
from jax_ssl.sharding import batch_constraint, make_mesh, replicated_constraint
from jax_ssl.views.sizes import Size, sides, size_of, written

BATCH = 256  # images that pass at once
LARGE = 128  # pixels of a side from which so many may not fit into memory
ROOM = 2**30  # bytes for what a network computes of a batch, on each device


@dataclasses.dataclass(frozen=True)
class Encoder:
    """A backbone with fixed weights: normalised images (B, H, W, 3) float32 -> Features.

    mean, std: of the colours, as in training. size: of the images that it expects, in pixels, see views/sizes.py.
    """

    backbone: nn.Module
    variables: dict
    mean: tuple[float, ...] = (0.0, 0.0, 0.0)
    std: tuple[float, ...] = (1.0, 1.0, 1.0)
    size: Size = 224

    def __call__(self, images) -> Features:
        return _run(self.backbone, self.variables, images)

    @property
    def protocol(self) -> dict:
        """What a number of these features has to say of their input; nothing where it is the whole image in colour."""
        return dict(getattr(self.backbone, "protocol", {}))

    def normalise(self, images):
        """uint8 (B, H, W, 3) -> the float32 that the encoder takes."""
        return (jnp.asarray(images, jnp.float32) / 255 - jnp.asarray(self.mean)) / jnp.asarray(self.std)


@functools.partial(jax.jit, static_argnums=0)
def _run(backbone, variables, images):
    # Weights are an argument, not a closure, so XLA does not bake them into the program as constants.
    return backbone.apply(variables, images)


def temporary_bytes(program) -> int:
    """Bytes that a compiled program needs besides its arguments and results; 0 where the compiler does not say."""
    analysis = program.memory_analysis()
    return 0 if analysis is None else analysis.temp_size_in_bytes


def memory_per_image(encode: Encoder, size: Size) -> int:
    """Bytes that the forward pass of one image of this size needs, besides the weights."""
    shapes, tree = jax.tree.flatten(jax.tree.map(jnp.shape, encode.variables), is_leaf=lambda x: isinstance(x, tuple))
    types = [jnp.result_type(x) for x in jax.tree.leaves(encode.variables)]
    return _memory_per_image(encode.backbone, tree, tuple(zip(shapes, types)), size)


@functools.lru_cache(maxsize=8)  # a run asks at each of its probes, and a program takes seconds to compile
def _memory_per_image(backbone, tree, leaves: tuple, size: Size) -> int:
    variables = tree.unflatten(jax.ShapeDtypeStruct(*leaf) for leaf in leaves)
    image = jax.ShapeDtypeStruct((1, *sides(size), 3), jnp.float32)
    with jax.set_mesh(make_mesh(devices=jax.local_devices()[:1])):  # one image can't be split
        return temporary_bytes(_run.lower(backbone, variables, image).compile())


def batch_size(encode: Encoder, size: Size) -> int:
    """How many images of this size pass at once: BATCH, or of large ones as many as ROOM has memory for."""
    if max(sides(size)) < LARGE:
        return BATCH
    devices = jax.device_count()
    room = ROOM * (1 if jax.default_backend() == "cpu" else devices)  # simulated devices share a memory
    fit = room // max(memory_per_image(encode, size), 1)
    return min(BATCH, max(devices, 2 ** (max(fit, 1).bit_length() - 1)))


def in_batches(encode: Encoder, images, rows=None) -> Iterator[np.ndarray]:
    """uint8 images (N, H, W, 3), or those at `rows` of them, in batches of as many as pass at once."""
    size, rows = batch_size(encode, size_of(*images.shape[1:3])), np.arange(len(images)) if rows is None else rows
    return (images[rows[start : start + size]] for start in range(0, len(rows), size))


def shape_of_patches(encode: Encoder, size: Size) -> tuple[int, int]:
    """(patches, features of each) of an image of this size."""
    image = jax.ShapeDtypeStruct((1, *sides(size), 3), jnp.float32)
    return jax.eval_shape(_run, encode.backbone, encode.variables, image).patches.shape[1:]


def freeze(backbone, state, which: str = "student", **image) -> Encoder:
    """The Encoder of a training state (a TrainState, or a restored dict of one). which: "student" or "teacher".

    A teacher with batch norm uses the statistics of its own forward passes. image: mean, std and size of the Encoder.
    """
    get = state.get if isinstance(state, dict) else functools.partial(getattr, state)
    params = get("params" if which == "student" else "teacher")["backbone"]
    extra = get("extra")
    stats = extra.get("teacher_stats", extra.get("stats", {})) if which == "teacher" else extra.get("stats", {})
    variables = {"params": params} | {name: tree["backbone"] for name, tree in stats.items() if "backbone" in tree}
    return Encoder(backbone, variables, **image)


def check_depth(backbone, depth: int) -> None:
    """Raises UserError for a depth that the network does not have."""
    depths = getattr(backbone, "depths", 0)
    if depth and not 0 < depth <= depths:
        remedy = f"give 1 to {depths}, of its blocks, stages or layers, or 0 for the last" if depths else "set it to 0"
        raise UserError(f"feature_depth={depth}: this network can't be measured there: {remedy}.")


def check_size(backbone, size: Size) -> None:
    """Raises UserError for images whose sides, in pixels, are not multiples of the network's patch."""
    patch = getattr(backbone, "patch", 1) if getattr(backbone, "stem", "patch") == "patch" else 1
    if any(side % patch for side in sides(size)):
        near = size_of(*(max(side // patch, 1) * patch for side in sides(size)))
        raise UserError(
            f"--size={written(size)} is not a multiple of the network's patch of {patch}: take {written(near)}."
        )


def at_depth(encode: Encoder, depth: int) -> Encoder:
    """The same network with its first `depth` parts only, 0 = all. Raises UserError.

    Parts are the blocks of a transformer or of NIN, the stages of a ResNet, the convolutions of AlexNet: a network has
    `depths` of them, and `shortened`. A network that solves a puzzle without a decoder uses its last parts as one, and
    parts in the middle have better features: Chen et al. 2020 (iGPT), figure 2; Bao et al. 2022 (BEiT), appendix D;
    Gidaris et al. 2018 (RotNet), table 1.
    """
    check_depth(encode.backbone, depth)
    if not depth:
        return encode
    short, variables = encode.backbone.shortened(depth, encode.variables)
    return dataclasses.replace(encode, backbone=short, variables=variables)


def depths_of(backbone) -> range:
    """The depths that a network has, from 1; the last alone where it can't be measured at others."""
    return range(1, max(getattr(backbone, "depths", 0), 1) + 1)


@dataclasses.dataclass(frozen=True)
class EachDepth:
    """In the place of a backbone: images -> what `read` takes of its Features at each of these depths, as a tuple."""

    backbone: nn.Module
    depths: range
    read: Callable

    def apply(self, variables: dict, images) -> tuple:
        if hasattr(self.backbone, "at_each_depth"):
            each = self.backbone.at_each_depth(variables, images)
        else:
            depths = range(1, getattr(self.backbone, "depths", 0) + 1)
            short = [self.backbone.shortened(depth, variables) for depth in depths] or [(self.backbone, variables)]
            # In one program, the compiler makes what these networks have in common once.
            each = [network.apply(kept, images) for network, kept in short]
        return tuple(self.read(each[depth - 1]) for depth in self.depths)


def pooled_of(features: Features):
    """The vector of each image, float32 (B, D)."""
    return features.pooled.astype(jnp.float32)


def at_depths(encode: Encoder, depths: range, read: Callable = pooled_of) -> Encoder:
    """All of `at_depth` in one pass: in the place of Features, it gives what `read` takes of them at each depth."""
    return dataclasses.replace(encode, backbone=EachDepth(encode.backbone, depths, read))


@functools.partial(jax.jit, static_argnums=(0, 1))
def _outputs(backbone, read, variables, images, mean, std):
    x = (batch_constraint(images).astype(jnp.float32) / 255 - mean) / std
    return jax.tree.map(replicated_constraint, read(backbone.apply(variables, x)))


def outputs(encode: Encoder, batches: Iterable, read: Callable = pooled_of) -> Iterator:
    """What `read` takes from the Features of each batch: NumPy (b, ...), or a tree of such arrays.

    batches: uint8 (b, H, W, 3); a smaller one is filled up to the size before it, so that few shapes are compiled. They
    are split over the devices of the mesh that is set, or of a new one over all devices. A batch that is a jax.Array
    is taken as it is. read: a function of a module, as it is a key of the compiled program. While the devices work on a
    batch, the next one is read.
    """
    outer = jax.sharding.get_abstract_mesh()
    within = (lambda: jax.set_mesh(make_mesh())) if outer.empty else contextlib.nullcontext
    mean, std = jnp.asarray(encode.mean), jnp.asarray(encode.std)
    with within():  # weights of a file or a checkpoint go to the devices once
        variables = jax.tree.map(lambda x: jnp.asarray(x) if isinstance(x, np.ndarray) else x, encode.variables)
    size, waiting = 0, None
    for batch in batches:
        count = len(batch)
        if not isinstance(batch, jax.Array):
            size = size if count <= size else -(-count // jax.device_count()) * jax.device_count()
            batch = np.pad(np.asarray(batch), ((0, size - count), (0, 0), (0, 0), (0, 0)))
        with within():
            made = _outputs(encode.backbone, read, variables, batch, mean, std)
        if waiting is not None:
            yield _fetch(*waiting)
        waiting = made, count
    if waiting is not None:
        yield _fetch(*waiting)


def _fetch(made, count: int):
    return jax.tree.map(lambda x: np.asarray(x)[:count], made)


def extract(encode: Encoder, images: np.ndarray) -> np.ndarray:
    """Pooled features of uint8 images (N, H, W, 3) -> float32 (N, D), on the host, in batches of one fixed shape."""
    chunks = list(outputs(encode, in_batches(encode, images)))
    return np.concatenate(chunks) if chunks else np.zeros((0, 1), np.float32)


def adapt(encode: Encoder, images: np.ndarray, passes: int = 20) -> Encoder:
    """The same weights with batch statistics measured on these images: an untrained network is compared fairly so.

    images uint8 (N, H, W, 3). passes: batches that are used. Without batch norm the same encoder is returned.
    """
    stats = {name: tree for name, tree in encode.variables.items() if name != "params"}
    if not stats:
        return encode
    groups = getattr(encode.backbone, "norm_groups", 1)
    batch = max(batch_size(encode, size_of(*images.shape[1:3])), groups)
    mean, std = jnp.asarray(encode.mean), jnp.asarray(encode.std)

    @jax.jit
    def step(params, stats, images):
        x = (images.astype(jnp.float32) / 255 - mean) / std
        return encode.backbone.apply({"params": params, **stats}, x, train=True, mutable=list(stats))[1]

    order = np.random.default_rng(0).permutation(len(images))
    batch = min(batch, len(images) - len(images) % groups)
    for i in range(passes):
        chosen = np.take(order, range(i * batch, (i + 1) * batch), mode="wrap")
        stats = step(encode.variables["params"], stats, images[chosen])
    return dataclasses.replace(encode, variables={"params": encode.variables["params"], **stats})
