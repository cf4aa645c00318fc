"""What a method shows of itself, drawn by the file of its own name here, or as grids of images and as heat maps.

`visualize/NAME.py`, NAME of a method, has draw(shown) -> {title: picture}. shown: what its `Method.show` returned;
images (rows, columns, H, W, 3) are in [0, 1], all else is as it was.
"""

import importlib
import importlib.util

import numpy as np

from jax_ssl import paths
from jax_ssl.visualize import pictures


def drawn(method: str, shown: dict, mean, std, step: int, **layout) -> dict:
    """{title: picture} of what `method` showed at a step. layout: of a grid, see `pictures.grid`."""
    page = None if "." in method else importlib.util.find_spec(f"{__package__}.{method}")
    if page is not None:
        pixels = lambda array: np.clip(np.asarray(array) * np.float32(std) + np.float32(mean), 0, 1)
        shown = {name: pixels(array) if np.ndim(array) == 5 else array for name, array in shown.items()}
        return importlib.import_module(page.name).draw(shown)
    return {
        name: pictures.grid(array, mean, std, **layout)
        if np.ndim(array) == 5
        else pictures.heat_map(array, f"{name}, step {step}")
        for name, array in shown.items()
    }


def save(method: str, views: dict, shown: dict, folder, step: int, mean, std) -> None:
    """The views of a batch, {group: (B, V, h, w, 3)}, and what the method showed: TITLE_STEP.png in `folder`."""
    folder = paths.resolve(folder)
    folder.mkdir(parents=True, exist_ok=True)
    views = {name: pictures.grid(images, mean, std) for name, images in views.items()}
    for name, picture in {**views, **drawn(method, shown, mean, std, step)}.items():
        paths.save_picture(picture, folder / f"{name}_{step:07d}.png")
