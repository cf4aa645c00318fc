"""Selects a few images to draw pictures of, from a folder or from a source's test images: uint8 (n, H, W, 3)."""

import os
from collections.abc import Callable

import numpy as np

from jax_ssl.data.batch import Plan
from jax_ssl.data.decode import BrokenImage, decode
from jax_ssl.data.disk import read_bytes
from jax_ssl.data.folder import find_images
from jax_ssl.data.pipeline import centre_crop, device_batches, recipes
from jax_ssl.data.source import in_memory
from jax_ssl.data.sources import open_source
from jax_ssl.errors import UserError
from jax_ssl.paths import resolve
from jax_ssl.views.sizes import Size


def from_folder(folder: str, count: int, size: Size, say: Callable[[str], None] = print) -> np.ndarray:
    """Centre crops of `count` images of a folder, or of all if it has fewer: uint8 (n, H, W, 3) of `size`.

    `spread_pairs` says which. say: called with a line for each image that can't be read; the next one replaces it.
    Raises UserError where no image is or none can be read.
    """
    root, names = names_in(folder)
    read = lambda number: decode(read_bytes(root, names[number]), names[number])
    return _centre_crops(read, np.arange(len(names)), count, size, 1.0, say)


def names_in(folder: str) -> tuple[str, list[str]]:
    """The absolute path of a folder, and the names of all images below it. Raises UserError if there are none."""
    root = os.fspath(resolve(folder))
    if not resolve(folder).is_dir():
        raise UserError(f"There is no folder {folder}: give --images the folder that holds the images.")
    return root, find_images(root, folder).names


def from_source(name: str, directory: str, count: int, size: Size, fraction: float, say=print) -> np.ndarray:
    """Centre crops of a source's test images, or of its training images where it has no labels; as `from_folder`.

    fraction: of the short side that the crop keeps. name, directory: as in `open_source`.
    """
    source = open_source(name, "train", directory)
    if source.labels is not None:
        source = open_source(name, "test", directory)
    order = np.arange(source.count) if source.labels is None else np.argsort(source.labels, kind="stable")
    return _centre_crops(source.read, order, count, size, fraction, say)


def spread_pairs(total: int, count: int) -> np.ndarray:
    """The numbers of `count` of `total` images: pairs of neighbours at equal distances; all if there are not more.

    If the images are sorted by class, a pair mostly has one class, so that its two images can be compared.
    """
    if total <= count:
        return np.arange(total)
    pairs = -(-count // 2)
    starts = np.minimum(((np.arange(pairs) + 0.5) * total / pairs).astype(int), total - 2)
    return np.unique((starts[:, None] + np.arange(2)).ravel())[:count]


def _centre_crops(
    read, order: np.ndarray, count: int, size: Size, fraction: float, say: Callable[[str], None]
) -> np.ndarray:
    """Centre crops of `count` of the records in `order`; an unreadable one is replaced by the next unused one."""
    chosen, images = spread_pairs(len(order), count).tolist(), []
    used = set(chosen)
    for place in chosen:
        while place is not None:
            try:
                images.append(centre_crop(read(int(order[place])), size, fraction))
                break
            except BrokenImage as error:
                say(f"left out, as it can't be read: {error}")
            place = next((other for other in _following(place, len(order)) if other not in used), None)
            used.add(place)
    if not images:
        raise UserError(f"None of the {len(order)} images can be read: repair them, or choose other images.")
    return np.stack(images)


def _following(place: int, total: int):
    """The places after this one, then those before it, up to `total`."""
    return ((place + step) % total for step in range(1, total))


def raw_batch(config, images: np.ndarray) -> dict:
    """The raw batch from which `views.device.prepare` makes views of these images, in their order.

    images: uint8 (n, S, S, 3), the resident images of `prepare`. config: a run's; the random numbers are those of its
    first step.
    """
    plan = Plan(config.seed, len(images), len(images), len(images), 0, recipes(config))
    raw = next(device_batches(plan, in_memory("selection", images, None), 0))
    order = np.argsort(raw["index"])
    groups = {name: {key: array[order] for key, array in raw[name].items()} for name in plan.crops}
    return {"index": raw["index"][order], **groups}
