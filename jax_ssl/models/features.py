"""What every backbone returns."""

from typing import NamedTuple

import jax


class Features(NamedTuple):
    """pooled (B, D): one vector an image; patches (B, N, D): row by row; registers (B, R, D), R may be 0."""

    pooled: jax.Array
    patches: jax.Array
    registers: jax.Array
