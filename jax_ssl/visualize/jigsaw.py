"""Puzzles put back together: as they were given, where the network puts the tiles, and where they belong.

Paper: Noroozi & Favaro 2016, Jigsaw, https://arxiv.org/abs/1603.09246, Fig. 1
"""

import numpy as np
from PIL import Image

from jax_ssl.visualize import pictures


def draw(shown: dict[str, np.ndarray]) -> dict[str, Image.Image]:
    """shown: `puzzles` (rows, 3, S, S, 3); `right` (rows,), whether all tiles of one are where they belong."""
    puzzles, right = shown["puzzles"], np.asarray(shown["right"])
    side = pictures.cell(3)
    given, back, truth = (pictures.fit(puzzles[:, column], side) for column in range(3))
    titles = ["puzzle", "put back by the network", "as it was"]
    return {"puzzles": pictures.sheet([given, pictures.framed(back, right), truth], titles)}
