"""What a method shows of itself, drawn by the file of its own name here, or as grids of images and as heat maps.

`visualize/NAME.py`, NAME of a method, has draw(shown) -> {title: picture}. shown: what its `Method.show` returned;
images (rows, columns, H, W, 3) are in [0, 1], all else is as it was. It may have compare({run: shown}), too.
"""

import importlib
import importlib.util

import numpy as np

from jax_ssl import paths
from jax_ssl.visualize import pictures


def page_of(method: str):
    """The module that draws what `method` shows, or None."""
    page = None if "." in method else importlib.util.find_spec(f"{__package__}.{method}")
    return page and importlib.import_module(page.name)


def to_pixels(shown: dict, mean, std) -> dict:
    """The images of `shown` in [0, 1], and all else as it is."""
    pixels = lambda array: np.clip(np.asarray(array) * np.float32(std) + np.float32(mean), 0, 1)
    return {name: pixels(array) if np.ndim(array) == 5 else array for name, array in shown.items()}


def drawn(method: str, shown: dict, mean, std, step: int, **layout) -> dict:
    """{title: picture} of what `method` showed at a step. layout: of a grid, see `pictures.grid`."""
    page = page_of(method)
    if page is not None:
        return page.draw(to_pixels(shown, mean, std))
    return {
        name: pictures.grid(array, mean, std, **layout)
        if np.ndim(array) == 5
        else pictures.heat_map(array, f"{name}, step {step}")
        for name, array in shown.items()
    }


def compared(method: str, shown: dict[str, dict], mean, std) -> dict:
    """{title: picture} of what several runs of `method` showed of the same images. shown: {run: what it showed}."""
    return page_of(method).compare({run: to_pixels(arrays, mean, std) for run, arrays in shown.items()})


def save(method: str, views: dict, shown: dict, folder, step: int, mean, std) -> None:
    """The views of a batch, {group: (B, V, h, w, 3)}, and what the method showed: TITLE_STEP.png in `folder`."""
    folder = paths.resolve(folder)
    folder.mkdir(parents=True, exist_ok=True)
    views = {name: pictures.grid(images, mean, std) for name, images in views.items()}
    for name, picture in {**views, **drawn(method, shown, mean, std, step)}.items():
        paths.save_picture(picture, folder / f"{name}_{step:07d}.png")
