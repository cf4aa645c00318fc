"""VGG's stages with batch norm, the last ones dilated and not halved: the network that learned to colour images.

Paper: Zhang et al. 2016, https://arxiv.org/abs/1603.08511, Fig. 2 and the table of its supplement, conv1 to conv7
Code:  https://github.com/richzhang/colorization, models/colorization_train_val_v2.prototxt (caffe branch)
"""

import flax.linen as nn
import jax.numpy as jnp

from jax_ssl import bounds
from jax_ssl.errors import UserError
from jax_ssl.models.apply import first_layers
from jax_ssl.models.colouring import conv
from jax_ssl.models.features import of_map
from jax_ssl.models.norm import BatchNorm

# Of each stage: channels at width 1, convolutions, what the last one divides the side by, dilation.
STAGES = ((64, 2, 2, 1), (128, 2, 2, 1), (256, 3, 2, 1), (512, 3, 1, 1), (512, 3, 1, 2), (512, 3, 1, 2), (512, 3, 1, 1))
STRIDE = 8  # pixels of the image that a place of the last map covers, along each axis


class DilatedVgg(nn.Module):
    """images (B, H, W, C) -> Features: patches are the places of the last map, pooled is their mean.

    ReLU behind each convolution, and behind the last of a stage batch norm without scale and offset.
    """

    width: float
    stages: int
    norm_groups: int
    dtype: jnp.dtype

    @nn.compact
    def __call__(self, images, train: bool = False):
        x = images.astype(self.dtype)
        for channels, count, stride, dilation in STAGES[: self.stages]:
            for number in range(count):
                last = number == count - 1
                x = nn.relu(conv(round(self.width * channels), self.dtype, stride if last else 1, dilation)(x))
            x = BatchNorm(groups=self.norm_groups, use_scale=False, use_bias=False)(x, train)
        return of_map(x)

    @property
    def depths(self) -> int:
        return self.stages

    def shortened(self, depth: int, variables: dict):
        """The network of the first `depth` stages and its variables."""
        convolutions = sum(stage[1] for stage in STAGES[:depth])
        return self.clone(stages=depth), first_layers(variables, Conv=convolutions, BatchNorm=depth)


def make(*, width: float, norm_groups: int, dtype: str) -> DilatedVgg:
    """width multiplies the channels of all stages, 64 to 512. norm_groups: see `BatchNorm`."""
    bounds.bounded("model.", dict(width=width), at_least=1 / 64)
    bounds.whole("model.", dict(norm_groups=norm_groups))
    bounds.one_of("model.", dict(dtype=dtype), bounds.DTYPES)
    return DilatedVgg(width, len(STAGES), norm_groups, jnp.dtype(dtype))


def check(image_size: int, **_) -> None:
    """Raises UserError if images of this size can't be halved three times."""
    if image_size % STRIDE:
        raise UserError(f"{image_size} pixels can't be halved three times: take a multiple of {STRIDE}.")
