"""Images with a hole, the hole painted, and the truth.

Paper: Pathak et al. 2016, https://arxiv.org/abs/1604.07379, Fig. 1 and 4
"""

import numpy as np
from PIL import Image

from jax_ssl.visualize import pictures


def draw(shown: dict[str, np.ndarray]) -> dict[str, Image.Image]:
    """shown: `holes` (rows, 3, S, S, 3): seen, painted and true."""
    return {"holes": page(shown["holes"], ["seen", "painted", "truth"])}


def compare(shown: dict[str, dict]) -> dict[str, Image.Image]:
    """The same images painted by several runs. shown: {run: what it showed, as of `draw`}."""
    runs = [showed["holes"] for showed in shown.values()]
    columns = [runs[0][:, 0], *(holes[:, 1] for holes in runs), runs[0][:, 2]]
    return {"holes": page(np.stack(columns, axis=1), ["seen", *shown, "truth"])}


def page(images, titles) -> Image.Image:
    """One page of images (rows, columns, S, S, 3)."""
    side = pictures.cell(len(titles))
    return pictures.sheet([pictures.fit(column, side) for column in np.moveaxis(images, 1, 0)], titles)
