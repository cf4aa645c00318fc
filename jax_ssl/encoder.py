"""The frozen encoder: the one thing that every evaluation and every picture receives."""

import dataclasses
import functools

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np

from jax_ssl.errors import UserError
from jax_ssl.models.features import Features
from jax_ssl.sharding import batch_constraint, everywhere


@dataclasses.dataclass(frozen=True)
class Encoder:
    """A backbone with its weights nailed down: normalised images (B, H, W, 3) float32 -> Features.

    mean, std, size say what "normalised" meant in training, and the image side that it expects.
    """

    backbone: nn.Module
    variables: dict
    mean: tuple[float, ...] = (0.0, 0.0, 0.0)
    std: tuple[float, ...] = (1.0, 1.0, 1.0)
    size: int = 224

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


def temporary(program) -> int:
    """Bytes that a compiled program takes while it runs, beside its arguments and results; 0 where none can be told."""
    analysis = program.memory_analysis()
    return 0 if analysis is None else analysis.temp_size_in_bytes


def memory(encode: Encoder, side: int) -> int:
    """Bytes that one image of `side` pixels takes on its way through the network, beside the weights."""
    image = jax.ShapeDtypeStruct((1, side, side, 3), jnp.float32)
    return temporary(_run.lower(encode.backbone, encode.variables, image).compile())


def shape_of_patches(encode: Encoder, side: int) -> tuple[int, int]:
    """How many patches an image of `side` pixels has, and how many features each."""
    image = jax.ShapeDtypeStruct((1, side, side, 3), jnp.float32)
    return jax.eval_shape(_run, encode.backbone, encode.variables, image).patches.shape[1:]


def freeze(backbone, state, which: str = "student", **image) -> Encoder:
    """The student's or the teacher's backbone out of a training state (or a restored dict of one).

    A teacher that has batch norm is read with the statistics of its own forward passes.
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
        remedy = f"give 1 to {depths}, of its blocks, stages or layers, or 0 for its end" if depths else "set it to 0"
        raise UserError(f"feature_depth={depth}: this network can't be read there: {remedy}.")


def at_depth(encode: Encoder, depth: int) -> Encoder:
    """The same network read behind its first `depth` parts, 0 = all.

    Parts are the blocks of a transformer, the stages of a ResNet, the blocks of NIN, the convolutions of AlexNet: what
    has `depths` of them and `shortened`. Where little stands between a network and the puzzle that it was trained on,
    its last parts only work for that, and the middle knows more: Chen et al. 2020 (iGPT), figure 2; Bao et al. 2022
    (BEiT), appendix D; Gidaris et al. 2018 (RotNet), table 1.
    """
    check_depth(encode.backbone, depth)
    if not depth:
        return encode
    short, variables = encode.backbone.shortened(depth, encode.variables)
    return dataclasses.replace(encode, backbone=short, variables=variables)


@functools.partial(jax.jit, static_argnums=0)
def _pooled(backbone, variables, images, mean, std):
    x = (batch_constraint(images).astype(jnp.float32) / 255 - mean) / std
    return everywhere(backbone.apply(variables, x).pooled.astype(jnp.float32))


def extract(encode: Encoder, images: np.ndarray, batch: int = 256) -> np.ndarray:
    """Pooled features of uint8 images (N, H, W, 3) -> float32 (N, D), on the host, in batches of one fixed shape."""
    mean, std = jnp.asarray(encode.mean), jnp.asarray(encode.std)
    devices = jax.device_count()
    batch = min(batch, -(-len(images) // devices) * devices)  # few images are not padded to many
    chunks = []
    for start in range(0, len(images), batch):
        chunk = np.asarray(images[start : start + batch])
        padded = np.pad(chunk, ((0, batch - len(chunk)), (0, 0), (0, 0), (0, 0)))
        chunks.append((_pooled(encode.backbone, encode.variables, padded, mean, std), len(chunk)))
    if not chunks:
        return np.zeros((0, 1), np.float32)
    return np.concatenate([np.asarray(pooled)[:count] for pooled, count in chunks])


def adapt(encode: Encoder, images: np.ndarray, batch: int = 256, passes: int = 20) -> Encoder:
    """The same weights with batch statistics measured on these images: what a fair untrained network needs.

    images uint8 (N, H, W, 3). Without batch norm it is the same encoder.
    """
    stats = {name: tree for name, tree in encode.variables.items() if name != "params"}
    if not stats:
        return encode
    mean, std = jnp.asarray(encode.mean), jnp.asarray(encode.std)

    @jax.jit
    def step(params, stats, images):
        x = (images.astype(jnp.float32) / 255 - mean) / std
        return encode.backbone.apply({"params": params, **stats}, x, train=True, mutable=list(stats))[1]

    order = np.random.default_rng(0).permutation(len(images))
    batch = min(batch, len(images) - len(images) % getattr(encode.backbone, "norm_groups", 1))
    for i in range(passes):
        chosen = np.take(order, range(i * batch, (i + 1) * batch), mode="wrap")
        stats = step(encode.variables["params"], stats, images[chosen])
    return dataclasses.replace(encode, variables={"params": encode.variables["params"], **stats})
