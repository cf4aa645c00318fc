"""What a method that fills holes makes of the same images when more and more of them is hidden.

Paper: He et al. 2022, MAE, https://arxiv.org/abs/2111.06377, Figs. 2 to 4
"""

import numpy as np
from PIL import Image

from jax_ssl.visualize import pictures


def draw(shown: dict[float, np.ndarray]) -> Image.Image:
    """A row for each image: itself, and for each ratio what was left of it and what became of that.

    shown: {hidden part: (rows, 3, H, W, 3) in [0, 1]}, in the columns image, left over, filled in.
    """
    side = pictures.cell(1 + 2 * len(shown))
    fit = lambda images: pictures.fit(np.clip(images, 0, 1), side)
    columns, titles = [fit(next(iter(shown.values()))[:, 0])], ["image"]
    for ratio, images in shown.items():
        columns += [fit(images[:, 1]), fit(images[:, 2])]
        titles += [f"{100 * ratio:.0f} % hidden", "filled in"]
    return pictures.sheet(columns, titles)
