"""Holes in images: which pixels, who paints them from a map of features, who fills them without, and how well."""

from collections.abc import Sequence
from functools import partial
from typing import NamedTuple

import flax.linen as nn
import jax
import jax.numpy as jnp
from einops import rearrange
from jax.lax import Precision

from jax_ssl import losses, masking
from jax_ssl.models.conv import convolve
from jax_ssl.models.norm import BatchNorm

STEPS = 200  # of the harmonic fill
BYTES = 2**29  # of training images, at most, among which a similar one is looked for


class Hole(NamedTuple):
    """Which pixels of an image are hidden, and which part of it is painted.

    random: blotches over `share` of the image, `cells` side by side, one draw a batch, and all of the image is painted.
    Else a square in the middle: `side` pixels are painted, and `overlap` of them on each side are seen.
    """

    random: bool
    side: int
    overlap: int
    share: float
    cells: int

    def painted(self, size: int) -> int:
        """The side of what is painted of an image of `size` pixels."""
        return size if self.random else self.side

    def hidden(self, rng, size: int):
        """Which pixels of an image are hidden: bool (size, size)."""
        if self.random:
            return masking.region(rng, size, self.share, self.cells)
        return jnp.asarray(masking.centre_square(size, self.side - 2 * self.overlap))

    def weight(self, hidden):
        """How much each painted pixel counts: what is seen beside the hole ten times, if there is any overlap."""
        return jnp.where(self.cut(hidden[None])[0], 1.0, losses.BORDER_WEIGHT if self.overlap else 1.0)

    def cut(self, images):
        """The part of images (B, S, S, ...) that is painted."""
        start = (images.shape[1] - self.side) // 2
        return images if self.random else images[:, start : start + self.side, start : start + self.side]

    def put(self, painted, images, hidden):
        """Images with what was painted at their hidden pixels."""
        room = images.shape[1] - painted.shape[1]
        around = (room // 2, room - room // 2)
        return jnp.where(hidden[..., None], jnp.pad(painted, ((0, 0), around, around, (0, 0))), images)


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
        # It begins near the middle grey: noise of its own would have to be unlearned pixel by pixel.
        x = nn.Dense(3 * self.patch**2, dtype=self.dtype, kernel_init=nn.initializers.normal(0.02))(x)
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


def baselines(hole: Hole) -> dict:
    """The cheap ways to fill holes, as a method's `task` takes them."""

    def filled_by(fill):
        """fill(images, hidden) as function(batch, rng) -> means."""

        def measure(batch, rng):
            images = batch["views"][:, 0]
            hidden = hole.hidden(rng, images.shape[1])
            return hole_errors(fill(images, hidden), images, hidden)

        return jax.jit(measure)

    def nearest(batches, rng, linear):
        others = jnp.concatenate([batch["views"][:, 0] for batch in batches])
        others = others[: max(1, BYTES // others[0].nbytes)]
        return filled_by(partial(nearest_fill, others=others))

    return {"harmonic": lambda batches, rng, linear: filled_by(harmonic_fill), "nearest": nearest}
