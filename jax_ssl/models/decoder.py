"""The light transformer that fills in what the encoder did not see."""

import flax.linen as nn
import jax.numpy as jnp

from jax_ssl.models.positions import sincos
from jax_ssl.models.transformer import XAVIER, Transformer, layer_norm


class Decoder(nn.Module):
    """Kept tokens + mask tokens, back in their places -> one prediction a patch. models_mae.py, forward_decoder.

    cls (B, D), patches (B, K, D): the encoder's output; restore int32 (B, N): where in [kept, hidden] each patch of
    the grid stands. Returns float32 (B, N, outputs).
    """

    width: int
    depth: int
    heads: int
    outputs: int
    remat: str = "none"
    dtype: jnp.dtype = jnp.float32

    @nn.compact
    def __call__(self, cls, patches, restore, grid):
        dense = lambda size, name: nn.Dense(size, dtype=self.dtype, kernel_init=XAVIER, name=name)
        x = dense(self.width, "embed")(jnp.concatenate([cls[:, None], patches], axis=1))
        token = self.param("mask_token", nn.initializers.normal(0.02), (1, 1, self.width), jnp.float32)
        hidden = restore.shape[1] - patches.shape[1]
        holes = jnp.broadcast_to(token.astype(x.dtype), (len(x), hidden, self.width))
        tokens = jnp.take_along_axis(jnp.concatenate([x[:, 1:], holes], axis=1), restore[..., None], axis=1)
        tokens = tokens + sincos(grid, self.width).astype(x.dtype)  # the class token's position is zero
        x = jnp.concatenate([x[:, :1], tokens], axis=1)
        x = Transformer(self.depth, self.heads, remat=self.remat, dtype=self.dtype, name="blocks")(x)
        return dense(self.outputs, "predict")(layer_norm("norm")(x[:, 1:])).astype(jnp.float32)
