"""The four blurs of ImageNet-C, see corruptions.py: functions of images uint8 (N, S, S, 3), generators and constants.

They return double precision, 0 to 1, and beyond where that is cut off later.
"""

import numpy as np
from scipy.ndimage import correlate1d
from scipy.signal import fftconvolve

from jax_ssl.evaluate.resampling import drawn, smooth, zooming


def defocus(images, rngs, radius, alias):
    """A disk, itself blurred a little."""
    reach, near = (8, 1) if radius <= 8 else (int(radius), 2)
    axis, close = np.arange(-reach, reach + 1), np.arange(-near, near + 1)
    disk = (axis[:, None] ** 2 + axis[None] ** 2 <= radius**2).astype(np.float32)
    gauss = np.exp(-(close**2) / (2 * alias**2))
    gauss = (gauss / gauss.sum()).astype(np.float32)
    # In single precision as in the official code: whether it adds up to one decides if flat areas keep their grey.
    kernel = disk / disk.sum()
    for side in (0, 1):
        kernel = correlate1d(kernel, gauss, axis=side, mode="mirror")
    filled = np.flatnonzero(kernel.max(0) > 0)
    kernel = kernel[filled[0] : filled[-1] + 1, filled[0] : filled[-1] + 1].astype(np.float64)
    edge = len(kernel) // 2
    padded = np.pad(images / 255, ((0, 0), (edge, edge), (edge, edge), (0, 0)), mode="reflect")
    return fftconvolve(padded, kernel[None, :, :, None], mode="valid", axes=(1, 2))


def glass(images, rngs, deviation, reach, turns):
    """Pixels copied from neighbours at random, one after the other, between two blurs."""
    x = (np.clip(smooth(images / 255, deviation), 0, 1) * 255).astype(np.uint8)
    side, each = x.shape[1], np.arange(len(x))
    line = range(side - reach, reach, -1)
    places = [(h, w) for _ in range(turns) for h in line for w in line]
    moves = np.stack([rng.integers(-reach, reach, (len(places), 2)) for rng in rngs], axis=1)
    for (h, w), (dx, dy) in zip(places, np.moveaxis(moves, 2, 1), strict=True):
        x[:, h, w] = x[each, h + dy, w + dx]
    return smooth(x / 255, deviation)


def smear(images, rngs, radius, deviation, angles=(-45, 45)):
    """A smear to one side, with a fading tail of 2 radius + 1 steps. images: (N, H, W, ...)."""
    angle = np.deg2rad(drawn(rngs, lambda rng: rng.uniform(*angles)))
    steps = np.arange(2 * int(radius) + 1)
    weights = np.exp(-(steps**2) / (2 * deviation**2))
    weights /= weights.sum()
    # Up and to the left for positive steps, half steps towards zero: as ImageMagick's kernel.
    up, left = (np.ceil(np.outer(steps, part(angle)) - 0.5).astype(int) for part in (np.sin, np.cos))
    each, side = np.arange(len(images))[:, None, None], np.arange(images.shape[1])
    blurred = np.zeros(images.shape)
    for weight, dy, dx in zip(weights, up, left, strict=True):
        rows, columns = (np.clip(side + move[:, None], 0, len(side) - 1) for move in (dy, dx))
        blurred += weight * images[each, rows[:, :, None], columns[:, None, :]]
    return blurred


def motion_blur(images, rngs, radius, deviation):
    return smear(images, rngs, radius, deviation) / 255


def zoom(images, rngs, end, step):
    factors, (count, side, _, _) = np.arange(1, end, step), images.shape
    # Images last, so that one product does a side of all of them.
    x = np.ascontiguousarray(np.moveaxis(images / 255, 0, 2)).reshape(side, side, -1)
    zoomed = sum(
        np.matmul(matrix, (matrix @ x.reshape(side, -1)).reshape(x.shape))
        for matrix in (zooming(side, float(factor)) for factor in factors)
    )
    return np.moveaxis(((x + zoomed) / (len(factors) + 1)).reshape(side, side, count, 3), 2, 0)
