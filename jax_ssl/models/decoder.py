"""The light transformer that fills in what the encoder did not see."""

import flax.linen as nn
import jax.numpy as jnp
import numpy as np

from jax_ssl.models.dense import Dense
from jax_ssl.models.positions import sincos
from jax_ssl.models.transformer import XAVIER, Transformer, layer_norm


class Decoder(nn.Module):
    """Kept tokens + mask tokens, back in their places -> one prediction a patch. models_mae.py, forward_decoder.

    cls (B, D), patches (B, K, D): the encoder's output; restore int32 (B, N): where in [kept, hidden] each patch of
    the grid stands. positions: `sincos` (fixed, zero for the class token) or `learned` (one grid, class token first).
    attention, unroll: as in a backbone.
    Returns float32 (B, N, outputs).
    """

    width: int
    depth: int
    heads: int
    outputs: int
    remat: str = "none"
    dtype: jnp.dtype = jnp.float32
    epsilon: float = 1e-6
    positions: str = "sincos"
    attention: str = "auto"
    unroll: bool = False

    @nn.compact
    def __call__(self, cls, patches, restore, grid):
        dense = lambda size, name: Dense(size, dtype=self.dtype, kernel_init=XAVIER, name=name)
        x = dense(self.width, "embed")(jnp.concatenate([cls[:, None], patches], axis=1))
        token = self.param("mask_token", nn.initializers.normal(0.02), (1, 1, self.width), jnp.float32)
        hidden = restore.shape[1] - patches.shape[1]
        holes = jnp.broadcast_to(token.astype(x.dtype), (len(x), hidden, self.width))
        tokens = jnp.take_along_axis(jnp.concatenate([x[:, 1:], holes], axis=1), restore[..., None], axis=1)
        x = jnp.concatenate([x[:, :1], tokens], axis=1)
        if self.positions == "learned":
            codes = self.param("positions", nn.initializers.normal(0.02), (1, *x.shape[1:]), jnp.float32)
        else:
            codes = np.concatenate([np.zeros((1, self.width), np.float32), sincos(grid, self.width)])
        x = x + codes.astype(x.dtype)
        x = Transformer(
            self.depth, self.heads, epsilon=self.epsilon, remat=self.remat, dtype=self.dtype,
            attention=self.attention, unroll=self.unroll, name="blocks",
        )(x)  # fmt: skip
        x = layer_norm("norm", self.epsilon)(x[:, 1:])
        return dense(self.outputs, "predict")(x).astype(jnp.float32)
