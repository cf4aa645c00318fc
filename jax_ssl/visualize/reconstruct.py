"""Reconstructions of the same images with more and more of their patches hidden.

Paper: He et al. 2022, MAE, https://arxiv.org/abs/2111.06377, Figs. 2 to 4
"""

import numpy as np
from PIL import Image

from jax_ssl.visualize import pictures


def draw(reconstructions: dict[float, np.ndarray]) -> Image.Image:
    """A row for each image: itself, and for each ratio its visible patches and its reconstruction.

    reconstructions: {hidden share: (rows, 3, H, W, 3) in [0, 1]}, with columns image, visible patches, filled in.
    """
    side = pictures.cell(1 + 2 * len(reconstructions))
    fit = lambda images: pictures.fit(np.clip(images, 0, 1), side)
    columns, titles = [fit(next(iter(reconstructions.values()))[:, 0])], ["image"]
    for ratio, images in reconstructions.items():
        columns += [fit(images[:, 1]), fit(images[:, 2])]
        titles += [f"{100 * ratio:.0f} % hidden", "filled in"]
    return pictures.sheet(columns, titles)
