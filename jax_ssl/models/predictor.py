"""The narrow transformer that predicts features of patches that the encoder did not see."""

import flax.linen as nn
import jax.numpy as jnp

from jax_ssl.models.dense import Dense
from jax_ssl.models.positions import sincos
from jax_ssl.models.transformer import INITS, Transformer, layer_norm


class Predictor(nn.Module):
    """Context tokens + mask tokens at the places of each target block -> features there.

    context (B, K, D), the encoder's output; context_index int32 (B, K), target_index int32 (B, M, T): patches of the
    grid, row by row. The M blocks of an image are predicted independently of each other. positions: `sincos` (fixed,
    column first) or `learned` (one grid). initial: a key of INITS; attention, unroll: as in a backbone.
    target_weight (T,): zero at places of all blocks that are only padding, or None. Returns float32 (B, M, T, outputs).
    Assran et al. 2023, https://arxiv.org/abs/2301.08243; ijepa, src/models/vision_transformer.py.
    """

    width: int
    depth: int
    heads: int
    outputs: int
    remat: str = "none"
    dtype: jnp.dtype = jnp.float32
    epsilon: float = 1e-6
    positions: str = "sincos"
    initial: str = "normal"
    attention: str = "auto"
    unroll: bool = False

    @nn.compact
    def __call__(self, context, context_index, target_index, grid, train: bool = False, target_weight=None):
        (batch, blocks, count), kept = target_index.shape, context.shape[1]
        dense = lambda size, name: Dense(size, dtype=self.dtype, kernel_init=INITS[self.initial].linear, name=name)
        token = lambda name, size: self.param(name, INITS[self.initial].token, (1, size, self.width), jnp.float32)
        codes = token("positions", grid[0] * grid[1])[0] if self.positions == "learned" else sincos(grid, self.width)
        codes = jnp.asarray(codes, self.dtype)

        seen = dense(self.width, "embed")(context) + codes[context_index]
        asked = token("mask_token", 1).astype(seen.dtype)[None] + codes[target_index]
        seen = jnp.broadcast_to(seen[:, None], (batch, blocks, kept, self.width))
        bias = None
        if target_weight is not None:  # nothing looks at the padding
            bias = jnp.concatenate([jnp.zeros(kept), jnp.where(target_weight > 0, 0.0, -1e9)])[None, None]
        x = jnp.concatenate([seen, asked], axis=2).reshape(batch * blocks, kept + count, self.width)
        x = Transformer(
            self.depth, self.heads, epsilon=self.epsilon, remat=self.remat, dtype=self.dtype, initial=self.initial,
            attention=self.attention, unroll=self.unroll, name="blocks",
        )(x, train, bias=bias)  # fmt: skip
        x = layer_norm("norm", self.epsilon)(x[:, kept:])
        return dense(self.outputs, "predict")(x).astype(jnp.float32).reshape(batch, blocks, count, self.outputs)
