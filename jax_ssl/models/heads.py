"""What stands behind a backbone during training: perceptrons, and backbone, projector and predictor in a row."""

from collections.abc import Sequence

import flax.linen as nn
import jax.numpy as jnp
from einops import rearrange

from jax_ssl import bounds
from jax_ssl.errors import UserError
from jax_ssl.models.micro import MicroBatched
from jax_ssl.models.norm import BatchNorm


class Mlp(nn.Module):
    """Linear layers with ReLU between them; the output is float32. No widths: the input as it is.

    widths: output width of each layer. norm: batch normalisation after each layer but the last. last_norm: after the
    last, without a learned offset (SimCLR), and without a learned scale too where last_scale is off (MoCo v3, SimSiam).
    A linear layer before a normalisation has no bias: the mean would take it out again. last_bias: has the last one?
    """

    widths: Sequence[int]
    norm: bool = False
    last_norm: bool = False
    last_scale: bool = True
    last_bias: bool = True
    norm_groups: int = 1
    kernel_init: nn.initializers.Initializer = nn.initializers.lecun_normal()
    dtype: jnp.dtype = jnp.float32

    @nn.compact
    def __call__(self, x, train: bool = False):
        for i, width in enumerate(self.widths):
            last = i == len(self.widths) - 1
            normed = self.last_norm if last else self.norm
            bias = not normed and (self.last_bias or not last)
            x = nn.Dense(width, use_bias=bias, dtype=self.dtype, kernel_init=self.kernel_init)(x)
            if normed:
                scale = self.last_scale or not last
                x = BatchNorm(groups=self.norm_groups, use_bias=not last, use_scale=scale)(x, train)
            if not last:
                x = nn.relu(x)
        return x.astype(jnp.float32)


def check_widths(projector: Sequence[int], predictor: Sequence[int] = ()) -> None:
    """Raises UserError unless there is a projector, and a predictor, if any, ends as wide as it does."""
    bounds.whole("method.", dict(projector=tuple(projector), predictor=tuple(predictor)))
    if not projector:
        raise UserError("method.projector=() has no layer: give the width of one or more.")
    if predictor and predictor[-1] != projector[-1]:
        raise UserError(
            f"method.predictor={tuple(predictor)} ends {predictor[-1]} wide and is compared with a projector of "
            f"{projector[-1]}: end both with the same width."
        )


class Projected(nn.Module):
    """A backbone and its projector: images (B, H, W, 3) -> (B, widths[-1])."""

    backbone: nn.Module
    projector: nn.Module

    def __call__(self, images, train: bool = False):
        return self.projector(self.backbone(images, train).pooled, train)


class Crops(nn.Module):
    """A backbone over crops of several sizes, one forward pass for each, and its projector over all of them together.

    groups of images (B, V, H, W, 3), the largest first -> (B, sum of V, widths[-1]).
    """

    backbone: nn.Module
    projector: nn.Module

    def __call__(self, groups, train: bool = False):
        pooled = []
        for images in groups:
            features = self.backbone(rearrange(images, "b v h w c -> (b v) h w c"), train).pooled
            pooled.append(rearrange(features, "(b v) d -> b v d", v=images.shape[1]))
        pooled = jnp.concatenate(pooled, axis=1)
        projected = self.projector(rearrange(pooled, "b v d -> (b v) d"), train)
        return rearrange(projected, "(b v) d -> b v d", v=pooled.shape[1])


class Tokens(nn.Module):
    """A vision transformer over crops of several sizes, and its projectors for images and for patches of the largest.

    groups of images (B, V, H, W, 3), the largest first, V of them G; mask: bool (B, G, N) of the largest, True =
    replaced by a learned token; chosen: int32 (B, G, M), which patches of those are projected.
    -> images (B, sum of V, D), patches (B, G, M, D'), pooled features of the largest (B, G, width).
    """

    backbone: nn.Module
    projector: nn.Module
    patch_projector: nn.Module | None = None  # None = the same as for images

    def __call__(self, groups, mask, chosen, train: bool = False):
        pooled, flat = [], lambda x: rearrange(x, "b v ... -> (b v) ...")
        for number, images in enumerate(groups):
            hidden = None if number or mask is None else flat(mask)
            features = self.backbone(flat(images), train, mask=hidden)
            pooled.append(rearrange(features.pooled, "(b v) d -> b v d", v=images.shape[1]))
            if not number:
                patches = jnp.take_along_axis(features.patches, flat(chosen)[..., None], axis=1)
        images = self.projector(jnp.concatenate(pooled, axis=1), train)
        patches = (self.patch_projector or self.projector)(patches, train)
        return images, rearrange(patches, "(b v) m d -> b v m d", v=chosen.shape[1]), pooled[0]


def check_tokens(backbone: nn.Module, method: str) -> None:
    """Raises UserError unless `Tokens` can have this backbone. method: its name, for the message."""
    if isinstance(backbone, MicroBatched):
        raise UserError(f"micro_batch is not for {method}, which needs the patches of whole images: set it to 0.")
    if not hasattr(backbone, "patch") or getattr(backbone, "pool", "") != "cls":
        raise UserError(
            f"{method} needs model.name='vit' with model.pool='cls': it compares patches as well as images."
        )


class Predicted(nn.Module):
    """Backbone, projector and predictor: images (B, H, W, 3) -> (projection, prediction), both (B, D)."""

    backbone: nn.Module
    projector: nn.Module
    predictor: nn.Module

    def __call__(self, images, train: bool = False):
        projection = self.projector(self.backbone(images, train).pooled, train)
        return projection, self.predictor(projection, train)
