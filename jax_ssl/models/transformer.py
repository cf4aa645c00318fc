"""A pre-norm transformer as one scanned stack: compiled once, whatever the depth."""

import flax.linen as nn
import jax
import jax.numpy as jnp

from jax_ssl.sharding import batch_constraint

XAVIER = nn.initializers.xavier_uniform()
REMAT = {  # what the backward pass finds stored; the rest it computes again
    "none": None,
    "dots": jax.checkpoint_policies.dots_with_no_batch_dims_saveable,
    "full": jax.checkpoint_policies.nothing_saveable,
}


def layer_norm(name=None, epsilon=1e-6):
    """Statistics and output in float32; the next matmul casts."""
    return nn.LayerNorm(epsilon=epsilon, dtype=jnp.float32, name=name)


class Attention(nn.Module):
    """Multi-head self-attention; logits and softmax in float32. x (B, N, D) -> (B, N, D)."""

    heads: int
    dtype: jnp.dtype

    @nn.compact
    def __call__(self, x):
        width = x.shape[-1]
        dense = lambda size, name: nn.Dense(size, dtype=self.dtype, kernel_init=XAVIER, name=name)
        qkv = dense(3 * width, "qkv")(x).reshape(*x.shape[:2], 3, self.heads, width // self.heads)
        query, key, value = qkv[:, :, 0], qkv[:, :, 1], qkv[:, :, 2]
        logits = jnp.einsum("bqhd,bkhd->bhqk", query, key, preferred_element_type=jnp.float32)
        weights = jax.nn.softmax(logits * (width // self.heads) ** -0.5)
        self.sow("intermediates", "attention", weights)  # kept only when a picture asks for it
        mixed = jnp.einsum("bhqk,bkhd->bqhd", weights.astype(self.dtype), value)
        return dense(width, "out")(mixed.reshape(x.shape))


class Mlp(nn.Module):
    """Linear, exact GELU (not the tanh approximation), linear."""

    ratio: float
    dtype: jnp.dtype

    @nn.compact
    def __call__(self, x):
        width = x.shape[-1]
        x = nn.Dense(int(width * self.ratio), dtype=self.dtype, kernel_init=XAVIER, name="fc1")(x)
        return nn.Dense(width, dtype=self.dtype, kernel_init=XAVIER, name="fc2")(nn.gelu(x, approximate=False))


class Block(nn.Module):
    """x + attention(norm(x)), then x + mlp(norm(x)); each branch may be scaled and may be dropped per image."""

    heads: int
    mlp_ratio: float
    layer_scale: float
    epsilon: float
    dtype: jnp.dtype

    @nn.compact
    def __call__(self, x, drop_rate, train: bool):
        branches = (("norm1", Attention(self.heads, self.dtype, name="attention"), "gamma1"),
                    ("norm2", Mlp(self.mlp_ratio, self.dtype, name="mlp"), "gamma2"))  # fmt: skip
        for norm, branch, gamma in branches:
            y = branch(layer_norm(norm, self.epsilon)(x))
            if self.layer_scale:
                scale = self.param(gamma, nn.initializers.constant(self.layer_scale), (x.shape[-1],), jnp.float32)
                y = y * scale.astype(y.dtype)
            if train and drop_rate is not None:
                kept = jax.random.bernoulli(self.make_rng("drop_path"), 1 - drop_rate, (len(x), 1, 1))
                y = y * (kept / (1 - drop_rate)).astype(y.dtype)
            x = batch_constraint(x + y.astype(x.dtype))
        return x, None


class Transformer(nn.Module):
    """`depth` blocks scanned over parameters stacked on a leading axis, under `params["blocks"]`.

    x (B, N, D) -> (B, N, D), residual stream in `dtype`. drop_path: rate of the last block, rising linearly from 0;
    needs an rng named "drop_path" when train. remat: a key of REMAT.
    """

    depth: int
    heads: int
    mlp_ratio: float = 4.0
    layer_scale: float = 0.0
    drop_path: float = 0.0
    epsilon: float = 1e-6
    remat: str = "none"
    dtype: jnp.dtype = jnp.float32

    @nn.compact
    def __call__(self, x, train: bool = False):
        block = Block
        if REMAT[self.remat] is not None:
            block = nn.remat(block, policy=REMAT[self.remat], prevent_cse=False, static_argnums=(3,))
        stack = nn.scan(
            block,
            variable_axes={"params": 0, "intermediates": 0},
            split_rngs={"params": True, "drop_path": True},
            in_axes=(0 if self.drop_path else nn.broadcast, nn.broadcast),
            length=self.depth,
        )(self.heads, self.mlp_ratio, self.layer_scale, self.epsilon, self.dtype, name="blocks")
        rates = jnp.linspace(0, self.drop_path, self.depth) if self.drop_path else None
        return stack(x.astype(self.dtype), rates, train)[0]
