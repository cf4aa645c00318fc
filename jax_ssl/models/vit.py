"""Vision transformer, Ti to g, at any patch and image size, on all patches, on some (`keep`) or with holes (`mask`).

Paper: Dosovitskiy et al. 2021, https://arxiv.org/abs/2010.11929
Code:  https://github.com/facebookresearch/mae, models_mae.py (initialisation, class token added after masking)
"""

import flax.linen as nn
import jax.numpy as jnp
from einops import rearrange

from jax_ssl.errors import UserError
from jax_ssl.models import positions
from jax_ssl.models.features import Features
from jax_ssl.models.transformer import REMAT, XAVIER, Transformer, layer_norm

TOKEN = nn.initializers.normal(0.02)  # torch's trunc_normal(0.02) cuts at +-2, that is not at all


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

    @nn.compact
    def __call__(self, images, train: bool = False, keep=None, mask=None):
        batch, grid = len(images), (images.shape[1] // self.patch, images.shape[2] // self.patch)
        # A patch embedding is a matmul on cut-out patches: the same numbers as a strided convolution, (p q c) order.
        x = rearrange(images, "b (h p) (w q) c -> b (h w) (p q c)", p=self.patch, q=self.patch)
        x = nn.Dense(self.width, dtype=self.dtype, kernel_init=XAVIER, name="embed")(x)
        if mask is not None:
            x = jnp.where(mask[..., None], self.token("mask_token").astype(x.dtype), x)
        x = x + self.codes(grid).astype(x.dtype)
        if keep is not None:
            x = jnp.take_along_axis(x, keep[..., None], axis=1)

        extra = []
        if self.pool == "cls":
            cls = self.token("cls_token")
            extra.append(cls + self.token("cls_position") if self.positions == "learned" else cls)
        if self.registers:
            extra.append(self.param("registers", TOKEN, (1, self.registers, self.width), jnp.float32))
        x = jnp.concatenate([jnp.broadcast_to(e, (batch, *e.shape[1:])).astype(x.dtype) for e in extra] + [x], axis=1)

        x = Transformer(
            self.depth, self.heads, self.mlp_ratio, self.layer_scale, self.drop_path, self.epsilon, self.remat,
            self.dtype, name="encoder",
        )(x, train)  # fmt: skip
        x = layer_norm("norm", self.epsilon)(x)
        first = int(self.pool == "cls")
        registers, patches = x[:, first : first + self.registers], x[:, first + self.registers :]
        return Features(x[:, 0] if first else patches.mean(1), patches, registers)

    def token(self, name):
        return self.param(name, TOKEN, (1, 1, self.width), jnp.float32)

    def codes(self, grid):
        """Positions of the patches, (1, N, D); learned ones are resized when the grid is not the one of init."""
        if self.positions != "learned":
            return jnp.asarray(positions.sincos(grid, self.width, self.positions.removeprefix("sincos_")))[None]
        if self.has_variable("params", "positions"):
            learned = self.get_variable("params", "positions")
        else:
            learned = self.param("positions", TOKEN, (*grid, self.width), jnp.float32)
        if learned.shape[:2] != tuple(grid):
            learned = positions.resize(learned, grid)
        return learned.reshape(1, -1, self.width)


def make(*, patch: int, width: int, depth: int, heads: int, mlp_ratio: float, positions: str, pool: str, registers: int,
         layer_scale: float, drop_path: float, epsilon: float, remat: str, dtype: str) -> ViT:  # fmt: skip
    """positions `sincos_column` (MAE), `sincos_row` (MoCo v3) or `learned`; pool `cls` or `mean`; remat see REMAT."""
    for name, value, known in (
        ("positions", positions, ("sincos_column", "sincos_row", "learned")),
        ("pool", pool, ("cls", "mean")),
        ("remat", remat, tuple(REMAT)),
    ):
        if value not in known:
            raise UserError(f"model.{name}={value!r}: choose one of {', '.join(known)}.")
    if width % heads or width % 4:
        raise UserError(f"model.width={width} must be a multiple of 4 and of model.heads={heads}.")
    return ViT(patch, width, depth, heads, mlp_ratio, positions, pool, registers, layer_scale, drop_path, epsilon,
               remat, jnp.dtype(dtype))  # fmt: skip


def check(image_size: int, *, patch: int, **_) -> None:
    """Raises UserError if images of this size cannot be cut into patches."""
    if image_size % patch:
        raise UserError(
            f"An image of {image_size} pixels is no multiple of model.patch={patch}: "
            f"take a crop size of {image_size // patch * patch or patch} or another patch."
        )
