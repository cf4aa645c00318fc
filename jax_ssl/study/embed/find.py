"""Finds images of a folder by their features: those nearest to a query, and groups of near-duplicates."""

import os

import numpy as np
from PIL import Image

from jax_ssl import encoder, paths
from jax_ssl.data.decode import BrokenImage, decode
from jax_ssl.data.pipeline import centre_crop
from jax_ssl.errors import UserError
from jax_ssl.evaluate import knn
from jax_ssl.study.embed.images import Folder, Network
from jax_ssl.study.neighbours import compared
from jax_ssl.visualize import pictures

DRAWN = 12  # groups of duplicates on the picture, at most
IN_A_ROW = 8
SIDE = 128  # pixels of an image on the picture
NEAR = 20  # images that are compared with each image for duplicates


def read_query(network: Network, query: str) -> np.ndarray:
    """The image file `query` as the network gets it, uint8 (H, W, 3). Raises UserError if it is none."""
    path = paths.resolve(query)
    if not path.is_file():
        raise UserError(f"--query={query}: there is no such file.")
    data = network.settings.data
    try:
        return centre_crop(decode(path.read_bytes(), query), data.eval_size, data.eval_crop)
    except BrokenImage as error:
        raise UserError(f"--query={query} can't be read as an image: {error.reason}.") from None


def nearest(network: Network, folder: Folder, query: np.ndarray, count: int) -> tuple[np.ndarray, np.ndarray]:
    """(numbers, cosines) of the images nearest to the image `query`, uint8 (H, W, 3)."""
    (feature,) = encoder.outputs(network.encode, [query[None]])
    cosines, numbers = knn.nearest(folder.features, feature, min(count, len(folder.files)))
    return numbers[0], cosines[0]


def duplicates(folder: Folder, least: float, say=print) -> list[list[int]]:
    """Groups of images that are linked by cosines of at least `least`, the largest group first; numbers, ascending.

    Of each image, the NEAR nearest are looked at, which links groups of any size.
    """
    cosines, ids = compared(folder.features, min(NEAR, len(folder.files)), say)
    parent = list(range(len(ids)))

    def root(number: int) -> int:
        while parent[number] != number:
            parent[number] = parent[parent[number]]
            number = parent[number]
        return number

    for number, place in zip(*np.nonzero(cosines >= least)):
        first, second = sorted((root(int(number)), root(int(ids[number, place]))))
        parent[second] = first
    groups = {}
    for number in range(len(ids)):
        groups.setdefault(root(number), []).append(number)
    return sorted((group for group in groups.values() if len(group) > 1), key=lambda group: (-len(group), group))


def draw(rows: list[list[np.ndarray]], out: str) -> os.PathLike:
    """Rows of images, uint8 (H, W, 3), as one PNG file; all rows have IN_A_ROW places, white where there is none."""
    white = np.full_like(rows[0][0], 255)
    full = [list(row[:IN_A_ROW]) + [white] * (IN_A_ROW - len(row)) for row in rows]
    pixels = np.stack([np.stack(row) for row in full]).astype(np.float32) / 255
    picture = pictures.grid(pixels, rows=None, zoom_to=SIDE)
    if picture.width > 2 * IN_A_ROW * SIDE:
        picture = picture.resize((IN_A_ROW * SIDE, round(picture.height * IN_A_ROW * SIDE / picture.width)),
                                 Image.Resampling.LANCZOS)  # fmt: skip
    path = paths.resolve(out)
    paths.save_picture(picture, path)
    return path
