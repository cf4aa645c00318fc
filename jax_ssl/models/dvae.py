"""A discrete autoencoder of images: each square of pixels becomes one of K codes, and the codes become pixels again.

Paper: Ramesh et al. 2021, https://arxiv.org/abs/2102.12092, Sec. 2.1 and appendix A.1
Code:  https://github.com/openai/DALL-E, dall_e/encoder.py, decoder.py and utils.py
"""

import flax.linen as nn
import jax
import jax.numpy as jnp
from einops import rearrange
from jax.lax import Precision

from jax_ssl import bounds
from jax_ssl.errors import UserError
from jax_ssl.models.conv import convolve
from jax_ssl.models.dense import Dense
from jax_ssl.models.features import Features

NORMAL = nn.initializers.variance_scaling(1.0, "fan_in", "normal")
# Four times DALL-E's deviation: draws that begin nearly even tell the decoder nothing, and a few codes take everything.
DECIDED = nn.initializers.variance_scaling(16.0, "fan_in", "normal")


def relax(rng, logits, temperature):
    """A draw from each row's codes that has a gradient: (..., K) scores -> (..., K) fp32, rows sum to one.

    The lower the temperature, the nearer to a single code. Jang et al. 2017, https://arxiv.org/abs/1611.01144, Eq. 2.
    """
    logits = logits.astype(jnp.float32)
    return jax.nn.softmax((logits + jax.random.gumbel(rng, logits.shape)) / temperature)


def conv(width, side, dtype):
    pad = (side // 2,) * 2
    return nn.Conv(
        width, (side, side), padding=(pad, pad), dtype=dtype, kernel_init=NORMAL, conv_general_dilated=convolve
    )


class Block(nn.Module):
    """x + gain * four convolutions with ReLU before each, a quarter as wide as the output between them."""

    width: int
    sides: tuple[int, ...]  # of the kernels
    gain: float
    dtype: jnp.dtype

    @nn.compact
    def __call__(self, x):
        y = x
        for i, side in enumerate(self.sides):
            last = i == len(self.sides) - 1
            y = conv(self.width if last else self.width // 4, side, self.dtype)(nn.relu(y))
        if x.shape[-1] != self.width:
            x = conv(self.width, 1, self.dtype)(x)
        return x + self.gain * y


class Encoder(nn.Module):
    """images (B, H, W, 3) -> Features: patches (B, N, D), what the codes are read from, and pooled (B, N E).

    Pooled is what the tokenizer keeps of an image: of each place, the mean of the vectors that stand for its codes in
    the decoder, weighted by their shares. A code knows its place alone: a mean over places would keep next to nothing.
    Each group of blocks is twice as wide as the one before and works on half of its resolution. DALL-E's `map_pixels`,
    0.8 x + 0.1 of pixels in [0, 1], is a normalisation with mean -0.125 and deviation 1.25.
    """

    vocabulary: int
    width: int
    groups: int
    blocks: int
    patch: int
    dtype: jnp.dtype

    def setup(self):
        self.codes = Dense(self.vocabulary, kernel_init=DECIDED, precision=Precision.HIGHEST)
        self.codebook = Dense(self.width // 2, kernel_init=NORMAL, precision=Precision.HIGHEST)

    @property
    def stride(self) -> int:
        """How many pixels a code covers, along each axis."""
        return self.patch * 2 ** (self.groups - 1)

    @property
    def gain(self) -> float:
        return 1 / (self.groups * self.blocks) ** 2

    def __call__(self, images, train: bool = False):
        patches = self.trunk(images)
        shares = nn.softmax(self.codes(patches))
        kept = self.embed(shares) - self.embed(jnp.zeros_like(shares[:1, :1]))  # the offset tells images not apart
        nothing = jnp.zeros((len(patches), 0, patches.shape[-1]), jnp.float32)
        return Features(kept.reshape(len(kept), -1), patches, nothing)

    def logits(self, images):
        """Scores of the codes, fp32 (B, N, K)."""
        return self.codes(self.trunk(images))

    def embed(self, shares):
        """Shares of the codes (..., K) -> what the decoder is told, (..., E)."""
        return self.codebook(shares)

    @nn.compact
    def trunk(self, images):
        x = images.astype(self.dtype)
        if self.patch == 1:
            x = conv(self.width, 7, self.dtype)(x)
        else:
            x = rearrange(x, "b (h p) (w q) c -> b h w (p q c)", p=self.patch, q=self.patch)
            x = Dense(self.width, dtype=self.dtype, kernel_init=NORMAL)(x)
        for group in range(self.groups):
            if group:
                x = nn.max_pool(x, (2, 2), (2, 2))
            for _ in range(self.blocks):
                x = Block(self.width * 2**group, (3, 3, 3, 1), self.gain, self.dtype)(x)
        return rearrange(nn.relu(x).astype(jnp.float32), "b h w d -> b (h w) d")


class Decoder(nn.Module):
    """Embedded codes (B, N, E), rows of the grid first -> images (B, H, W, 3): the encoder's mirror image."""

    encoder: Encoder

    @nn.compact
    def __call__(self, embedded, rows: int):
        width, groups, patch, dtype = self.encoder.width, self.encoder.groups, self.encoder.patch, self.encoder.dtype
        x = rearrange(embedded.astype(dtype), "b (h w) d -> b h w d", h=rows)
        for group in reversed(range(groups)):
            for _ in range(self.encoder.blocks):
                x = Block(width * 2**group, (1, 3, 3, 3), self.encoder.gain, dtype)(x)
            if group:
                x = x.repeat(2, axis=1).repeat(2, axis=2)
        x = Dense(patch**2 * 3, dtype=dtype, kernel_init=NORMAL)(nn.relu(x))
        return rearrange(x.astype(jnp.float32), "b h w (p q c) -> b (h p) (w q) c", p=patch, q=patch)


class DVae(nn.Module):
    """The whole tokenizer: images -> scores of codes (B, N, K) by `logits`, codes -> images by `paint`."""

    backbone: Encoder

    def setup(self):
        self.decoder = Decoder(self.backbone)

    def __call__(self, images, rng, temperature):
        """(scores (B, N, K), images painted from a relaxed draw of codes)."""
        logits = self.logits(images)
        return logits, self.paint_shares(relax(rng, logits, temperature), self.rows(images))

    def logits(self, images):
        return self.backbone.logits(images)

    def paint_shares(self, shares, rows: int):
        """Shares of the codes (B, N, K), rows of the grid first -> images (B, H, W, 3)."""
        return self.decoder(self.backbone.embed(shares), rows)

    def paint(self, codes, rows: int):
        """Codes (B, N) int, rows of the grid first -> images (B, H, W, 3)."""
        return self.paint_shares(jax.nn.one_hot(codes, self.backbone.vocabulary), rows)

    def rows(self, images) -> int:
        return images.shape[1] // self.backbone.stride


def make(*, vocabulary: int, width: int, groups: int, blocks: int, patch: int, dtype: str) -> Encoder:
    """vocabulary: how many codes there are. width of the first group; groups of `blocks` blocks each; patch: 1, or
    pixels that one step joins at the start.

    A code covers patch * 2^(groups - 1) pixels: 8 with DALL-E's four groups on single pixels.
    """
    bounds.whole("model.", dict(vocabulary=vocabulary), at_least=2)
    bounds.one_of("model.", dict(dtype=dtype), bounds.DTYPES)
    bounds.whole("model.", dict(width=width, groups=groups, blocks=blocks, patch=patch))
    if width % 4:
        raise UserError(f"model.width={width} must be a multiple of 4.")
    return Encoder(vocabulary, width, groups, blocks, patch, jnp.dtype(dtype))


def check(image_size: int, *, groups: int, patch: int, **_) -> None:
    """Raises UserError if images of this size cannot be halved between all groups."""
    stride = patch * 2 ** (groups - 1)
    if image_size % stride:
        raise UserError(
            f"{image_size} pixels are no multiple of {stride}, which a code covers by model.groups={groups} and "
            f"model.patch={patch}: change one of the three."
        )
