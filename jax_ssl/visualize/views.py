"""The input of a method: each image beside its views and small crops."""

import numpy as np
from PIL import Image

from jax_ssl.visualize import pictures


def draw(images: np.ndarray, groups: dict[str, np.ndarray]) -> Image.Image:
    """A row for each image: itself, then its views, group after group.

    images: uint8 (B, S, S, 3). groups: {name: (B, V, h, w, 3) in [0, 1]}.
    """
    side = pictures.cell(1 + sum(views.shape[1] for views in groups.values()))
    columns, titles = [pictures.fit(images / 255, side)], ["image"]
    for name, views in groups.items():
        columns += [pictures.fit(views[:, number], side) for number in range(views.shape[1])]
        titles += [f"{name.removesuffix('s')} {number + 1}" for number in range(views.shape[1])]
    return pictures.sheet(columns, titles)
