"""Heads of self-distillation: an embedding on the sphere, and its cosines with many learned prototypes."""

import flax.linen as nn
import jax
import jax.numpy as jnp
from jax.lax import Precision

from jax_ssl.losses import unit


def scores(embedding, matrix, precision=Precision.HIGHEST):
    """Similarity of embeddings (..., D) to the rows of a matrix (K, D): (..., K) fp32."""
    return jnp.einsum("...d,kd->...k", embedding.astype(jnp.float32), matrix, precision=precision)


def directions_init(key, shape, dtype=jnp.float32):
    """PyTorch's default for a linear layer, (K, D): uniform within 1 / sqrt(D). Lengths do not matter, spread does."""
    bound = shape[-1] ** -0.5
    return jax.random.uniform(key, shape, dtype, -bound, bound)


class DinoHead(nn.Module):
    """Three linear layers with GELU between them, length one, then the scores of `prototypes` unit rows: fp32.

    norm_last_layer: prototypes have length one for good; else each has a learned `length`, one at first. precision: of
    the scores. Where the scores of a batch are too many to store, `embed` and `matrix` give the two factors, for
    `losses.in_chunks`; the scores of the mean embedding are the mean of the scores, which the center needs.
    Caron et al. 2021, https://arxiv.org/abs/2104.14294, App. C; official code vision_transformer.py, DINOHead.
    """

    prototypes: int = 65536
    hidden: int = 2048
    bottleneck: int = 256
    norm_last_layer: bool = True
    dtype: jnp.dtype = jnp.float32
    precision: Precision = Precision.HIGHEST

    def setup(self):
        dense = lambda width: nn.Dense(width, dtype=self.dtype, kernel_init=nn.initializers.normal(0.02))
        self.layers = [dense(self.hidden), dense(self.hidden), dense(self.bottleneck)]
        self.directions = self.param("directions", directions_init, (self.prototypes, self.bottleneck))
        if not self.norm_last_layer:
            self.length = self.param("length", nn.initializers.ones, (self.prototypes, 1))

    def embed(self, x):
        """(..., width) -> (..., bottleneck) fp32 of length one."""
        first, second, last = self.layers
        x = nn.gelu(first(x), approximate=False)
        x = nn.gelu(second(x), approximate=False)
        return unit(last(x))

    def matrix(self):
        """The prototypes as they are compared with: (K, bottleneck) fp32."""
        rows = unit(self.directions)
        return rows if self.norm_last_layer else self.length * rows

    def __call__(self, x, train: bool = False):
        """(..., width) -> (..., K)."""
        return scores(self.embed(x), self.matrix(), self.precision)
