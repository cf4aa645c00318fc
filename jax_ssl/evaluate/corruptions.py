"""The fifteen corruptions of ImageNet-C, Tiny-ImageNet-C and CIFAR-10-C, on whole batches and with NumPy alone.

Paper: Hendrycks & Dietterich 2019, https://arxiv.org/abs/1903.12261
Code:  https://github.com/hendrycks/robustness; motion blur https://github.com/bethgelab/imagecorruptions

Kept as they are in the released images: pixels are cut off to whole numbers and not rounded, glass blur copies
neighbours and does not swap them, and a frost picture is drawn from the first five of six. Not the same: motion blur is
imagecorruptions', since the official code calls ImageMagick; the released ImageNet-C was stored as JPEG once more.

Each image's random numbers follow from (seed, corruption, level, number of the image).
"""

import numpy as np
from PIL import Image

from jax_ssl.errors import UserError
from jax_ssl.evaluate import blurs, severities, weather
from jax_ssl.evaluate.resampling import along, drawn, jpeg, mirror, reflect, sample, smoothing
from jax_ssl.evaluate.rules import seed32
from jax_ssl.evaluate.severities import KINDS

ROUNDING = 1e-9  # grey levels: without it a blur makes flat areas darker by one, where 38 is 37.99999999999
VALUES = 2**24  # of images that are corrupted at a time: about 0.5 GB of double precision


def corrupt(images: np.ndarray, kind: str, level: int, seed: int = 0, first: int = 0) -> np.ndarray:
    """Images with one of KINDS at a level of 1 to 5: uint8 (N, S, S, 3) -> the same shape.

    first: the number of the first image, so that a part of a set is corrupted as it is within the whole. Raises
    UserError for another kind or level.
    """
    check(kind, level)
    return apply(images, kind, severities.of(kind, images.shape[1])[level - 1], (seed32(seed), level), first)


def check(kind: str, level: int) -> None:
    """Raises UserError for an unknown corruption or level."""
    if kind not in KINDS or level not in severities.LEVELS:
        raise UserError(f"corruption {kind} at level {level}: choose from {', '.join(KINDS)}, and a level from 1 to 5.")


def apply(images: np.ndarray, kind: str, constants: tuple, seed: tuple = (0, 0), first: int = 0) -> np.ndarray:
    """Images with one of KINDS of the strength `constants`, see severities.py: uint8 (N, S, S, 3) -> the same shape."""
    block, done = max(1, VALUES // images[0].size), []
    for start in range(0, len(images), block):
        part = np.asarray(images[start : start + block])
        numbers = range(first + start, first + start + len(part))
        rngs = [np.random.default_rng((*seed, KINDS.index(kind), number)) for number in numbers]
        found = FUNCTIONS[kind](part, rngs, *constants)
        done.append(found if found.dtype == np.uint8 else np.clip(255 * found + ROUNDING, 0, 255).astype(np.uint8))
    return np.concatenate(done)


def _noise(images, rngs, deviation):
    return images / 255 + drawn(rngs, lambda rng: rng.normal(0, deviation, images.shape[1:]))


def _shot(images, rngs, rate):
    """Photons of each pixel: Poisson, of mean `rate` where it is white."""
    light = images / 255 * rate
    return np.stack([rng.poisson(image) for rng, image in zip(rngs, light, strict=True)]) / rate


def _impulse(images, rngs, share):
    """A share of the values is black or white."""
    hit, white = (drawn(rngs, lambda rng: rng.random(images.shape[1:])) for _ in range(2))
    return np.where(hit <= share, white <= 0.5, images / 255)


def _contrast(images, rngs, factor):
    x = images / 255
    mean = x.mean((1, 2), keepdims=True)
    return (x - mean) * factor + mean


def _elastic(images, rngs, strength, deviation, affine):
    """A random affine map, then a smooth random displacement of each pixel."""
    x, side = images / 255, images.shape[1]
    centre, third = side // 2, side // 3
    corners = centre + third * np.array([[1, 1], [1, -1], [-1, -1]])  # (x, y)
    moved = corners + drawn(rngs, lambda rng: rng.uniform(-affine, affine, (3, 2)))
    # (N, 3, 2): moved points, with a one, to where they came from.
    back = np.linalg.solve(np.concatenate([moved, np.ones((len(x), 3, 1))], 2), np.broadcast_to(corners, moved.shape))
    ys, xs = np.mgrid[:side, :side]
    source = np.stack([xs, ys, np.ones_like(xs)], -1).reshape(-1, 3) @ back
    source = source.reshape(-1, side, side, 2)
    x = sample(x, source[..., 1], source[..., 0], mirror)
    wave = drawn(rngs, lambda rng: rng.uniform(-1, 1, (2, side, side))).swapaxes(0, 1)
    if deviation:
        smooth = smoothing(side, float(deviation), "reflect", 3.0)
        wave = np.stack([along(one, smooth) for one in wave])
    return sample(x, ys + strength * wave[1], xs + strength * wave[0], reflect)


def _pixelate(images, rngs, scale):
    side = images.shape[1]
    small = int(side * scale)
    resize = lambda image, size: image.resize((size, size), Image.Resampling.BOX)
    return np.stack([np.asarray(resize(resize(Image.fromarray(image), small), side)) for image in images])


def _jpeg(images, rngs, quality):
    return np.stack([jpeg(Image.fromarray(image), quality) for image in images])


FUNCTIONS = {
    "gaussian_noise": _noise, "shot_noise": _shot, "impulse_noise": _impulse, "defocus_blur": blurs.defocus,
    "glass_blur": blurs.glass, "motion_blur": blurs.motion_blur, "zoom_blur": blurs.zoom, "snow": weather.snow,
    "frost": weather.frost, "fog": weather.fog, "brightness": weather.brightness, "contrast": _contrast,
    "elastic_transform": _elastic, "pixelate": _pixelate, "jpeg_compression": _jpeg,
}  # fmt: skip
