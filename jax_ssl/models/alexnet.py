"""AlexNet, in the three versions on which pretext methods were measured.

Paper: Krizhevsky et al. 2012, https://papers.nips.cc/paper/4824 (`caffe`: Jigsaw, Context Encoder)
Code:  https://github.com/gidariss/FeatureLearningRotNet, architectures/AlexNet.py (`rotnet`)
       https://github.com/facebookresearch/vissl, models/trunks/alexnet_colorization.py (`colorization`)
"""

from typing import NamedTuple

import flax.linen as nn
import jax
import jax.numpy as jnp

from jax_ssl import bounds
from jax_ssl.errors import UserError
from jax_ssl.models.apply import first_layers
from jax_ssl.models.conv import convolve
from jax_ssl.models.features import of_map
from jax_ssl.models.norm import BatchNorm
from jax_ssl.models.resnet import KERNEL_INIT


class Kind(NamedTuple):
    """One of the versions."""

    widths: tuple[int, ...]  # channels of the five convolutions
    groups: int  # in which the second, fourth and fifth are parted
    batch_norm: bool  # behind each convolution; else local response normalisation before the first two pools
    border: int  # pixels around the image


KINDS = dict(
    rotnet=Kind((64, 192, 384, 256, 256), 1, True, 2),
    colorization=Kind((96, 256, 384, 384, 256), 2, True, 0),
    caffe=Kind((96, 256, 384, 384, 256), 2, False, 0),
)
SIDES = (11, 5, 3, 3, 3)  # pixels of the kernels
PARTED, POOLED = (1, 3, 4), (0, 1, 4)  # convolutions with groups, and those with a pool behind them


class AlexNet(nn.Module):
    """images (B, H, W, C) -> Features: patches = the positions of the map that it ends with, pooled = their mean.

    end: behind which convolution it is read, before its pool; 0 = behind the last pool. Classifiers of the papers read
    all positions at once: 6 x 6 of 256 at 224 pixels.
    """

    kind: Kind
    width: float
    stride: int
    norm_groups: int
    dtype: jnp.dtype
    end: int = 0

    @nn.compact
    def __call__(self, images, train: bool = False):
        x, kind = images.astype(self.dtype), self.kind
        for number in range(self.end or len(SIDES)):
            x = self.conv(number)(x)
            x = nn.relu(BatchNorm(groups=self.norm_groups)(x, train) if kind.batch_norm else x)
            if number in POOLED and number + 1 != self.end:
                x = x if kind.batch_norm or number == 4 else local_response(x)
                x = nn.max_pool(x, (3, 3), (2, 2))
        return of_map(x)

    def conv(self, number: int) -> nn.Conv:
        kind, side = self.kind, SIDES[number]
        border = side // 2 if number else kind.border
        groups = kind.groups if number in PARTED else 1
        fast = {"conv_general_dilated": convolve} if groups == 1 else {}  # which knows nothing of groups
        width = groups * max(1, round(self.width * kind.widths[number] / groups))
        return nn.Conv(
            width, (side, side), 1 if number else self.stride, padding=((border, border),) * 2,
            feature_group_count=groups, use_bias=not kind.batch_norm, dtype=self.dtype, kernel_init=KERNEL_INIT, **fast,
        )  # fmt: skip

    @property
    def depths(self) -> int:
        return len(SIDES)

    def shortened(self, depth: int, variables: dict):
        """The network up to its convolution `depth`, and its variables."""
        return self.clone(end=depth), first_layers(variables, Conv=depth, BatchNorm=depth)


def local_response(x, size=5, alpha=1e-4, beta=0.75):
    """Each number over what the `size` channels around it amount to, (B, H, W, C). Krizhevsky et al. 2012, Sec. 3.3."""
    square = jnp.square(x.astype(jnp.float32))
    sums = jax.lax.reduce_window(square, 0.0, jax.lax.add, (1, 1, 1, size), (1, 1, 1, 1), "SAME")
    return (x / (1 + alpha / size * sums) ** beta).astype(x.dtype)


def make(*, kind: str, width: float, stride: int, norm_groups: int, dtype: str) -> AlexNet:
    """kind: `rotnet` (batch norm, no groups), `colorization` (batch norm, groups) or `caffe` (local response, groups).

    width multiplies the channels. stride: of the first convolution, 4; 2 for Jigsaw's tiles in training.
    """
    bounds.one_of("model.", dict(kind=kind), KINDS)
    bounds.one_of("model.", dict(dtype=dtype), bounds.DTYPES)
    bounds.bounded("model.", dict(width=width), at_least=1 / 64)
    bounds.whole("model.", dict(stride=stride, norm_groups=norm_groups))
    return AlexNet(KINDS[kind], width, stride, norm_groups, jnp.dtype(dtype))


def check(image_size: int, *, kind: str, stride: int, **_) -> None:
    """Raises UserError if nothing is left of images of this size behind the last pool."""
    side = (image_size + 2 * KINDS[kind].border - SIDES[0]) // stride + 1
    for _ in POOLED:
        side = (side - 3) // 2 + 1
    if side < 1:
        raise UserError(
            f"{image_size} pixels are too few for AlexNet with model.stride={stride}: take larger images"
            f"{', or stride 2' * (stride > 2)}."
        )
