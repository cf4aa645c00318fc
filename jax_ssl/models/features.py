"""What every backbone returns."""

from typing import NamedTuple

import jax
import jax.numpy as jnp
from einops import rearrange


class Features(NamedTuple):
    """pooled (B, D): one vector an image; patches (B, N, D): row by row; registers (B, R, D), R may be 0."""

    pooled: jax.Array
    patches: jax.Array
    registers: jax.Array


def of_map(x) -> Features:
    """The Features of a map (B, h, w, D): patches are its places, pooled is their mean; float32, no registers."""
    patches = rearrange(x.astype(jnp.float32), "b h w d -> b (h w) d")
    return Features(patches.mean(1), patches, jnp.zeros((len(x), 0, x.shape[-1]), jnp.float32))
