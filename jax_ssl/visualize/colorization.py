"""Images as the network saw them, in the colours that it told, and in their own.

Paper: Zhang et al. 2016, https://arxiv.org/abs/1603.08511, Fig. 1, 5 and 6
"""

import numpy as np
from PIL import Image

from jax_ssl.visualize import pictures


def draw(shown: dict[str, np.ndarray]) -> dict[str, Image.Image]:
    """shown: `colouring` (rows, columns, S, S, 3): grey, mean colours, annealed ones of classes, and the truth."""
    images = shown["colouring"]
    titles = ["seen", "mean colours", *["annealed"] * (images.shape[1] == 4), "truth"]
    side = pictures.cell(len(titles))
    return {"colouring": pictures.sheet([pictures.fit(column, side) for column in np.moveaxis(images, 1, 0)], titles)}
