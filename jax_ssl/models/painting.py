"""Pixels from a map of features, and from neighbours and other images alone: what fills a hole, and its baselines."""

from collections.abc import Sequence
from functools import partial

import flax.linen as nn
import jax
import jax.numpy as jnp
from einops import rearrange
from jax.lax import Precision

from jax_ssl.models.conv import convolve
from jax_ssl.models.norm import BatchNorm

STEPS = 200  # of the harmonic fill


class Painter(nn.Module):
    """A map of features (B, h, w, D) -> images (B, S, S, 3) from -1 to 1: each place paints the square that it covers.

    widths: of 3 x 3 convolutions with batch norm and ReLU before the pixels. patch: the side of a square, S / h.
    """

    widths: Sequence[int]
    patch: int
    dtype: jnp.dtype = jnp.float32

    @nn.compact
    def __call__(self, x, train: bool):
        conv = partial(nn.Conv, use_bias=False, dtype=self.dtype, conv_general_dilated=convolve)
        for width in self.widths:
            x = nn.relu(BatchNorm()(conv(width, (3, 3), padding=((1, 1), (1, 1)))(x), train))
        x = nn.Dense(3 * self.patch**2, dtype=self.dtype)(x)
        x = rearrange(x, "b h w (p q c) -> b (h p) (w q) c", p=self.patch, q=self.patch)
        return nn.tanh(x.astype(jnp.float32))


def harmonic_fill(images, hidden, steps: int = STEPS):
    """The smoothest surface over what is hidden, with the seen pixels around as its border: (B, H, W, C) fp32.

    hidden: bool (H, W) or (B, H, W). Each hidden pixel becomes the mean of its four neighbours, `steps` times (Jacobi's
    way to solve Laplace's equation), from the mean of what is seen. At the edge of the image the edge goes on.
    """
    hidden = jnp.broadcast_to(hidden, images.shape[:3])[..., None]
    images = images.astype(jnp.float32)
    seen = jnp.where(hidden, 0.0, images)
    mean = seen.sum((1, 2), keepdims=True) / jnp.maximum((~hidden).sum((1, 2), keepdims=True), 1)

    def step(x, _):
        wide = jnp.pad(x, ((0, 0), (1, 1), (1, 1), (0, 0)), mode="edge")
        around = wide[:, :-2, 1:-1] + wide[:, 2:, 1:-1] + wide[:, 1:-1, :-2] + wide[:, 1:-1, 2:]
        return jnp.where(hidden, around / 4, images), None

    return jax.lax.scan(step, jnp.where(hidden, mean, images), None, length=steps)[0]


def nearest_fill(images, hidden, others):
    """What the most similar of other images has at the hidden pixels: (B, H, W, C).

    hidden: bool (H, W); others (N, H, W, C). Most similar: the least squared distance over all pixels that are seen.
    """
    seen = (~hidden)[None, ..., None].astype(jnp.float32)
    flat = lambda x: (x * seen).reshape(len(x), -1)
    ours, theirs = flat(images), flat(others)
    products = jnp.matmul(ours, theirs.T, precision=Precision.HIGHEST)
    distance = jnp.square(theirs).sum(-1) - 2 * products
    return jnp.where(hidden[None, ..., None], others[jnp.argmin(distance, axis=-1)], images)


def gradient_energy(images, hidden):
    """Mean squared difference of neighbouring pixels that are both hidden: how much texture a filled hole has. () fp32.

    images: (B, H, W, C), hidden: bool (H, W).
    """
    down = hidden[1:] & hidden[:-1]
    across = hidden[:, 1:] & hidden[:, :-1]
    total = jnp.sum(jnp.square(jnp.diff(images, axis=1)) * down[..., None])
    total += jnp.sum(jnp.square(jnp.diff(images, axis=2)) * across[..., None])
    return total / (len(images) * images.shape[-1] * jnp.maximum(down.sum() + across.sum(), 1))


def hole_errors(filled, images, hidden) -> dict:
    """What is wrong with filled holes, for pixels from -1 to 1 told in [0, 1]: {"l2", "energy", "true_energy"}, fp32.

    l2: squared error of a hidden pixel. energy: `gradient_energy` of the filled hole, true_energy: of the true image.
    """
    squared = jnp.sum(jnp.square((filled - images) / 2) * hidden[..., None])
    l2 = squared / (len(images) * images.shape[-1] * jnp.sum(hidden))
    energy, true_energy = (gradient_energy(x / 2, hidden) for x in (filled, images))
    return {"l2": l2, "energy": energy, "true_energy": true_energy}


def summary(means: dict) -> dict:
    """The numbers of a table from means of `hole_errors`: a painting that is too smooth has less energy than 1."""
    return {"l2": means["l2"], "gradient_energy": means["energy"] / max(means["true_energy"], 1e-30)}
