"""Objects cut out of their background (PNG or WebP with transparency), pasted on pages where their outline is known.

Composed scenes: the light does not fit, and nothing stands on anything. What they have is an exact outline, and a page
that is a texture like others.
"""

import io
from collections.abc import Callable

import numpy as np
from PIL import Image

from jax_ssl.data.decode import FORMATS, BrokenImage, decode
from jax_ssl.data.disk import read_bytes
from jax_ssl.data.few import names_in
from jax_ssl.errors import UserError

PART = 0.85  # of the page's side that the longer side of an object takes
OPAQUE = 128  # of 255: what covers at least half belongs to the object


def cutouts(folder: str, count: int, size: int, say: Callable[[str], None] = print) -> tuple[np.ndarray, np.ndarray]:
    """At most `count` objects of a folder, evenly spread over its names, each somewhere on a page of its own.

    Returns uint8 (n, S, S, 3) and bool (n, S, S), the outlines. Images without transparency are left out, and so are
    those that can't be read: say is called with a line for each of these.
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
    """The image with its alpha, cropped to what can be seen of it; None if all or nothing can be."""
    data = read_bytes(root, name)
    decode(data, name)  # refuses what is damaged or too large
    with Image.open(io.BytesIO(data), formats=FORMATS) as image:
        if not image.has_transparency_data:
            return None
        cut = image.convert("RGBA")
    seen = cut.getchannel("A").point(lambda alpha: 255 * (alpha >= OPAQUE))
    return None if seen.getbbox() is None or seen.getextrema()[0] == 255 else cut.crop(seen.getbbox())


def paste(cut: Image.Image, size: int, random: np.random.Generator) -> tuple[np.ndarray, np.ndarray]:
    """An RGBA object at a random place of a page of noise: uint8 (S, S, 3) and its outline, bool (S, S)."""
    scale = PART * size / max(cut.size)
    cut = cut.resize([max(1, round(side * scale)) for side in cut.size], Image.Resampling.BICUBIC)
    left, top = (int(random.integers(0, size - side + 1)) for side in cut.size)
    sheet = Image.new("RGBA", (size, size))
    sheet.paste(cut, (left, top))
    page = Image.fromarray(noise(size, random)).convert("RGBA")
    outline = np.asarray(sheet.getchannel("A")) >= OPAQUE
    return np.asarray(Image.alpha_composite(page, sheet).convert("RGB")), outline


def noise(size: int, random: np.random.Generator) -> np.ndarray:
    """A page whose contrast falls with frequency as that of photographs does: uint8 (S, S, 3)."""
    frequency = np.hypot(np.fft.fftfreq(size)[:, None], np.fft.fftfreq(size)[None])
    frequency[0, 0] = np.inf
    spectrum = np.fft.fft2(random.standard_normal((4, size, size))) / frequency
    layers = np.fft.ifft2(spectrum).real
    layers /= layers.std((1, 2), keepdims=True)
    colours = layers[0] + 0.3 * layers[1:]  # mostly light and dark, a little colour
    return np.clip(128 + 35 * np.moveaxis(colours, 0, -1), 0, 255).astype(np.uint8)
