"""A pre-norm transformer as one scanned stack: compiled once, whatever the depth."""

from collections.abc import Callable
from functools import partial
from math import gcd
from typing import NamedTuple

import flax.linen as nn
import jax
import jax.numpy as jnp
from jax.ad_checkpoint import checkpoint_name

from jax_ssl import sharding
from jax_ssl.models import implementation
from jax_ssl.models.attend import attend
from jax_ssl.models.dense import Dense, gelu, quick_gelu
from jax_ssl.models.drop_path import add_to_some
from jax_ssl.models.positions import rotate
from jax_ssl.models.relative import RelativeBias
from jax_ssl.sharding import batch_constraint

XAVIER = nn.initializers.xavier_uniform()
NORMAL = nn.initializers.normal(0.02)  # torch's trunc_normal(0.02) cuts at +-2, that is not at all
REMAT = {  # what the backward pass finds stored; the rest it computes again
    "none": None,
    "dots": jax.checkpoint_policies.dots_with_no_batch_dims_saveable,
    "full": jax.checkpoint_policies.nothing_saveable,
}
# What "dots" stores where a TPU's kernel computes attention: the two widest results. To compute the others again takes
# three percent more FLOPs, and moves fewer bytes than to store them and to read them.
WIDEST = jax.checkpoint_policies.save_only_these_names("qkv", "fc1")


KEPT = ("intermediates", "blocks", "keys")  # collections of what blocks keep for those who ask


class Init(NamedTuple):
    """First values of kernels, of the patch embedding's kernel and bias (None: as torch's Conv2d), and of tokens."""

    linear: Callable
    patch: Callable | None
    token: Callable


def cut_normal(key, shape, dtype=jnp.float32):
    """Normal(0.02) without what lies beyond +-0.02: what BEiT's and SimMIM's own trunc_normal_ draws."""
    return 0.02 * jax.random.truncated_normal(key, -1, 1, shape, dtype)


INITS = {
    "xavier": Init(XAVIER, XAVIER, NORMAL),  # MAE, MoCo v3
    "normal": Init(NORMAL, None, NORMAL),  # DINO, iBOT, DINOv2
    "normal_all": Init(NORMAL, NORMAL, NORMAL),  # I-JEPA
    "cut_normal": Init(cut_normal, cut_normal, cut_normal),  # BEiT, SimMIM
}


def layer_norm(name=None, epsilon=1e-6):
    """Statistics and output in float32; the next matmul casts."""
    return nn.LayerNorm(epsilon=epsilon, dtype=jnp.float32, name=name)


class Attention(nn.Module):
    """Multi-head self-attention; logits kept in `dtype`, softmax in float32. x (B, N, D) -> (B, N, D).

    relative: None or (heads, N, N), added to the logits. rotary: None, or sines and cosines, (N, D / heads) both, by
    which queries and keys are turned. Without key_bias only queries and values have one (BEiT). kernel: of
    `implementation`.
    """

    heads: int
    dtype: jnp.dtype
    initial: str = "xavier"
    key_bias: bool = True
    kernel: str = "plain"

    @nn.compact
    def __call__(self, x, relative=None, rotary=None):
        width, kernel = x.shape[-1], INITS[self.initial].linear
        dense = lambda size, name, **bias: Dense(size, dtype=self.dtype, kernel_init=kernel, name=name, **bias)
        shown = self.is_mutable_collection("intermediates")
        asked = shown or self.is_mutable_collection("keys")
        fused = self.kernel != "plain" and not asked and not self.is_initializing()
        qkv = dense(3 * width, "qkv", use_bias=self.key_bias and not fused)(x)
        if not self.key_bias:
            query, value = (self.bias(name, width) for name in ("query_bias", "value_bias"))
            offset = jnp.concatenate([query, jnp.zeros_like(query), value])
        if fused:  # the kernel adds the bias itself
            offset = self.get_variable("params", "qkv")["bias"] if self.key_bias else offset
            qkv = checkpoint_name(qkv, "qkv")
            return dense(width, "out")(implementation.attend(self.kernel, qkv, self.heads, offset, relative))
        qkv = qkv if self.key_bias else qkv + offset.astype(qkv.dtype)
        # Split before the heads are: with an axis of three in the middle a TPU copies more.
        by_head, thirds = (*x.shape[:2], self.heads, width // self.heads), jnp.split(qkv, 3, axis=-1)
        if not self.is_initializing():
            self.sow("keys", "keys", thirds[1])  # before they are turned, as papers take them
        query, key, value = (part.reshape(by_head) for part in thirds)
        if rotary is not None:
            query, key = (rotate(part, *rotary) for part in (query, key))
        if query.dtype == jnp.float32 and not shown:
            return dense(width, "out")(attend(query, key, value, relative).reshape(x.shape))
        # Rounded to bfloat16 in memory, as mixed precision has them elsewhere: in float32 they would be, with their
        # gradients, a fifth of all bytes that a step of MAE moves.
        logits = jnp.einsum("bqhd,bkhd->bhqk", query, key).astype(jnp.float32)
        logits = logits * (width // self.heads) ** -0.5
        weights = jax.nn.softmax(logits if relative is None else logits + relative)
        self.sow("intermediates", "attention", weights)  # kept only when a picture asks for it
        mixed = jnp.einsum("bhqk,bkhd->bqhd", weights.astype(self.dtype), value)
        return dense(width, "out")(mixed.reshape(x.shape))

    def bias(self, name, width):
        return self.param(name, nn.initializers.zeros, (width,), jnp.float32)


class Mlp(nn.Module):
    """Linear, exact GELU (not the tanh approximation) or another function, linear."""

    ratio: float
    dtype: jnp.dtype
    initial: str = "xavier"
    function: Callable = gelu

    @nn.compact
    def __call__(self, x):
        width, kernel = x.shape[-1], INITS[self.initial].linear
        x = Dense(int(width * self.ratio), dtype=self.dtype, kernel_init=kernel, name="fc1")(x)
        return Dense(width, dtype=self.dtype, kernel_init=kernel, name="fc2")(self.function(checkpoint_name(x, "fc1")))


class SwiGlu(nn.Module):
    """silu(x1) * x2 between two linears, the first of which makes both halves in one matmul. dinov2, swiglu_ffn.py.

    Two thirds as wide as an Mlp of this ratio, hence of as many parameters, rounded up to a multiple of 8.
    """

    ratio: float
    dtype: jnp.dtype
    initial: str = "xavier"

    @nn.compact
    def __call__(self, x):
        width, kernel = x.shape[-1], INITS[self.initial].linear
        hidden = (int(int(width * self.ratio) * 2 / 3) + 7) // 8 * 8
        both = Dense(2 * hidden, dtype=self.dtype, kernel_init=kernel, name="w12")(x)
        gate, value = jnp.split(checkpoint_name(both, "fc1"), 2, axis=-1)
        return Dense(width, dtype=self.dtype, kernel_init=kernel, name="w3")(nn.silu(gate) * value)


MLPS = {"gelu": Mlp, "quick_gelu": partial(Mlp, function=quick_gelu), "swiglu": SwiGlu}


class Block(nn.Module):
    """x + attention(norm(x)), then x + mlp(norm(x)); each branch may be scaled and may be dropped per image.

    drop_rate: this block's own, an array, or None: `drop_path`, the same in all blocks. window: the grid and whether
    there is a class token, in a block that has its own relative positions; otherwise `relative` are the shared ones.
    """

    heads: int
    mlp_ratio: float
    layer_scale: float
    drop_path: float
    epsilon: float
    dtype: jnp.dtype
    mlp: str
    initial: str
    key_bias: bool
    window: tuple | None
    kernel: str

    @nn.compact
    def __call__(self, x, drop_rate, relative, train: bool, rotary=None):
        if self.window:
            relative = RelativeBias(self.heads, *self.window, name="relative_bias")()
        attention = Attention(self.heads, self.dtype, self.initial, self.key_bias, self.kernel, name="attention")
        mlp = MLPS[self.mlp](self.mlp_ratio, self.dtype, self.initial, name="mlp")
        branches = (("norm1", lambda y: attention(y, relative, rotary), "gamma1"), ("norm2", mlp, "gamma2"))
        for norm, function, gamma in branches:

            def branch(x, norm=norm, function=function, gamma=gamma):
                y = function(layer_norm(norm, self.epsilon)(x))
                if not self.layer_scale:
                    return y
                scale = self.param(gamma, nn.initializers.constant(self.layer_scale), (x.shape[-1],), jnp.float32)
                return y * scale.astype(y.dtype)

            x = batch_constraint(self.residual(branch, x, drop_rate, train))
        if not self.is_initializing():
            self.sow("blocks", "behind", x)  # kept only where every depth is read
        return x, None

    def residual(self, branch, x, drop_rate, train):
        if not train or (drop_rate is None and not self.drop_path):
            return x + branch(x).astype(x.dtype)
        key, rate = self.make_rng("drop_path"), self.drop_path if drop_rate is None else drop_rate
        if drop_rate is None and rate > 0.1 and gcd(len(x), 16) >= 8:
            return add_to_some(branch, x, rate, key)
        y = branch(x)
        kept = jax.random.bernoulli(key, 1 - rate, (len(x), 1, 1))
        return x + (y * (kept / (1 - rate)).astype(y.dtype)).astype(x.dtype)


class Transformer(nn.Module):
    """`depth` blocks scanned over parameters stacked on a leading axis, under `params["blocks"]`.

    x (B, N, D) -> (B, N, D), residual stream in `dtype`. remat: a key of REMAT; mlp of MLPS; initial of INITS.
    drop_path: rate of the last block, rising linearly from 0, or with drop_path_uniform that of every block; needs an
    rng named "drop_path" when train. relative_bias: `none`, or one table that all blocks share (`shared`) or each has
    (`block`), for tokens in a window (rows, columns, whether a class token comes first). bias: added to the logits of
    all blocks, (heads or 1, N or 1, N) or what else broadcasts to (B, heads, N, N), or None. rotary: of `Attention`.
    attention: a wish of `implementation`; where that is a TPU's kernel, remat "dots" stores only the two widest
    results. unroll: each block is compiled by itself, in no loop: then nothing is copied into stacks and out of them.
    """

    depth: int
    heads: int
    mlp_ratio: float = 4.0
    layer_scale: float = 0.0
    drop_path: float = 0.0
    epsilon: float = 1e-6
    remat: str = "none"
    dtype: jnp.dtype = jnp.float32
    mlp: str = "gelu"
    initial: str = "xavier"
    key_bias: bool = True
    relative_bias: str = "none"
    drop_path_uniform: bool = False
    attention: str = "auto"
    unroll: bool = False

    @nn.compact
    def __call__(self, x, train: bool = False, window: tuple | None = None, bias=None, rotary=None):
        rising = self.drop_path and not self.drop_path_uniform
        block, policy = Block, REMAT[self.remat]
        shape = None if bias is None else bias.shape
        added = (self.heads, *x.shape[1:2] * 2) if self.relative_bias != "none" else shape
        wish = self.attention if rotary is None else "plain"  # kernels do not turn queries and keys
        kernel = implementation.pick(wish, x.shape, self.heads, self.dtype, added)
        if policy is not None:
            policy = WIDEST if self.remat == "dots" and kernel == "pallas" else policy
            block = nn.remat(block, policy=policy, prevent_cse=False, static_argnums=(4,))
        blocks = nn.scan(
            block,
            variable_axes={"params": 0} | dict.fromkeys(KEPT, 0),
            split_rngs={"params": True, "drop_path": True},
            in_axes=(0 if rising else nn.broadcast, nn.broadcast, nn.broadcast, nn.broadcast),
            length=self.depth,
            unroll=self.depth if self.unroll else 1,
        )
        stack = partial(
            blocks, heads=self.heads, mlp_ratio=self.mlp_ratio, layer_scale=self.layer_scale, epsilon=self.epsilon,
            drop_path=0.0 if rising else self.drop_path, dtype=self.dtype, mlp=self.mlp, initial=self.initial,
            key_bias=self.key_bias, window=window if self.relative_bias == "block" else None, kernel=kernel,
        )  # fmt: skip
        shared = self.relative_bias == "shared"
        relative = RelativeBias(self.heads, *window, name="relative_bias")() if shared else bias
        rates = jnp.linspace(0, self.drop_path, self.depth) if rising else None
        x, random = x.astype(self.dtype), train and self.drop_path
        asked = self.is_initializing() or any(map(self.is_mutable_collection, KEPT))
        if kernel != "pallas" or random or asked or not sharding.replicates_parameters():
            return stack(name="blocks")(x, rates, relative, train, rotary)[0]
        apply = stack(parent=None).apply
        run = lambda x, params, rates, relative: apply({"params": params}, x, rates, relative, train, None)[:1]
        return sharding.by_batch(run, 1)(x, self.rounded(self.get_variable("params", "blocks")), rates, relative)[0]

    def rounded(self, params):
        """Kernels in `dtype`, before devices go their own ways: then gradients are summed once, behind the last block.

        Left to itself the compiler sums each block's gradient by itself, and writes a stack of them in float32 twice:
        12 bytes a parameter more. Where a device has a part of the parameters only, it has to gather each block's.
        """
        narrow = lambda path, x: x.astype(self.dtype) if path[-1].key == "kernel" else x
        return jax.tree_util.tree_map_with_path(narrow, params)


def rescale_residuals(params):
    """The parameters of a network with what each block adds made smaller: out and fc2 (w3) over sqrt(2 l), l from 1.

    params: any tree that holds stacks of blocks, such as a backbone's. BEiT, modeling_pretrain.py, fix_init_weight.
    """

    def rescale(path, x):
        layer, leaf = (str(getattr(entry, "key", entry)) for entry in path[-2:]) if len(path) > 1 else ("", "")
        if layer not in ("out", "fc2", "w3") or leaf != "kernel" or x.ndim != 3:
            return x
        return x / jnp.sqrt(2.0 * jnp.arange(1, len(x) + 1, dtype=x.dtype))[:, None, None]

    return jax.tree_util.tree_map_with_path(rescale, params)
