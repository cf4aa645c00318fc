"""Colours as people see them: sRGB in [0, 1] to CIE Lab, D65, the 2 degree observer.

Code:  https://github.com/scikit-image/scikit-image, skimage/color/colorconv.py (its constants)
"""

import jax.numpy as jnp
import numpy as np
from jax.lax import Precision

XYZ = ((0.412453, 0.357580, 0.180423), (0.212671, 0.715160, 0.072169), (0.019334, 0.119193, 0.950227))  # of linear RGB
WHITE = (0.95047, 1.0, 1.08883)


def rgb_to_lab(rgb):
    """(..., 3) in [0, 1] -> float32 (..., 3): L from 0 to 100, a and b about -110 to 110."""
    rgb = jnp.clip(rgb.astype(jnp.float32), 0.0, 1.0)
    linear = jnp.where(rgb > 0.04045, ((jnp.maximum(rgb, 0.04045) + 0.055) / 1.055) ** 2.4, rgb / 12.92)
    xyz = jnp.matmul(linear, jnp.asarray(XYZ).T, precision=Precision.HIGHEST) / jnp.asarray(WHITE)
    # The root's gradient has no end at zero, and a choice between two branches takes both: so none goes there.
    x, y, z = jnp.moveaxis(
        jnp.where(xyz > 0.008856, jnp.cbrt(jnp.maximum(xyz, 0.008856)), 7.787 * xyz + 16.0 / 116.0), -1, 0
    )
    return jnp.stack([116.0 * y - 16.0, 500.0 * (x - y), 200.0 * (y - z)], axis=-1)


def lab_to_rgb(lab):
    """(..., 3) -> float32 (..., 3) in [0, 1], the inverse of `rgb_to_lab`; what no screen can show is cut off."""
    lightness, a, b = jnp.moveaxis(lab.astype(jnp.float32), -1, 0)
    y = (lightness + 16.0) / 116.0
    roots = jnp.stack([y + a / 500.0, y, jnp.maximum(y - b / 200.0, 0.0)], axis=-1)
    xyz = jnp.where(roots > 0.2068966, roots**3, (roots - 16.0 / 116.0) / 7.787) * jnp.asarray(WHITE)
    linear = jnp.matmul(xyz, jnp.asarray(np.linalg.inv(XYZ).T, jnp.float32), precision=Precision.HIGHEST)
    curved = 1.055 * jnp.maximum(linear, 0.0031308) ** (1 / 2.4) - 0.055
    return jnp.clip(jnp.where(linear > 0.0031308, curved, 12.92 * linear), 0.0, 1.0)
