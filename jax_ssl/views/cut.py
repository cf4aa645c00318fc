"""Crop and flip on the host, with Pillow, as torchvision does in the papers' own pipelines."""

import numpy as np
from PIL import Image

from jax_ssl.views.draws import boxes

PLACE = ("area", "aspect", "place", "ratio", "flip")  # the draws that say where in the image a view is
FILTERS = {"bilinear": Image.Resampling.BILINEAR, "bicubic": Image.Resampling.BICUBIC}


def cut_views(image: Image.Image, drawn: dict[str, np.ndarray], group: list[dict]) -> np.ndarray:
    """The views of one group of one RGB image: uint8 (V, size, size, 3).

    drawn: its draws of PLACE, arrays (V, ...), see `draws`. group: its recipes.
    """
    size, interpolation = group[0]["size"], group[0]["interpolation"]
    (places,) = boxes({name: array[None] for name, array in drawn.items()}, image.height, image.width)
    each = zip(places.tolist(), drawn["flip"], strict=True)
    return np.stack([crop(image, box, flip, size, interpolation) for box, flip in each])


def crop(image: Image.Image, box, flip: bool, size: int, interpolation: str) -> np.ndarray:
    """Crops a box (top, left, height, width), resizes it with antialiasing and mirrors it if `flip`: uint8 (S, S, 3).

    size: S. The crop comes first, because the filter of `resize(box=...)` also reads pixels outside the box. Width and
    height are resized in two calls: Pillow rounds between the two passes, and in one call their order depends on its
    version and on the box.
    """
    top, left, height, width = box
    part = image.crop((left, top, left + width, top + height))
    for sides in ((size, height), (size, size)):
        part = part.resize(sides, FILTERS[interpolation])
    return np.asarray(part.transpose(Image.Transpose.FLIP_LEFT_RIGHT) if flip else part)
