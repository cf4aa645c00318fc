"""A few images to look at: from any folder, or held out from what a run was trained on. uint8 (n, S, S, 3)."""

import os

import numpy as np

from jax_ssl.data.decode import BrokenImage, decode
from jax_ssl.data.folder import image_names
from jax_ssl.data.pipeline import Plan, centre, device_batches, recipes
from jax_ssl.data.sources import in_memory, open_source
from jax_ssl.errors import UserError
from jax_ssl.paths import resolve


def of_folder(folder: str, count: int, size: int) -> np.ndarray:
    """Square centres of `count` images of a folder, or of as many as it has; see `in_pairs` for which."""
    root, names = resolve(folder), names_in(folder)
    read = lambda number: decode((root / names[number]).read_bytes(), names[number])
    return _square(read, in_pairs(len(names), count), size, 1.0)


def names_in(folder: str) -> list[str]:
    """The names of the images of a folder, in any nesting. Raises UserError where there are none."""
    root = resolve(folder)
    if not root.is_dir():
        raise UserError(f"There is no folder {folder}: give --images the folder that holds the images.")
    names = image_names(os.fspath(root))
    if not names:
        raise UserError(f"{folder} holds no images: put jpeg, png, webp, bmp or gif files there, in folders or not.")
    return names


def of_source(name: str, directory: str, count: int, size: int, part: float) -> np.ndarray:
    """The same of a source's test images, or of its training images where it has no labels to hold any out by.

    part: of the short side that the centre keeps. name, directory: as in `open_source`.
    """
    source = open_source(name, "train", directory)
    if source.labels is not None:
        source = open_source(name, "test", directory)
    order = np.arange(source.count) if source.labels is None else np.argsort(source.labels, kind="stable")
    return _square(source.read, order[in_pairs(source.count, count)], size, part)


def in_pairs(total: int, count: int) -> np.ndarray:
    """Which `count` of `total` images to show: neighbours, from evenly spread places; all, if there are not more.

    In an order by class, the two of a pair are of one class: alike enough to be compared.
    """
    if total <= count:
        return np.arange(total)
    pairs = -(-count // 2)
    starts = np.minimum(((np.arange(pairs) + 0.5) * total / pairs).astype(int), total - 2)
    return np.unique((starts[:, None] + np.arange(2)).ravel())[:count]


def _square(read, records, size: int, part: float) -> np.ndarray:
    try:
        return np.stack([centre(read(int(record)), size, part) for record in records])
    except BrokenImage as error:
        raise UserError(f"An image can't be drawn: {error}. Repair it, or take it out of the folder.") from error


def raw_batch(config, images: np.ndarray) -> dict:
    """What the device needs to make views of these images, uint8 (n, S, S, 3), in their order: see `augment.prepare`.

    config: a run's; the random numbers are those of its first step.
    """
    plan = Plan(config.seed, len(images), len(images), len(images), 0, recipes(config))
    raw = next(device_batches(plan, in_memory("few", images, None), 0))
    order = np.argsort(raw["index"])
    groups = {name: {key: array[order] for key, array in raw[name].items()} for name in plan.crops}
    return {"index": raw["index"][order], **groups}
