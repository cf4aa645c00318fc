"""What CPC takes for the patch that comes further down: its best of 128 candidates, beside the right one.

Paper: van den Oord et al. 2018, CPC, https://arxiv.org/abs/1807.03748, Sec. 3.3
"""

import numpy as np
from PIL import Image

from jax_ssl.visualize import pictures


def draw(shown: dict[str, np.ndarray]) -> dict[str, Image.Image]:
    """shown: `seen` (rows, 1, S, S, 3); `patches` (rows, 1 + n, s, s, 3), the right one and the n best candidates;
    `right` (rows, n), which of these it is.
    """
    patches, right = shown["patches"], np.asarray(shown["right"])
    side = pictures.cell(2 + right.shape[1])
    fit = lambda images: pictures.fit(images, side)
    best = [pictures.framed(fit(patches[:, 1 + n]), right[:, n]) for n in range(right.shape[1])]
    titles = ["what is seen", "what comes", *(f"choice {n + 1}" for n in range(right.shape[1]))]
    return {"candidates": pictures.sheet([fit(shown["seen"][:, 0]), fit(patches[:, 0]), *best], titles)}
