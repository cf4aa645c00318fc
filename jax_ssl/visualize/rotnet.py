"""Images in four turns, and turned back by what the network answered: upright, and in a green frame, where it is right.

Paper: Gidaris et al. 2018, RotNet, https://arxiv.org/abs/1803.07728, Fig. 2
"""

import numpy as np
from PIL import Image

from jax_ssl.visualize import pictures


def draw(shown: dict[str, np.ndarray]) -> dict[str, Image.Image]:
    """shown: `rotations` (rows, 8, S, S, 3), as they were given and as they were turned back; `right` (rows, 4)."""
    images, right = shown["rotations"], np.asarray(shown["right"])
    turns = right.shape[1]
    side = pictures.cell(2 * turns)
    columns, titles = [], []
    for turn in range(turns):
        given, back = (pictures.fit(images[:, column], side) for column in (turn, turns + turn))
        columns += [given, pictures.framed(back, right[:, turn])]
        titles += [f"turned by {360 * turn // turns}\N{DEGREE SIGN}", "turned back"]
    return {"rotations": pictures.sheet(columns, titles)}
