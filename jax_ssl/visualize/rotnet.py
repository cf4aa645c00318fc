"""Images in four turns, and turned back by what the network answered: upright, and in a green frame, where it is right.

Paper: Gidaris et al. 2018, RotNet, https://arxiv.org/abs/1803.07728, Fig. 2
"""

import numpy as np
from PIL import Image

from jax_ssl.visualize import pictures

RIGHT, WRONG = (0.0, 0.62, 0.45), (0.84, 0.37, 0.0)  # Okabe and Ito's green and vermilion: told apart by everybody
FRAME = 4  # pixels


def draw(shown: dict[str, np.ndarray]) -> dict[str, Image.Image]:
    """shown: `rotations` (rows, 8, S, S, 3), as they were given and as they were turned back; `right` (rows, 4)."""
    images, right = shown["rotations"], np.asarray(shown["right"])
    turns = right.shape[1]
    side = pictures.cell(2 * turns)
    columns, titles = [], []
    for turn in range(turns):
        given, back = (pictures.fit(images[:, column], side) for column in (turn, turns + turn))
        columns += [given, framed(back, right[:, turn])]
        titles += [f"turned by {360 * turn // turns}\N{DEGREE SIGN}", "turned back"]
    return {"rotations": pictures.sheet(columns, titles)}


def framed(images: np.ndarray, right: np.ndarray) -> np.ndarray:
    """Images (N, S, S, 3) in a frame of the colour of right or wrong, (N,) bool."""
    colour = np.where(right[:, None, None, None], np.float32(RIGHT), np.float32(WRONG))
    inner = np.zeros(images.shape[1:3], bool)
    inner[FRAME:-FRAME, FRAME:-FRAME] = True
    return np.where(inner[None, :, :, None], images, colour)
