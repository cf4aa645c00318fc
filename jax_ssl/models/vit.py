"""Vision transformer, Ti to g, at any patch and image size, on all patches, on some (`keep`) or with holes (`mask`).

Paper: Dosovitskiy et al. 2021, https://arxiv.org/abs/2010.11929
Code:  https://github.com/facebookresearch/mae, models_mae.py (initialisation, class token added after masking)
       https://github.com/facebookresearch/dinov2, models/vision_transformer.py (registers, how positions are resized)
"""

from functools import partial

import flax.linen as nn
import jax
import jax.numpy as jnp
from einops import rearrange

from jax_ssl import bounds
from jax_ssl.errors import UserError
from jax_ssl.models import implementation, positions
from jax_ssl.models.dense import Dense
from jax_ssl.models.features import Features
from jax_ssl.models.transformer import INITS, MLPS, REMAT, Transformer, layer_norm

CHOICES = dict(
    positions=("sincos_column", "sincos_row", "learned", "rotary", "none"), pool=("cls", "mean", "norm_of_mean"),
    remat=tuple(REMAT), mlp=tuple(MLPS), relative_bias=("none", "shared", "block"),
    attention=implementation.WISHES,
)  # fmt: skip


class ViT(nn.Module):
    """images (B, H, W, 3) -> Features(pooled (B, D), patches (B, N or K, D), registers (B, R, D)), float32.

    keep: int32 (B, K), the patches that enter the encoder; the others cost nothing.
    mask: bool (B, N), patches replaced by a learned token before the encoder.
    """

    patch: int
    width: int
    depth: int
    heads: int
    mlp_ratio: float
    positions: str
    pool: str
    registers: int
    layer_scale: float
    drop_path: float
    epsilon: float
    remat: str
    dtype: jnp.dtype
    mlp: str = "gelu"
    initial: str = "xavier"
    key_bias: bool = True
    relative_bias: str = "none"
    position_offset: float = 0.0
    position_antialias: bool = False
    drop_path_uniform: bool = False
    attention: str = "auto"
    pre_norm: bool = False
    unroll: bool = False

    @nn.compact
    def __call__(self, images, train: bool = False, keep=None, mask=None):
        batch, grid = len(images), (images.shape[1] // self.patch, images.shape[2] // self.patch)
        if keep is not None and self.relative_bias != "none":
            raise UserError("Relative positions need every patch: set model.relative_bias='none' to encode a part.")
        if keep is not None and self.positions == "rotary":
            raise UserError("Rotary positions need every patch here: set model.positions to another kind.")
        x = self.embed(images)
        if mask is not None:
            x = jnp.where(mask[..., None], self.token("mask_token").astype(x.dtype), x)
        if self.positions not in ("none", "rotary"):
            x = x + self.codes(grid).astype(x.dtype)
        if keep is not None:
            x = jnp.take_along_axis(x, keep[..., None], axis=1)

        extra, first = [], int(has_class_token(self))
        if first:
            cls = self.token("cls_token")
            extra.append(cls + self.token("cls_position") if self.positions == "learned" else cls)
        if self.registers:
            extra.append(self.token("registers", self.registers))
        x = jnp.concatenate([jnp.broadcast_to(e, (batch, *e.shape[1:])).astype(x.dtype) for e in extra] + [x], axis=1)

        x = layer_norm("pre_norm", self.epsilon)(x).astype(x.dtype) if self.pre_norm else x
        turned = None
        if self.positions == "rotary":
            turned = positions.rotary(grid, self.width // self.heads, first + self.registers)
        x = Transformer(
            self.depth, self.heads, self.mlp_ratio, self.layer_scale, self.drop_path, self.epsilon, self.remat,
            self.dtype, self.mlp, self.initial, self.key_bias, self.relative_bias, self.drop_path_uniform,
            self.attention, self.unroll, name="encoder",
        )(x, train, (*grid, bool(first)), rotary=turned)  # fmt: skip
        return self.read(x, layer_norm("norm", self.epsilon))

    @nn.nowrap
    def read(self, x, norm) -> Features:
        """The Features of all tokens (B, N, D) behind a block."""
        first = int(has_class_token(self))
        start = first + self.registers
        if self.pool == "norm_of_mean":
            x = x.astype(jnp.float32)
            return Features(norm(x[:, start:].mean(1)), x[:, start:], x[:, first:start])
        x = norm(x)
        return Features(x[:, 0] if first else x[:, start:].mean(1), x[:, start:], x[:, first:start])

    @property
    def depths(self) -> int:
        return self.depth

    @nn.nowrap
    def at_each_depth(self, variables: dict, images) -> tuple[Features, ...]:
        """What `shortened` networks of 1, 2, ... blocks give, the last one whole, in one pass."""
        last, seen = self.apply(variables, images, mutable=["blocks"])
        (behind,) = seen["blocks"]["encoder"]["blocks"]["behind"]  # (depth, B, N, D)
        plain = nn.LayerNorm(epsilon=self.epsilon, dtype=jnp.float32, use_scale=False, use_bias=False)
        return *(self.read(x, lambda x: plain.apply({}, x)) for x in behind[:-1]), last

    def shortened(self, depth: int, variables: dict):
        """The network of the first `depth` blocks and its variables.

        A norm that was learned for the end gives way to one of scale one and offset zero.
        """
        params = variables["params"]
        stack = params["encoder"]
        params = params | {"encoder": stack | {"blocks": jax.tree.map(lambda x: x[:depth], stack["blocks"])}}
        if depth < self.depth:
            params["norm"] = {"scale": jnp.ones(self.width), "bias": jnp.zeros(self.width)}
        return self.clone(depth=depth), {**variables, "params": params}

    @nn.nowrap
    def keys(self, variables: dict, images):
        """Keys of the patches in the last attention, all heads side by side: float32 (B, N, D)."""
        _, seen = self.apply(variables, images, mutable=["keys"])
        (keys,) = seen["keys"]["encoder"]["blocks"]["attention"]["keys"]  # (depth, B, N, D)
        return keys[-1][:, int(has_class_token(self)) + self.registers :].astype(jnp.float32)

    def embed(self, images):
        """A patch embedding is a matmul on cut-out patches: what a strided convolution computes, in (p q c) order."""
        x = rearrange(images, "b (h p) (w q) c -> b (h w) (p q c)", p=self.patch, q=self.patch)
        kernel, bias = INITS[self.initial].patch, nn.initializers.zeros
        if kernel is None:
            kernel = bias = torch_uniform(x.shape[-1])
        return Dense(self.width, dtype=self.dtype, kernel_init=kernel, bias_init=bias, name="embed")(x)

    def token(self, name, count=1):
        return self.param(name, INITS[self.initial].token, (1, count, self.width), jnp.float32)

    def codes(self, grid):
        """Positions of the patches, (1, N, D); learned ones are resized when the grid is not the one of init."""
        if self.positions != "learned":
            return jnp.asarray(positions.sincos(grid, self.width, self.positions.removeprefix("sincos_")))[None]
        if self.has_variable("params", "positions"):
            learned = self.get_variable("params", "positions")
        else:
            learned = self.param("positions", INITS[self.initial].token, (*grid, self.width), jnp.float32)
        if learned.shape[:2] != tuple(grid):
            learned = positions.resize(learned, grid, self.position_offset, self.position_antialias)
        return learned.reshape(1, -1, self.width)


def torch_uniform(inputs: int):
    """What torch leaves in kernel and bias of a convolution that sees `inputs` numbers: uniform +- 1 / sqrt(inputs)."""
    bound = inputs**-0.5
    return lambda key, shape, dtype=jnp.float32: jax.random.uniform(key, shape, dtype, -bound, bound)


def make(*, patch: int, width: int, depth: int, heads: int, mlp_ratio: float, positions: str, pool: str, registers: int,
         layer_scale: float, drop_path: float, epsilon: float, remat: str, dtype: str, mlp: str = "gelu",
         init: str = "xavier", key_bias: bool = True, relative_bias: str = "none", position_offset: float = 0.0,
         position_antialias: bool = False, drop_path_uniform: bool = False,
         attention: str = "auto", pre_norm: bool = False, unroll: bool = False) -> ViT:  # fmt: skip
    """A ViT of these settings, checked.

    positions: `sincos_column` (MAE, I-JEPA), `sincos_row` (MoCo v3), `learned`, `rotary` (DINOv3) or `none`.
    pool: `cls`, `mean` of the patches (no class token), or `norm_of_mean` (BEiT fine-tuned: a class token takes part,
        the last norm comes behind the mean of the patches, which are returned without a norm).
    mlp: `gelu`, `quick_gelu` or `swiglu`; pre_norm: a norm before the first block (both of CLIP); init: a key of INITS;
    remat: of REMAT. key_bias: False leaves it to queries and values (BEiT). relative_bias: `none`, `shared` by all
    blocks, or `block`. position_offset: added to the number of patches in the scale by which learned positions are
    resized (DINO: 0.1);
        position_antialias: whether that is filtered when it shrinks (DINOv2 with registers).
    drop_path: rate of the last block, rising from 0, or with drop_path_uniform of all; then, beyond 0.1, dropped
        branches are not computed.
    attention: `auto`, `fused` or `plain`, see `implementation.choose`.
    unroll: compile each block by itself: two to five times as long, for a faster step on a CPU.
    """
    bounds.whole("model.", dict(patch=patch, width=width, depth=depth, heads=heads))
    bounds.whole("model.", dict(registers=registers), at_least=0)
    bounds.bounded("model.", dict(mlp_ratio=mlp_ratio, epsilon=epsilon), above=0)
    bounds.bounded("model.", dict(layer_scale=layer_scale, position_offset=position_offset), at_least=0)
    bounds.bounded("model.", dict(drop_path=drop_path), at_least=0, below=1)
    bounds.one_of("model.", dict(init=init), INITS)
    bounds.one_of("model.", dict(dtype=dtype), bounds.DTYPES)
    net = ViT(
        patch, width, depth, heads, mlp_ratio, positions, pool, registers, layer_scale, drop_path, epsilon, remat,
        jnp.dtype(dtype), mlp, init, key_bias, relative_bias, position_offset, position_antialias, drop_path_uniform,
        attention, pre_norm, unroll,
    )  # fmt: skip
    for name, known in CHOICES.items():
        bounds.one_of("model.", {name: getattr(net, name)}, known)
    if width % heads or width % 4:
        raise UserError(f"model.width={width} must be a multiple of 4 and of model.heads={heads}.")
    if positions == "rotary" and width // heads % 4:
        raise UserError(f"model.width={width} over model.heads={heads} must be a multiple of 4 for rotary positions.")
    if int(width * mlp_ratio) < 1:
        raise UserError(f"model.mlp_ratio={mlp_ratio} of model.width={width} leaves no layer: take a larger one.")
    if registers and relative_bias != "none":
        raise UserError(f"model.registers={registers} have no relative position: set one of the two to none.")
    return net


def has_class_token(backbone) -> bool:
    """Whether a network is a transformer with a class token."""
    return getattr(backbone, "pool", "mean") != "mean"


@partial(jax.jit, static_argnums=0)
def attention(backbone: nn.Module, variables: dict, images):
    """Attention of the last block, (B, heads, N, N) float32, rows are queries: class token, registers, then patches."""
    _, seen = backbone.apply(variables, images, mutable=["intermediates"])
    (weights,) = seen["intermediates"]["encoder"]["blocks"]["attention"]["attention"]  # (depth, B, heads, N, N)
    return weights[-1]


def check(image_size: int, *, patch: int, **_) -> None:
    """Raises UserError if images of this size cannot be cut into patches."""
    if image_size % patch:
        raise UserError(
            f"An image of {image_size} pixels is no multiple of model.patch={patch}: "
            f"take a crop size of {image_size // patch * patch or patch} or another patch."
        )
