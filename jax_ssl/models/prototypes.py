"""Heads of self-distillation: an embedding on the sphere, and its cosines with many learned prototypes."""

import flax.linen as nn
import jax
import jax.numpy as jnp
from jax.lax import Precision

from jax_ssl import bounds
from jax_ssl.losses import unit
from jax_ssl.models.dense import Dense, gelu
from jax_ssl.models.norm import BatchNorm


def scores(embedding, matrix, precision=Precision.HIGHEST):
    """Similarity of embeddings (..., D) to the rows of a matrix (K, D): (..., K) fp32."""
    return jnp.einsum("...d,kd->...k", embedding.astype(jnp.float32), matrix, precision=precision)


def matrix(head):
    """The prototypes of a DinoHead's parameters as embeddings are compared with them: (K, bottleneck) fp32."""
    rows = unit(head["directions"])
    return head["length"] * rows if "length" in head else rows


def check_head(prototypes: int, hidden: int, bottleneck: int, chunks: int, **temperatures: float) -> None:
    """Raises UserError for settings of a head and its targets that can't be meant."""
    bounds.whole("method.", dict(prototypes=prototypes), at_least=2)
    bounds.whole("method.", dict(hidden=hidden, bottleneck=bottleneck, chunks=chunks))
    bounds.bounded("method.", temperatures, above=0)


def directions_init(key, shape, dtype=jnp.float32):
    """PyTorch's default for a linear layer, (K, D): uniform within 1 / sqrt(D). Lengths do not matter, spread does."""
    bound = shape[-1] ** -0.5
    return jax.random.uniform(key, shape, dtype, -bound, bound)


class DinoHead(nn.Module):
    """Three linear layers with GELU between them, then length one: (..., width) -> (..., bottleneck) fp32.

    It also owns `prototypes` directions, (K, bottleneck): `scores(embedding, matrix(params))` compares with them, in
    `losses.sum_in_chunks` where the scores of a batch are too many to store. The scores of the mean embedding are the
    mean of the scores, which is all that a center needs.
    norm_last_layer: prototypes have length one for good; else each has a learned `length`, one at first. use_bn: batch
    normalisation before each GELU, for convolutional networks.
    Caron et al. 2021, https://arxiv.org/abs/2104.14294, App. C; official code vision_transformer.py, DINOHead.
    """

    prototypes: int = 65536
    hidden: int = 2048
    bottleneck: int = 256
    norm_last_layer: bool = True
    use_bn: bool = False
    dtype: jnp.dtype = jnp.float32

    def setup(self):
        dense = lambda width: Dense(width, dtype=self.dtype, kernel_init=nn.initializers.normal(0.02))
        self.layers = [dense(self.hidden), dense(self.hidden), dense(self.bottleneck)]
        if self.use_bn:
            self.norms = [BatchNorm(), BatchNorm()]
        self.directions = self.param("directions", directions_init, (self.prototypes, self.bottleneck))
        if not self.norm_last_layer:
            self.length = self.param("length", nn.initializers.ones, (self.prototypes, 1))

    def __call__(self, x, train: bool = False):
        *hidden, last = self.layers
        for number, layer in enumerate(hidden):
            x = layer(x)
            x = self.norms[number](x, train) if self.use_bn else x
            x = gelu(x)
        return unit(last(x))
