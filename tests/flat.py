"""A backbone that a person can write down: one linear map of all pixels."""

import flax.linen as nn
import jax.numpy as jnp

from jax_ssl.models.features import Features


class Flat(nn.Module):
    """images (B, H, W, C) -> Features of width 5."""

    dtype: jnp.dtype = jnp.float32

    @nn.compact
    def __call__(self, images, train: bool = False):
        pooled = nn.Dense(5, name="map")(images.reshape(len(images), -1))
        return Features(pooled, pooled[:, None], pooled[:, None, :0])
