"""The weather of ImageNet-C, see corruptions.py: functions of images uint8 (N, S, S, 3), generators and constants.

They return double precision, 0 to 1, and beyond where that is cut off later.
"""

import functools
import importlib.util
import io

import numpy as np
from PIL import Image

from jax_ssl import paths
from jax_ssl.evaluate import severities
from jax_ssl.evaluate.blurs import smear
from jax_ssl.evaluate.resampling import along, drawn, sample, zooming

GREY = np.array([0.299, 0.587, 0.114])


def snow(images, rngs, mean, deviation, factor, cut, radius, tail, mix):
    """Flakes: noise, enlarged, its peaks only, smeared downwards; and a paler picture behind them."""
    x, side = images / 255, images.shape[1]
    flakes = along(drawn(rngs, lambda rng: rng.normal(mean, deviation, (side, side))), zooming(side, float(factor)))
    flakes = (np.clip(np.where(flakes < cut, 0, flakes), 0, 1) * 255).astype(np.uint8)
    flakes = np.round(smear(flakes, rngs, radius, tail, (-135, -45)))[..., None] / 255
    paler = np.maximum(x, (x @ GREY)[..., None] * 1.5 + 0.5)
    return mix * x + (1 - mix) * paler + flakes + np.rot90(flakes, 2, (1, 2))


def frost_folder():
    """Where the official pictures of frost are, or None: the package imagecorruptions-imaug has them."""
    found = importlib.util.find_spec("imagecorruptions")
    folder = paths.resolve(found.origin).parent / "frost" if found and found.origin else None
    return folder if folder and folder.is_dir() else None


@functools.lru_cache(maxsize=2)
def _frost_pictures(side: int, folder) -> list[np.ndarray]:
    """The first five of six pictures, at the scale of the official code: float32 (h, w, 3), 0 to 255."""
    official, found = {224: 1.0, 64: 0.3, 32: 0.2}[severities.setting(side)], []
    for number in range(1, 6):
        picture = next(folder.glob(f"frost{number}.*"))
        pixels = np.asarray(Image.open(io.BytesIO(picture.read_bytes())).convert("RGB"), np.float32)
        scale = max(official, (side + 1) / min(pixels.shape[:2]))  # larger where images are larger than the picture
        at = [((np.arange(round(scale * n)) + 0.5) / scale - 0.5) for n in pixels.shape[:2]]
        found.append(sample(pixels[None], *(x[None] for x in np.meshgrid(*at, indexing="ij")), np.clip)[0])
    return found


def frost(images, rngs, share, ice):
    side, folder = images.shape[1], frost_folder()
    if folder is None:
        return (share * images + ice * 255 * _crystals(rngs, side)) / 255

    def part(rng):
        picture = pictures[rng.integers(len(pictures))]
        top, left = (rng.integers(0, max(1, size - side)) for size in picture.shape[:2])
        return picture[top : top + side, left : left + side]

    pictures = _frost_pictures(side, folder)
    return (share * images + ice * drawn(rngs, part)) / 255


def _crystals(rngs, side):
    """A frost of our own where the pictures are not there: bright veins of a fractal, bluish. (N, S, S, 3), 0 to 1."""
    veins = 1 - np.abs(2 * _plasma(rngs, side, 1.6) - 1)
    return np.clip(veins[..., None] ** 2 * np.array([0.85, 0.95, 1.0]), 0, 1)


def _plasma(rngs, side, decay) -> np.ndarray:
    """Clouds by the diamond-square algorithm: (N, side, side), from 0 to 1 within the map they are cut from."""
    size = 1 << (side - 1).bit_length()
    changes = drawn(rngs, lambda rng: rng.uniform(-1, 1, size * size))
    maps, step, roughness, used = np.zeros((len(rngs), size, size)), size, 100.0, 0

    def middle(total, used):
        count = total[0].size
        change = changes[:, used : used + count].reshape(total.shape)
        return total / 4 + roughness**2 * change, used + count

    while step >= 2:
        half = step // 2
        corners = maps[:, ::step, ::step]
        down = corners + np.roll(corners, -1, 1)
        maps[:, half::step, half::step], used = middle(down + np.roll(down, -1, 2), used)
        inner, corners = maps[:, half::step, half::step], maps[:, ::step, ::step]
        sides = inner + np.roll(inner, 1, 1) + corners + np.roll(corners, -1, 2)
        maps[:, ::step, half::step], used = middle(sides, used)
        sides = inner + np.roll(inner, 1, 2) + corners + np.roll(corners, -1, 1)
        maps[:, half::step, ::step], used = middle(sides, used)
        step, roughness = half, roughness / decay
    maps -= maps.min((1, 2), keepdims=True)
    return (maps / maps.max((1, 2), keepdims=True))[:, :side, :side]


def fog(images, rngs, amount, decay):
    x = images / 255
    most = x.max((1, 2, 3), keepdims=True)
    return (x + amount * _plasma(rngs, images.shape[1], decay)[..., None]) * most / (most + amount)


def brightness(images, rngs, more):
    """More of the value of HSV, hue and saturation unchanged: all three colours are multiplied by the same number."""
    x = images / 255
    value = x.max(-1, keepdims=True)
    brighter = np.clip(value + more, 0, 1)
    return np.where(value > 0, x / np.where(value > 0, value, 1), 1) * brighter
