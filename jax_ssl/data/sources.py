"""Where images come from: one `Source`, addressed by record number, whatever lies behind it. No TensorFlow."""

import difflib
import io
import os
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple

import numpy as np
from PIL import Image

from jax_ssl import paths
from jax_ssl.errors import UserError

KINDS = {
    "embedded": "embedded",
    "tfds": "tfds:NAME",
    "folder": "folder:PATH",
    "arrays": "arrays:FILE.npz",
    "synthetic": "synthetic or synthetic:SIZE",
}
EMBEDDED = Path(__file__).parent / "embedded"
QUIET = {"TF_CPP_MIN_LOG_LEVEL": "3", "TF_ENABLE_ONEDNN_OPTS": "0"}
HELD_OUT = 0.1  # of a labelled source that has no test split of its own

# Read while TensorFlow is loaded, which only some sources and pipelines do, later: none of its start-up noise.
for _name, _value in QUIET.items():
    os.environ.setdefault(_name, _value)


class Source(NamedTuple):
    """Images by record number 0 ... count - 1."""

    name: str
    count: int
    labels: np.ndarray | None  # int32 (count,)
    classes: int  # 0 without labels
    images: np.ndarray | None  # uint8 (count, H, W, 3) when all of them are in memory
    read: Callable[[int], Image.Image]  # record -> RGB image; raises BrokenImage
    describe: Callable[[int], str]  # record -> what the log calls it, such as a file name
    about: str = ""  # one line: what was understood of the place that the user named, and what of it is left out
    class_names: tuple[str, ...] = ()  # where they are known; their places are the labels
    identity: str = ""  # a digest of what the records are and in which order: another one is another data set


def open_source(name: str, split: str, directory: str = "") -> Source:
    """The split `train` or `test` (or another that the source has by name) of what `name` says; see `KINDS`.

    directory: where tensorflow-datasets are prepared; "" is its own default. A labelled folder, TFDS set or array file
    that has no test split gives a tenth of each class, always the same, to `test`.
    """
    kind, _, rest = name.partition(":")
    if kind not in KINDS:
        near = difflib.get_close_matches(kind, KINDS, n=1)
        hint = f"did you mean {KINDS[near[0]]!r}?" if near else f"choose one of {', '.join(KINDS.values())}."
        raise UserError(f"data.name is {name!r}, which is no kind of source: {hint}")
    if kind in ("tfds", "folder", "arrays") and not rest:
        raise UserError(f"data.name is {name!r}: say which, as {KINDS[kind]}.")
    # These two import this module, and most runs need neither.
    if kind == "tfds":
        from jax_ssl.data.tfds import open_tfds

        return open_tfds(rest, split, directory)
    if kind == "folder":
        from jax_ssl.data.folder import open_folder

        return open_folder(rest, split)
    if kind == "arrays":
        return _arrays(rest, split)
    return _embedded(split) if kind == "embedded" else _synthetic(rest, split)


def in_memory(name: str, images: np.ndarray, labels: np.ndarray | None, classes: int | None = None) -> Source:
    """A source of an array. images: uint8 (N, H, W, 3). labels: integers (N,) or None."""
    if labels is not None:
        labels = np.asarray(labels).astype(np.int32)
        classes = int(labels.max()) + 1 if classes is None else classes
    return Source(
        name=name,
        count=len(images),
        labels=labels,
        classes=classes or 0,
        images=images,
        read=lambda record: Image.fromarray(images[record]),
        describe=lambda record: f"{name}[{record}]",
    )


def hold_out(labels: np.ndarray, keys: np.ndarray) -> np.ndarray:
    """Which records of a labelled source are its test split: bool (N,), the tenth of each class with the lowest keys.

    A class gives at least one image, unless it has only one. keys: integers (N,) that depend on the record alone.
    """
    held = np.zeros(len(labels), bool)
    by_class_and_key = np.lexsort((keys, labels))
    for members in np.split(by_class_and_key, np.flatnonzero(np.diff(labels[by_class_and_key])) + 1):
        if len(members) > 1:
            held[members[: max(1, round(HELD_OUT * len(members)))]] = True
    return held


def _embedded(split: str) -> Source:
    """500 training and 100 test images of each class of CIFAR-10, which come with the package; see its NOTICE."""
    if split not in ("train", "test"):
        raise UserError(f"The embedded images have no split {split!r}: choose 'train' or 'test'.")
    strips = sorted(EMBEDDED.glob(f"{split}_*.webp"))
    images = np.concatenate([np.array(Image.open(strip).convert("RGB")).reshape(-1, 32, 32, 3) for strip in strips])
    with np.load(EMBEDDED / "labels.npz", allow_pickle=False) as labels:
        return in_memory("embedded", images, labels[split], 10)


def _synthetic(size: str, split: str) -> Source:
    """Noise around one colour a class: ten classes, 1 000 training and 200 test images of 32 pixels or `size`."""
    if size and not (size.isdecimal() and int(size) > 0):
        raise UserError(f"data.name is 'synthetic:{size}': the size is a whole number of pixels, as in synthetic:32.")
    if split not in ("train", "test"):
        raise UserError(f"The synthetic images have no split {split!r}: choose 'train' or 'test'.")
    side, count = int(size or 32), {"train": 1000, "test": 200}[split]
    colours = np.random.RandomState(0).uniform(40, 215, (10, 3))
    random = np.random.RandomState(1 if split == "train" else 2)
    labels = np.arange(count) % 10
    noise = random.standard_normal((count, side, side, 3)).astype(np.float32) * 40
    images = np.clip(colours[labels][:, None, None].astype(np.float32) + noise, 0, 255).astype(np.uint8)
    return in_memory("synthetic", images, labels, 10)


def _arrays(file: str, split: str) -> Source:
    """A NumPy file with x_train [y_train x_test y_test], or with images [labels]."""
    arrays = _load_arrays(file)
    keys = sorted(arrays)
    if "images" in keys:
        return split_apart(_from_arrays(file, arrays, "images", "labels"), split)
    if "x_train" not in keys:
        raise UserError(f"{file} holds {keys}: name its arrays x_train, y_train, x_test, y_test, or images and labels.")
    if split == "test" and "x_test" not in keys:
        return split_apart(_from_arrays(file, arrays, "x_train", "y_train"), split)
    if f"x_{split}" not in keys:
        raise UserError(f"{file} has no split {split!r}: it holds {keys}.")
    source = _from_arrays(file, arrays, f"x_{split}", f"y_{split}")
    return source if split != "train" or "x_test" in keys else split_apart(source, split)


def _load_arrays(file: str) -> dict[str, np.ndarray]:
    path = paths.resolve(file)
    if not path.exists():
        raise UserError(f"There is no file {file}: give arrays:FILE.npz with x_train, y_train, x_test, y_test.")
    try:
        with np.load(io.BytesIO(path.read_bytes()), allow_pickle=False) as archive:
            return {key: archive[key] for key in archive.files}
    except (ValueError, OSError, EOFError, AttributeError, TypeError, zipfile.BadZipFile) as error:
        raise UserError(f"{file} can't be read as a NumPy .npz file of plain arrays: {error}") from error


def _from_arrays(file: str, arrays: dict[str, np.ndarray], image_key: str, label_key: str) -> Source:
    images, labels = arrays[image_key], arrays.get(label_key)
    if images.ndim == 3:
        images = images[..., None]
    if images.dtype != np.uint8 or images.ndim != 4 or images.shape[-1] not in (1, 3) or not len(images):
        found = f"{images.dtype} {images.shape}"
        raise UserError(f"{file}: {image_key} is {found}: save it as uint8 (images, height, width, 3), one or more.")
    if images.shape[-1] == 1:
        images = np.repeat(images, 3, axis=-1)
    if labels is not None:
        labels = labels.reshape(-1)
        if len(labels) != len(images) or labels.dtype.kind not in "iu" or labels.min() < 0:
            raise UserError(f"{file}: {label_key} must hold a whole number from 0 on for each of {len(images)} images.")
    return in_memory(paths.resolve(file).name, images, labels)


def split_apart(source: Source, split: str, keys: np.ndarray | None = None) -> Source:
    """`train` or `test` of a source that has no test split of its own; see `hold_out`. keys: integers (count,)."""
    if split not in ("train", "test"):
        raise UserError(f"{source.name} has no split {split!r}: choose 'train' or 'test'.")
    if source.labels is None:
        if split == "test":
            raise UserError(f"{source.name} has no labels and no test split: name a labelled set in data.probe.name.")
        return source
    # Knuth's multiplicative hash of the number, where records have no names.
    keys = np.arange(source.count, dtype=np.uint64) * np.uint64(0x9E3779B97F4A7C15) if keys is None else keys
    held = hold_out(source.labels, keys)
    return subset(source, np.flatnonzero(held if split == "test" else ~held))


def subset(source: Source, records: np.ndarray) -> Source:
    """The given records of a source, renumbered from 0. records: integers (n,)."""
    return source._replace(
        count=len(records),
        labels=None if source.labels is None else source.labels[records],
        images=None if source.images is None else source.images[records],
        read=lambda record: source.read(int(records[record])),
        describe=lambda record: source.describe(int(records[record])),
    )
