"""From a config to batches. A batch is a pure function of (config, step), so no position in the data is ever saved.

Global sample number -> epoch and record (`order`) -> the random numbers of its views (`draws`) -> pixels.
`config.data.augment` says where pixels are made: on the device alone (without TensorFlow), or by tf.data in `stream`.
"""

import collections
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
from PIL import Image

from jax_ssl.data.about import plural
from jax_ssl.data.batch import FACTORS, GROUPS, Plan
from jax_ssl.data.broken import Broken
from jax_ssl.data.resident import with_images
from jax_ssl.data.source import Source
from jax_ssl.data.sources import open_source
from jax_ssl.errors import UserError
from jax_ssl.views.draws import boxes, check_crops, draws
from jax_ssl.views.sizes import Size, sides

MAX_ASPECT = 4  # longer side / shorter side; a longer image is cropped to this before it is resized


@dataclass(frozen=True)
class Spec:
    """Shape and dtype of an array, as jax.ShapeDtypeStruct: nothing in data/ imports jax."""

    shape: tuple[int, ...]
    dtype: np.dtype


class Data(NamedTuple):
    """The training images of a run, and their batches from any step on."""

    source: Source
    resident: np.ndarray | None  # uint8 (N, H, W, 3), all images, in mode `device`; else None
    batches: Callable[[int], Iterator[dict]]  # first step -> endless batches, this host's share, numpy
    example: dict  # Specs of the global batch
    broken: Broken  # unreadable records so far, {name: reason}


def open_data(
    config, process_index: int = 0, process_count: int = 1, log: Callable[[str], None] | None = None, progress=None
) -> Data:  # fmt: skip
    """The training images that the config names, and this host's share of their batches.

    log: called, from any thread, with a line per unreadable image. progress: `run.progress.Counter`, to show how many
    images are decoded where all of them are first; None shows nothing. Raises UserError for settings that can't be met.
    """
    crops = recipes(config)
    if config.batch_size < 1 or config.batch_size % process_count:
        raise UserError(f"batch_size is {config.batch_size}: it must be a multiple of the {process_count} hosts.")
    source = open_source(config.data.name, config.data.split, config.data.dir)
    if config.data.split != "train":
        trained = f"trained on its split {config.data.split}, {plural(source.count, 'image')}"
        source = source._replace(about=f"{source.about}; {trained}")
    share = config.batch_size // process_count
    plan = Plan(config.seed, source.count, config.batch_size, share, process_index * share, crops)
    broken = Broken(source.name, source.count, config.data.broken_limit, log)
    if config.data.augment == "device":
        if source.images is None:
            square = lambda image, size: centre_crop(image, size, 1.0)
            source = with_images(source, config.data.resident_size, config.data.workers, broken, square, progress)
        return Data(source, source.images, lambda first=0: _prefetch(device_batches(plan, source, first)),
                    example(config, source.images.shape), broken)  # fmt: skip
    from jax_ssl.data.stream import host_batches  # imports TensorFlow, which mode `device` does not need

    return Data(source, None, lambda first=0: host_batches(plan, source, broken, config.data, first),
                example(config), broken)  # fmt: skip


def device_batches(plan: Plan, source: Source, first: int) -> Iterator[dict]:
    """Batches without pixels, endless, from step `first`: {"index": int32 (B,), group: {"box", "flip", factors...}}."""
    height, width = source.images.shape[1:3]
    step = first
    while True:
        record, drawn = plan.step(step)
        groups = {name: _boxes_and_factors(numbers, height, width) for name, numbers in drawn.items()}
        yield {"index": record.astype(np.int32), **groups}
        step += 1


def _boxes_and_factors(drawn: dict, height: int, width: int) -> dict:
    """What the device needs of a group's draws: the boxes (see `boxes`), the flips, and FACTORS."""
    return {"box": boxes(drawn, height, width), "flip": drawn["flip"], **{name: drawn[name] for name in FACTORS}}


def recipes(config) -> dict[str, list[dict]]:
    """The groups of `config.data.crops` as plain dicts. Raises UserError where no pipeline can make them."""
    if config.data.augment not in ("host", "hybrid", "device"):
        raise UserError(f"data.augment is {config.data.augment!r}: choose 'host', 'hybrid' or 'device'.")
    crops = {name: [dict(recipe) for recipe in group] for name, group in config.data.crops.items()}
    if "views" not in crops or not set(crops) <= set(GROUPS):
        raise UserError(f"data.crops has the groups {sorted(crops)}: give 'views', and 'local' for small crops.")
    check_crops(crops)
    return crops


def example(config, resident: tuple[int, ...] | None = None) -> dict:
    """Specs of the global raw batch, without opening the data. resident: in mode `device`, the shape (N, H, W, 3)."""
    mode, batch, first = config.data.augment, config.batch_size, np.zeros(1, np.int64)
    specs = {"index": Spec((batch,), np.dtype(np.int32))} if mode == "device" else {}
    for name, group in recipes(config).items():
        drawn = draws(group, 0, first, first, GROUPS.index(name))  # the numbers of one image, for their shapes
        if mode == "device":
            shown = _boxes_and_factors(drawn, *resident[1:3])
        else:
            shown = {} if mode == "host" else {key: drawn[key] for key in FACTORS}
        specs[name] = {key: Spec((batch, *array.shape[1:]), array.dtype) for key, array in shown.items()}
        if mode != "device":
            views, size = drawn["flip"].shape[1], group[0]["size"]
            dtype = np.dtype(np.uint8 if mode == "hybrid" else np.float32)
            specs[name]["image"] = Spec((batch, views, size, size, 3), dtype)
    return specs


def _prefetch(batches: Iterator[dict], count: int = 2) -> Iterator[dict]:
    """The same batches, `count` of them made ahead in a thread. Errors are raised where the caller gets the batch."""
    pool = ThreadPoolExecutor(1, thread_name_prefix="batches")  # its thread ends when this generator is deleted
    waiting = collections.deque(pool.submit(next, batches) for _ in range(count))
    while True:
        batch = waiting.popleft().result()
        waiting.append(pool.submit(next, batches))
        yield batch


class ProbeSources(NamedTuple):
    """Where the images to measure on are. test: None where `train` has no labels. split, note: as in `Splits`."""

    train: Source
    test: Source | None
    split: str = "test"
    note: str = ""


def probe_sources(config) -> ProbeSources:
    """The sources of data.probe.name, or of the training set. Raises UserError if only test images lack labels."""
    name = config.data.probe.name or config.data.name
    train = open_source(name, "train", config.data.dir)
    if train.labels is None:
        return ProbeSources(train, None)
    test = open_source(name, "test", config.data.dir)
    if test.labels is None:
        raise UserError(f"The test images of {name} have no labels: name a labelled set in data.probe.name.")
    if name == config.data.name and config.data.split != "train":
        trained = open_source(name, config.data.split, config.data.dir)
        if trained.identity == test.identity:  # images that were trained on must not be test images
            note = (
                f"data.split={config.data.split} trains on the usual test images: kNN and linear probe learn from "
                "these, and are measured on the images of the split train"
            )
            return ProbeSources(test, train, "train", note)
    return ProbeSources(train, test)


def balanced_records(labels: np.ndarray, count: int) -> np.ndarray:
    """`count` records (0 = all), as equally from each class as possible: int64 (n,), ascending. labels: int (N,).

    Of each class the first ones are taken.
    """
    by_class = np.argsort(labels, kind="stable")
    sizes = np.bincount(labels)
    rank = np.empty(len(labels), np.int64)
    rank[by_class] = np.arange(len(labels)) - np.repeat(np.cumsum(sizes) - sizes, sizes)
    return np.sort(np.lexsort((labels, rank))[: count or None])


def centre_crop(image: Image.Image, size: Size, fraction: float) -> np.ndarray:
    """Resizes an RGB image until it covers size / fraction, and crops its centre: uint8 (height, width, 3) of `size`.

    For a square, that resizes the short side. The shape of what is seen in the image stays. A very long image is
    cropped first: one of 60 000 x 1 pixels would be resized to 12 GB.
    """
    wanted = sides(size)
    image = _without_ends(image, wanted)
    given = (image.height, image.width)
    # The side that has to grow most decides. Its product with the other is compared, which is exact.
    decides = 0 if wanted[0] * given[1] >= wanted[1] * given[0] else 1
    reached = round(wanted[decides] / fraction)
    height, width = (max(least, round(side * reached / given[decides])) for least, side in zip(wanted, given))
    if (height, width) != given:
        image = image.resize((width, height), Image.Resampling.BICUBIC)
    top, left = (height - wanted[0]) // 2, (width - wanted[1]) // 2
    return np.asarray(image.crop((left, top, left + wanted[1], top + wanted[0])))


def _without_ends(image: Image.Image, wanted: tuple[int, int]) -> Image.Image:
    """The middle of an image that is more than MAX_ASPECT times as long or as high as the wanted (height, width)."""
    height = min(image.height, max(1, round(MAX_ASPECT * image.width * wanted[0] / wanted[1])))
    width = min(image.width, max(1, round(MAX_ASPECT * image.height * wanted[1] / wanted[0])))
    if (height, width) == (image.height, image.width):
        return image
    left, top = (image.width - width) // 2, (image.height - height) // 2
    return image.crop((left, top, left + width, top + height))
