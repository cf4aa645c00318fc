"""The frozen encoder, which every evaluation and every picture uses."""

import dataclasses
import functools

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np

from jax_ssl.errors import UserError
from jax_ssl.models import vit
from jax_ssl.models.features import Features
from jax_ssl.sharding import batch_constraint, replicated_constraint


@dataclasses.dataclass(frozen=True)
class Encoder:
    """A backbone with fixed weights: normalised images (B, H, W, 3) float32 -> Features.

    mean, std: of the colours, as in training. size: the side in pixels of the images that it expects.
    """

    backbone: nn.Module
    variables: dict
    mean: tuple[float, ...] = (0.0, 0.0, 0.0)
    std: tuple[float, ...] = (1.0, 1.0, 1.0)
    size: int = 224

    def __call__(self, images) -> Features:
        return _run(self.backbone, self.variables, images)

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


def memory_per_image(encode: Encoder, side: int) -> int:
    """Bytes that the forward pass of one image of `side` pixels needs, besides the weights."""
    image = jax.ShapeDtypeStruct((1, side, side, 3), jnp.float32)
    return temporary_bytes(_run.lower(encode.backbone, encode.variables, image).compile())


def shape_of_patches(encode: Encoder, side: int) -> tuple[int, int]:
    """(patches, features of each) of an image of `side` pixels."""
    image = jax.ShapeDtypeStruct((1, side, side, 3), jnp.float32)
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
    if depth and not (isinstance(backbone, vit.ViT) and 0 < depth <= backbone.depth):
        raise UserError(f"feature_depth={depth}: give a transformer's block from 1 to model.depth, or 0 for the last.")


def at_depth(encode: Encoder, depth: int) -> Encoder:
    """The same transformer with its first `depth` blocks only, 0 = all. Raises UserError.

    A transformer that predicts pixels or codes without a decoder uses its last blocks as one, and blocks in the middle
    have better features: Chen et al. 2020 (iGPT), figure 2; Bao et al. 2022 (BEiT), appendix D.
    """
    check_depth(encode.backbone, depth)
    if not depth:
        return encode
    short, params = vit.first_blocks(encode.backbone, encode.variables["params"], depth)
    return dataclasses.replace(encode, backbone=short, variables={**encode.variables, "params": params})


@functools.partial(jax.jit, static_argnums=0)
def _pooled(backbone, variables, images, mean, std):
    x = (batch_constraint(images).astype(jnp.float32) / 255 - mean) / std
    return replicated_constraint(backbone.apply(variables, x).pooled.astype(jnp.float32))


def extract(encode: Encoder, images: np.ndarray, batch: int = 256) -> np.ndarray:
    """Pooled features of uint8 images (N, H, W, 3) -> float32 (N, D), on the host, in batches of one fixed shape."""
    mean, std = jnp.asarray(encode.mean), jnp.asarray(encode.std)
    devices = jax.device_count()
    batch = min(batch, -(-len(images) // devices) * devices)  # pad few images only to a multiple of the devices
    chunks = []
    for start in range(0, len(images), batch):
        chunk = np.asarray(images[start : start + batch])
        padded = np.pad(chunk, ((0, batch - len(chunk)), (0, 0), (0, 0), (0, 0)))
        chunks.append((_pooled(encode.backbone, encode.variables, padded, mean, std), len(chunk)))
    if not chunks:
        return np.zeros((0, 1), np.float32)
    return np.concatenate([np.asarray(pooled)[:count] for pooled, count in chunks])


def adapt(encode: Encoder, images: np.ndarray, batch: int = 256, passes: int = 20) -> Encoder:
    """The same weights with batch statistics measured on these images: an untrained network is compared fairly so.

    images uint8 (N, H, W, 3). passes: batches that are used. Without batch norm the same encoder is returned.
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
