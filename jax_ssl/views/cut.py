"""Crop and flip on the host, with Pillow: what the papers' own pipelines, torchvision's, do it with."""

import numpy as np
from PIL import Image

from jax_ssl.views.draws import boxes

PLACE = ("area", "aspect", "place", "ratio", "flip")  # the draws that say where a view lies
FILTERS = {"bilinear": Image.Resampling.BILINEAR, "bicubic": Image.Resampling.BICUBIC}


def cut(image: Image.Image, drawn: dict[str, np.ndarray], group: list[dict]) -> np.ndarray:
    """The views of one group of one RGB image: uint8 (V, size, size, 3). drawn: its draws, (V, ...), those of PLACE."""
    size, interpolation = group[0]["size"], group[0]["interpolation"]
    (places,) = boxes({name: array[None] for name, array in drawn.items()}, image.height, image.width)
    each = zip(places.tolist(), drawn["flip"], strict=True)
    return np.stack([crop(image, box, flip, size, interpolation) for box, flip in each])


def crop(image: Image.Image, box, flip: bool, size: int, interpolation: str) -> np.ndarray:
    """Cut a box (top, left, height, width) out, resize it with antialiasing, maybe mirror it: uint8 (size, size, 3).

    Cut first: a filter that is given the box alone would see what lies beyond its edges. In two steps, because Pillow
    rounds between them, and which comes first would depend on its version and on the box.
    """
    top, left, height, width = box
    part = image.crop((left, top, left + width, top + height))
    for sides in ((size, height), (size, size)):
        part = part.resize(sides, FILTERS[interpolation])
    return np.asarray(part.transpose(Image.Transpose.FLIP_LEFT_RIGHT) if flip else part)
