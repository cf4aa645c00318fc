"""Normalisation in convolutional networks: of a batch, by the config and never by the mesh, or of each image alone."""

import flax.linen as nn
import jax
import jax.numpy as jnp

from jax_ssl.models import pointwise
from jax_ssl.sharding import batch_constraint


class BatchNorm(nn.Module):
    """Normalises over the batch and space, with statistics in float32.

    groups: 1 = statistics of the global batch (what others call synchronised); G > 1 = the batch is cut into G equal
    runs of neighbouring images, each normalised by itself, as on the G devices of MoCo or SwAV.
    momentum: weight of the old running value (torch's 0.1 is 0.9 here). Statistics in fp32, biased variance.
    """

    groups: int = 1
    momentum: float = 0.9
    epsilon: float = 1e-5
    use_scale: bool = True
    use_bias: bool = True
    zero_scale: bool = False  # gamma starts at 0: a residual branch that begins as the identity
    scale_spread: float = 0.0  # gamma starts around 1 with this deviation (DCGAN)

    @nn.compact
    def __call__(self, x, train: bool, kernel=None):
        """x (B, ..., C), any float dtype; returned in the same dtype.

        kernel (1, 1, D, C): normalises the convolution of x (B, H, W, D) with it, see `pointwise`; only with one group.
        """
        width = (x if kernel is None else kernel).shape[-1]
        mean_run = self.variable("batch_stats", "mean", lambda: jnp.zeros(width, jnp.float32))
        var_run = self.variable("batch_stats", "var", lambda: jnp.ones(width, jnp.float32))
        grouped = x.reshape(self.groups, x.shape[0] // self.groups, *x.shape[1:]) if train else x[None]
        if train:
            found = moments(grouped) if kernel is None else pointwise.moments(x, kernel)
            mean, var = (moment.reshape(-1, width) for moment in found)  # (G, C)
            if not self.is_initializing():
                mean_run.value = self.momentum * mean_run.value + (1 - self.momentum) * mean.mean(0)
                var_run.value = self.momentum * var_run.value + (1 - self.momentum) * var.mean(0)
        else:
            mean, var = mean_run.value[None], var_run.value[None]
        scale = jnp.ones(width, jnp.float32)
        if self.use_scale:
            init = nn.initializers.zeros if self.zero_scale else around_one(self.scale_spread)
            scale = self.param("scale", init, (width,), jnp.float32)
        factor = scale / jnp.sqrt(var + self.epsilon)
        shift = -mean * factor
        if self.use_bias:
            shift = shift + self.param("bias", nn.initializers.zeros, (width,), jnp.float32)
        if kernel is not None:
            return batch_constraint(pointwise.scaled(x, kernel, factor[0], shift[0]))
        spread = (factor.shape[0],) + (1,) * (grouped.ndim - 2) + (width,)
        y = grouped.astype(jnp.float32) * factor.reshape(spread) + shift.reshape(spread)
        return batch_constraint(y.reshape(x.shape).astype(x.dtype))


def moments(grouped):
    """(mean, variance) of the channels of each group, float32 (G, C). grouped: (G, B, ..., C)."""
    axes = tuple(range(1, grouped.ndim - 1))
    mean = jnp.mean(grouped, axes, dtype=jnp.float32)
    # One pass over x, as XLA fuses both sums; the second pass of the textbook formula doubles the traffic.
    square = jnp.mean(jnp.square(grouped.astype(jnp.float32)), axes)
    return mean, jnp.maximum(square - jnp.square(mean), 0)


class LayerNorm(nn.Module):
    """Normalises each image over space and channels, with a learned scale and offset a channel: nothing leaks.

    Henaff et al. 2019 (CPC v2), https://arxiv.org/abs/1905.09272, Sec. 4.1: by the statistics of a batch a patch knows
    what the others of its image look like.
    """

    epsilon: float = 1e-5
    zero_scale: bool = False  # as of BatchNorm

    @nn.compact
    def __call__(self, x, train: bool):
        """x (B, ..., C), any float dtype; returned in the same dtype. train changes nothing."""
        scale = nn.initializers.zeros if self.zero_scale else nn.initializers.ones
        axes = tuple(range(1, x.ndim))
        norm = nn.LayerNorm(self.epsilon, jnp.float32, reduction_axes=axes, feature_axes=-1, scale_init=scale)
        return norm(x.astype(jnp.float32)).astype(x.dtype)


def around_one(spread: float) -> nn.initializers.Initializer:
    """Ones, with noise of that deviation on them."""
    if not spread:
        return nn.initializers.ones
    return lambda rng, shape, dtype: 1 + spread * jax.random.normal(rng, shape, dtype)
