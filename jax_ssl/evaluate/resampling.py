"""Batches of pictures filtered and read between their pixels: what the corruptions are made of. Double precision."""

import functools
import io

import numpy as np
from PIL import Image
from scipy.ndimage import gaussian_filter1d


def drawn(rngs, draw) -> np.ndarray:
    """What `draw(rng)` gives for the generator of each image: (N, ...)."""
    return np.stack([draw(rng) for rng in rngs])


def jpeg(image: Image.Image, quality: int) -> np.ndarray:
    """The image as it comes out of a JPEG file: uint8 (H, W, 3)."""
    file = io.BytesIO()
    image.save(file, "JPEG", quality=quality)
    return np.asarray(Image.open(io.BytesIO(file.getvalue())))


def along(images, rows, columns=None):
    """Images (N, H, W, ...) with each column of pixels multiplied by rows (h, H), each row by columns (w, W)."""
    columns = rows if columns is None else columns
    return np.moveaxis(np.tensordot(columns, np.tensordot(rows, images, (1, 1)), (1, 2)), (0, 1), (2, 1))


@functools.lru_cache(maxsize=64)
def smoothing(side: int, deviation: float, mode: str, truncate: float) -> np.ndarray:
    """(side, side): a Gaussian filter as a matrix. A wide one is much faster so."""
    return gaussian_filter1d(np.eye(side), deviation, axis=0, mode=mode, truncate=truncate)


def smooth(images, deviation):
    """As skimage.filters.gaussian: edges go on as they end, the kernel ends at four deviations."""
    return along(images, smoothing(images.shape[1], deviation, "nearest", 4.0))


@functools.lru_cache(maxsize=128)
def zooming(side: int, factor: float) -> np.ndarray:
    """(side, side): the middle of a line of pixels enlarged by `factor`, linearly, corners on corners."""
    inside = int(np.ceil(side / factor))
    top, outside = (side - inside) // 2, round(inside * factor)
    places = np.arange(outside) * (inside - 1) / max(outside - 1, 1)
    low = np.minimum(places.astype(int), inside - 1)
    weights, line = np.zeros((outside, side)), np.arange(outside)
    np.add.at(weights, (line, top + low), 1 - (places - low))
    np.add.at(weights, (line, top + np.minimum(low + 1, inside - 1)), places - low)
    trim = (outside - side) // 2
    return weights[trim : trim + side]


def sample(images, ys, xs, fold):
    """Bilinear reading of images (N, H, W, C) at ys, xs (N, h, w). fold(index, 0, last): what lies beyond the edges."""
    top, left = np.floor(ys).astype(int), np.floor(xs).astype(int)
    down, right = (ys - top)[..., None], (xs - left)[..., None]
    each, last = np.arange(len(images))[:, None, None], [size - 1 for size in images.shape[1:3]]
    at = lambda y, x: images[each, fold(y, 0, last[0]), fold(x, 0, last[1])]
    upper = at(top, left) * (1 - right) + at(top, left + 1) * right
    lower = at(top + 1, left) * (1 - right) + at(top + 1, left + 1) * right
    return upper * (1 - down) + lower * down


def mirror(index, first, last):
    """Indices folded back at the middle of the edge pixels: ... 2 1 0 1 2 ..."""
    index = np.abs(index) % (2 * last)
    return np.where(index > last, 2 * last - index, index)


def reflect(index, first, last):
    """Indices folded back at the border of the edge pixels: ... 1 0 0 1 ..."""
    index = np.where(index < 0, -index - 1, index) % (2 * last + 2)
    return np.where(index > last, 2 * last + 1 - index, index)
