"""A few images to look at: from any folder, or held out from what a run was trained on. uint8 (n, S, S, 3)."""

import os
from collections.abc import Callable

import numpy as np

from jax_ssl.data.batch import Plan
from jax_ssl.data.decode import BrokenImage, decode
from jax_ssl.data.disk import read_bytes
from jax_ssl.data.folder import found_in
from jax_ssl.data.pipeline import centre, device_batches, recipes
from jax_ssl.data.source import in_memory
from jax_ssl.data.sources import open_source
from jax_ssl.errors import UserError
from jax_ssl.paths import resolve


def of_folder(folder: str, count: int, size: int, say: Callable[[str], None] = print) -> np.ndarray:
    """Square centres of `count` images of a folder, or of as many as it has; see `in_pairs` for which.

    say: called with a line for each image that can't be read, in whose place comes the next one.
    """
    root, names = names_in(folder)
    read = lambda number: decode(read_bytes(root, names[number]), names[number])
    return _square(read, np.arange(len(names)), count, size, 1.0, say)


def names_in(folder: str) -> tuple[str, list[str]]:
    """The folder as it is opened, and the names of its images, in any nesting. Raises UserError if there are none."""
    root = os.fspath(resolve(folder))
    if not resolve(folder).is_dir():
        raise UserError(f"There is no folder {folder}: give --images the folder that holds the images.")
    return root, found_in(root, folder).names


def of_source(name: str, directory: str, count: int, size: int, part: float, say=print) -> np.ndarray:
    """The same of a source's test images, or of its training images where it has no labels to hold any out by.

    part: of the short side that the centre keeps. name, directory: as in `open_source`.
    """
    source = open_source(name, "train", directory)
    if source.labels is not None:
        source = open_source(name, "test", directory)
    order = np.arange(source.count) if source.labels is None else np.argsort(source.labels, kind="stable")
    return _square(source.read, order, count, size, part, say)


def in_pairs(total: int, count: int) -> np.ndarray:
    """Which `count` of `total` images to show: neighbours, from evenly spread places; all, if there are not more.

    In an order by class, the two of a pair are of one class: alike enough to be compared.
    """
    if total <= count:
        return np.arange(total)
    pairs = -(-count // 2)
    starts = np.minimum(((np.arange(pairs) + 0.5) * total / pairs).astype(int), total - 2)
    return np.unique((starts[:, None] + np.arange(2)).ravel())[:count]


def _square(read, order: np.ndarray, count: int, size: int, part: float, say: Callable[[str], None]) -> np.ndarray:
    """`count` of the records in `order`; for one that can't be read, the next one that is not shown yet."""
    chosen, images = in_pairs(len(order), count).tolist(), []
    used = set(chosen)
    for place in chosen:
        while place is not None:
            try:
                images.append(centre(read(int(order[place])), size, part))
                break
            except BrokenImage as error:
                say(f"left out, as it can't be read: {error}")
            place = next((other for other in _from(place, len(order)) if other not in used), None)
            used.add(place)
    if not images:
        raise UserError(f"None of the {len(order)} images can be read: repair them, or give other ones.")
    return np.stack(images)


def _from(place: int, total: int):
    """The places after this one, then those before it."""
    return ((place + step) % total for step in range(1, total))


def raw_batch(config, images: np.ndarray) -> dict:
    """What the device needs to make views of these images, uint8 (n, S, S, 3), in their order: see `augment.prepare`.

    config: a run's; the random numbers are those of its first step.
    """
    plan = Plan(config.seed, len(images), len(images), len(images), 0, recipes(config))
    raw = next(device_batches(plan, in_memory("few", images, None), 0))
    order = np.argsort(raw["index"])
    groups = {name: {key: array[order] for key, array in raw[name].items()} for name in plan.crops}
    return {"index": raw["index"][order], **groups}
