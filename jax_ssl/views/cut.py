"""Crop and flip on the host, with Pillow, as torchvision does in the papers' own pipelines."""

from math import ceil, floor

import numpy as np
from PIL import Image

from jax_ssl.views.draws import boxes

PLACE = ("area", "aspect", "place", "ratio", "flip")  # the draws that say where in the image a view is
FILTERS = {"bilinear": Image.Resampling.BILINEAR, "bicubic": Image.Resampling.BICUBIC}


def cut_views(image: Image.Image, drawn: dict[str, np.ndarray], group: list[dict]) -> np.ndarray:
    """The views of one group of one RGB image: uint8 (V, size, size, 3).

    drawn: its draws of PLACE, arrays (V, ...), see `draws`. group: its recipes. Views of an image that `decode` has
    reduced show what those of the whole one do.
    """
    size, interpolation = group[0]["size"], group[0]["interpolation"]
    height, width = image.info.get("full_size", (image.height, image.width))
    places = places_of(drawn, height, width)
    if "reduction" in image.info:
        places = places / image.info["reduction"]
    each = zip(places.tolist(), drawn["flip"], strict=True)
    return np.stack([crop(image, box, flip, size, interpolation) for box, flip in each])


def places_of(drawn: dict[str, np.ndarray], height: int, width: int) -> np.ndarray:
    """The boxes of one image's views: int32 (V, 4) top, left, height, width. drawn: as of `cut_views`."""
    return boxes({name: array[None] for name, array in drawn.items()}, height, width)[0]


def reduction(drawn: dict[str, np.ndarray], group: list[dict], height: int, width: int) -> int:
    """How many times smaller (1, 2, 4 or 8) an image can be decoded before a view of the group has to be enlarged.

    drawn, group: as of `cut_views`. height, width: of the whole image.
    """
    shortest = places_of(drawn, height, width)[:, 2:].min()
    return next(times for times in (8, 4, 2, 1) if times == 1 or shortest >= times * group[0]["size"])


def crop(image: Image.Image, box, flip: bool, size: int, interpolation: str) -> np.ndarray:
    """Crops a box (top, left, height, width), resizes it with antialiasing and mirrors it if `flip`: uint8 (S, S, 3).

    size: S. The crop comes first, because the filter of `resize(box=...)` also reads pixels outside the box; after it,
    that is one on each side at most, where the box of a reduced image ends between two. Width and height are resized in
    two calls: Pillow rounds between the two passes, and in one call their order depends on its version and on the box.
    """
    top, left, height, width = box
    first, above = floor(left), floor(top)
    part = image.crop((first, above, ceil(left + width), ceil(top + height)))
    left, top, kernel = left - first, top - above, FILTERS[interpolation]
    part = part.resize((size, part.height), kernel, (left, 0, left + width, part.height))
    part = part.resize((size, size), kernel, (0, top, size, top + height))
    return np.asarray(part.transpose(Image.Transpose.FLIP_LEFT_RIGHT) if flip else part)
