"""Residual networks: 18 to 200 layers, any width, three stems.

Paper: He et al. 2016, https://arxiv.org/abs/1512.03385 (bottleneck with the stride in its 3x3, as torchvision)
Code:  https://github.com/google-research/simclr, tf2/resnet.py (zero-initialised last norm, widths x2 and x4)
"""

from functools import partial

import flax.linen as nn
import jax.numpy as jnp
from einops import rearrange

from jax_ssl import bounds
from jax_ssl.errors import UserError
from jax_ssl.models.apply import first_layers
from jax_ssl.models.conv import convolve
from jax_ssl.models.features import of_map
from jax_ssl.models.norm import BatchNorm, LayerNorm

STAGES = {
    10: (1, 1, 1, 1), 18: (2, 2, 2, 2), 34: (3, 4, 6, 3),
    50: (3, 4, 6, 3), 101: (3, 4, 23, 3), 152: (3, 8, 36, 3), 200: (3, 24, 36, 3),
}  # fmt: skip
KERNEL_INIT = nn.initializers.variance_scaling(2.0, "fan_out", "normal")


class Block(nn.Module):
    """Two 3x3 convolutions (basic) or 1x1, 3x3, 1x1 (bottleneck), and a shortcut."""

    width: int
    stride: int
    bottleneck: bool
    zero_init: bool
    conv: partial
    norm: partial

    @nn.compact
    def __call__(self, x, train):
        shortcut, out = x, self.width * (4 if self.bottleneck else 1)
        if self.bottleneck:
            y = nn.relu(self.norm()(self.conv(self.width, (1, 1))(x), train))
            y = nn.relu(self.norm()(self.conv(self.width, (3, 3), self.stride)(y), train))
            y = self.widened(y, out, train)
        else:
            y = nn.relu(self.norm()(self.conv(self.width, (3, 3), self.stride)(x), train))
            y = self.norm(zero_scale=self.zero_init)(self.conv(out, (3, 3))(y), train)
        if shortcut.shape != y.shape:
            shortcut = self.norm()(self.conv(out, (1, 1), self.stride)(x), train)
        return nn.relu(y + shortcut)

    def widened(self, x, out: int, train: bool):
        """The bottleneck's last 1x1 convolution and its norm, in one where the norm is of the whole batch."""
        norm = self.norm(zero_scale=self.zero_init)
        if getattr(norm, "groups", 0) != 1:
            return norm(self.conv(out, (1, 1))(x), train)
        inside = lambda x, kernel, *_, **__: norm(x, train, kernel)
        return self.conv(out, (1, 1), conv_general_dilated=inside)(x)


class ResNet(nn.Module):
    """images (B, H, W, 3) -> Features: pooled = spatial mean of the last map, patches = its positions."""

    stages: tuple[int, ...]
    bottleneck: bool
    width: int
    stem: str
    patch: int
    norm_groups: int
    zero_init: bool
    dtype: jnp.dtype
    normalisation: str = "batch"
    padding: str = "symmetric"

    @nn.compact
    def __call__(self, images, train: bool = False):
        conv = partial(
            nn.Conv, use_bias=False, dtype=self.dtype, kernel_init=KERNEL_INIT, conv_general_dilated=convolve
        )
        norm = LayerNorm if self.normalisation == "layer" else partial(BatchNorm, groups=self.norm_groups)
        x = images.astype(self.dtype)
        if self.stem == "imagenet":
            x = nn.relu(norm()(_padded(conv, self.width, (7, 7), 2, self.padding)(x), train))
            sides = "SAME" if self.padding != "symmetric" else ((1, 1), (1, 1))
            x = nn.max_pool(x, (3, 3), (2, 2), padding=sides)
        elif self.stem == "cifar":
            x = nn.relu(norm()(conv(self.width, (3, 3))(x), train))
        else:  # patches as one matmul: XLA's CPU convolutions are slow on 3 channels, its matmuls are not
            x = rearrange(x, "b (h p) (w q) c -> b h w (p q c)", p=self.patch, q=self.patch)
            x = nn.relu(norm()(nn.Dense(self.width, use_bias=False, dtype=self.dtype)(x), train))
        for stage, blocks in enumerate(self.stages):
            for block in range(blocks):
                padded = partial(_padded, conv, padding=self.padding)
                stride = 2 if stage > 0 and block == 0 else 1
                x = Block(self.width * 2**stage, stride, self.bottleneck, self.zero_init, padded, norm)(x, train)
        return of_map(x)

    @property
    def depths(self) -> int:
        return len(self.stages)

    def shortened(self, depth: int, variables: dict):
        """The network of the first `depth` stages and its variables."""
        return self.clone(stages=self.stages[:depth]), first_layers(variables, Block=sum(self.stages[:depth]))


def _padded(conv, features, kernel, stride=1, padding="symmetric", **more):
    side = kernel[0] // 2  # on each side, as in torch: XLA's SAME pads a strided convolution on one side only
    same = padding == "same" and stride > 1
    return conv(features, kernel, stride, padding="SAME" if same else ((side, side), (side, side)), **more)


def make(*, depth: int, width: float, stem: str, patch: int, stages: tuple, norm_groups: int,
         zero_init: bool, dtype: str, norm: str = "batch", padding: str = "symmetric") -> ResNet:  # fmt: skip
    """depth 10..200; width multiplies 64 channels (2, 4, 0.25); stem `imagenet`, `cifar` or `patch`.

    zero_init: each block begins as the identity, its last norm's scale at zero (SimCLR, BYOL; not MoCo v1/v2, SwAV).
    norm: `batch`, or `layer`, each image by itself (CPC v2). norm_groups: of the batch, see BatchNorm.
    padding: `symmetric`, as in torch; XLA's `same`, as in BYOL's code; `same_pool`, for the max pool alone (SimCLR).
    stages overrides the blocks of each stage (a shorter tuple makes a smaller network); () = by depth.
    """
    if depth not in STAGES:
        raise UserError(f"model.depth={depth}: a ResNet has one of {sorted(STAGES)} layers.")
    bounds.one_of("model.", dict(stem=stem), ("imagenet", "cifar", "patch"))
    bounds.one_of("model.", dict(dtype=dtype), bounds.DTYPES)
    bounds.one_of("model.", dict(norm=norm), ("batch", "layer"))
    bounds.one_of("model.", dict(padding=padding), ("symmetric", "same", "same_pool"))
    bounds.bounded("model.", dict(width=width), at_least=1 / 64)
    bounds.whole("model.", dict(patch=patch, stages=stages, norm_groups=norm_groups))
    return ResNet(
        stages=tuple(stages) or STAGES[depth],
        bottleneck=depth >= 50,
        width=int(round(64 * width)),
        stem=stem,
        patch=patch,
        norm_groups=norm_groups,
        zero_init=zero_init,
        dtype=jnp.dtype(dtype),
        normalisation=norm,
        padding=padding,
    )


def check(image_size: int, *, stem: str, patch: int, **_) -> None:
    """Raises UserError if images of this size cannot be cut into the stem's patches."""
    if stem == "patch" and image_size % patch:
        raise UserError(f"{image_size} pixels are no multiple of model.patch={patch}: change one of the two.")
