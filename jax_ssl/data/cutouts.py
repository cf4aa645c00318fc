"""Test scenes with exact object outlines: objects with a transparent background, pasted on a background of noise.

The scenes are not realistic: light and position of the object do not fit the background. But the outline is exact.
"""

import io
from collections.abc import Callable

import numpy as np
from PIL import Image

from jax_ssl.data.decode import FORMATS, BrokenImage, decode
from jax_ssl.data.disk import read_bytes
from jax_ssl.data.selection import names_in
from jax_ssl.errors import UserError

OBJECT_SIDE = 0.85  # longer side of the object / side of the scene
OPAQUE = 128  # of 255: pixels with at least this alpha belong to the object


def load_cutouts(
    folder: str, count: int, size: int, say: Callable[[str], None] = print
) -> tuple[np.ndarray, np.ndarray]:
    """Scenes of at most `count` objects of a folder, one each: uint8 (n, S, S, 3), and their masks, bool (n, S, S).

    folder: of PNG or WebP images with transparency; the names are taken at equal distances. size: S, in pixels. Images
    without transparency, and unreadable ones, are left out; say is called with a line for each unreadable one. Raises
    UserError where no image is left.
    """
    root, names = names_in(folder)
    images, outlines = [], []
    for number in np.unique(np.linspace(0, len(names) - 1, count).round().astype(int)):
        try:
            cut = _read(root, names[number])
        except BrokenImage as error:
            say(f"left out, as it can't be read: {error}")
            continue
        if cut is None:
            continue
        image, outline = paste(cut, size, np.random.default_rng(number))
        images.append(image)
        outlines.append(outline)
    if not images:
        raise UserError(f"{folder} holds no image with transparency: give objects cut out of their background, as PNG.")
    return np.stack(images), np.stack(outlines)


def _read(root: str, name: str) -> Image.Image | None:
    """The image as RGBA, cropped to its object; None if it is fully opaque or fully transparent."""
    data = read_bytes(root, name)
    decode(data, name)  # raises BrokenImage for a damaged or too large file
    with Image.open(io.BytesIO(data), formats=FORMATS) as image:
        if not image.has_transparency_data:
            return None
        cut = image.convert("RGBA")
    seen = cut.getchannel("A").point(lambda alpha: 255 * (alpha >= OPAQUE))
    return None if seen.getbbox() is None or seen.getextrema()[0] == 255 else cut.crop(seen.getbbox())


def paste(cut: Image.Image, size: int, random: np.random.Generator) -> tuple[np.ndarray, np.ndarray]:
    """An RGBA object at a random place on a background of noise: uint8 (S, S, 3), and its mask, bool (S, S)."""
    scale = OBJECT_SIDE * size / max(cut.size)
    cut = cut.resize([max(1, round(side * scale)) for side in cut.size], Image.Resampling.BICUBIC)
    left, top = (int(random.integers(0, size - side + 1)) for side in cut.size)
    sheet = Image.new("RGBA", (size, size))
    sheet.paste(cut, (left, top))
    page = Image.fromarray(noise(size, random)).convert("RGBA")
    outline = np.asarray(sheet.getchannel("A")) >= OPAQUE
    return np.asarray(Image.alpha_composite(page, sheet).convert("RGB")), outline


def noise(size: int, random: np.random.Generator) -> np.ndarray:
    """Noise whose amplitude falls as 1 / frequency, as in photographs: uint8 (S, S, 3)."""
    frequency = np.hypot(np.fft.fftfreq(size)[:, None], np.fft.fftfreq(size)[None])
    frequency[0, 0] = np.inf
    spectrum = np.fft.fft2(random.standard_normal((4, size, size))) / frequency
    layers = np.fft.ifft2(spectrum).real
    layers /= layers.std((1, 2), keepdims=True)
    colours = layers[0] + 0.3 * layers[1:]  # much variation in brightness, little in colour
    return np.clip(128 + 35 * np.moveaxis(colours, 0, -1), 0, 255).astype(np.uint8)
