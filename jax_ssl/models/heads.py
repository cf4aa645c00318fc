"""What stands behind a backbone during training: multi-layer perceptrons, and the pair backbone + projector."""

from collections.abc import Sequence

import flax.linen as nn
import jax.numpy as jnp

from jax_ssl.models.norm import BatchNorm


class Mlp(nn.Module):
    """Linear layers with ReLU between them; the output is float32.

    widths: output width of each layer. norm: batch normalisation after each layer, and then no bias in the linear
    ones. last_norm: also after the last one, without a learned offset (SimCLR, model_util.py projection_head).
    """

    widths: Sequence[int]
    norm: bool = False
    last_norm: bool = False
    norm_groups: int = 1
    kernel_init: nn.initializers.Initializer = nn.initializers.lecun_normal()
    dtype: jnp.dtype = jnp.float32

    @nn.compact
    def __call__(self, x, train: bool = False):
        for i, width in enumerate(self.widths):
            last = i == len(self.widths) - 1
            normed = self.last_norm if last else self.norm
            x = nn.Dense(width, use_bias=not normed, dtype=self.dtype, kernel_init=self.kernel_init)(x)
            if normed:
                x = BatchNorm(groups=self.norm_groups, use_bias=not last)(x, train)
            if not last:
                x = nn.relu(x)
        return x.astype(jnp.float32)


class Projected(nn.Module):
    """A backbone and its projector: images (B, H, W, 3) -> (B, widths[-1])."""

    backbone: nn.Module
    projector: nn.Module

    def __call__(self, images, train: bool = False):
        return self.projector(self.backbone(images, train).pooled, train)
