"""One set of images by record number, and how it is made of arrays, held out and cut down. No TensorFlow."""

import os
from collections.abc import Callable
from typing import NamedTuple

import numpy as np
from PIL import Image

from jax_ssl.data.about import About, digest, sentence
from jax_ssl.errors import UserError

QUIET = {"TF_CPP_MIN_LOG_LEVEL": "3", "TF_ENABLE_ONEDNN_OPTS": "0"}
SAMPLE = 64  # images of an array by which it is known again
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


def in_memory(
    name: str, images: np.ndarray, labels: np.ndarray | None, classes: int | None = None, class_names=()
) -> Source:
    """A source of an array. images: uint8 (N, H, W, 3). labels: integers (N,), none far above the others."""
    if labels is not None:
        labels = np.asarray(labels).astype(np.int32)
        classes = int(labels.max()) + 1 if classes is None else classes
    sample = images[np.unique(np.linspace(0, len(images) - 1, SAMPLE).astype(int))]
    return Source(
        name=name,
        count=len(images),
        labels=labels,
        classes=classes or 0,
        images=images,
        read=lambda record: Image.fromarray(images[record]),
        describe=lambda record: f"{name}[{record}]",
        class_names=tuple(class_names) if labels is not None else (),
        identity=digest(str(images.shape), sample, "no labels" if labels is None else labels),
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


def split_apart(source: Source, split: str, keys: np.ndarray | None = None, about: About | None = None) -> Source:
    """`train` or `test` of a source that has no test split of its own; see `hold_out`. keys: integers (count,).

    about: what else is to be said of it. Labels of which no two are alike measure nothing: they are left out.
    """
    about = about or About(source.name)
    if split not in ("train", "test"):
        raise UserError(f"{source.name} has no split {split!r}: choose 'train' or 'test'.")
    # Knuth's multiplicative hash of the number, where records have no names.
    keys = np.arange(source.count, dtype=np.uint64) * np.uint64(0x9E3779B97F4A7C15) if keys is None else keys
    held = hold_out(source.labels, keys) if source.labels is not None else np.zeros(source.count, bool)
    if source.labels is not None and not held.any():
        about = about._replace(notes=(*about.notes, "no labels, as each class has one image"))
        source = source._replace(labels=None, classes=0, class_names=())
    if source.labels is None:
        why = f" ({'; '.join(about.notes)})" if about.notes else ""
        if split == "test":
            told = f"{source.name} has no labels and no test split{why}"
            raise UserError(f"{told}: name a labelled set in data.probe.name.")
        return source._replace(about=sentence(about, source.count, 0, None))
    present = len(np.unique(source.labels))
    text = sentence(about, int((~held).sum()), present, int(held.sum()), ", held out of each class")
    return subset(source, np.flatnonzero(held if split == "test" else ~held))._replace(about=text)


def subset(source: Source, records: np.ndarray) -> Source:
    """The given records of a source, renumbered from 0. records: integers (n,)."""
    return source._replace(
        identity=digest(source.identity, np.asarray(records, np.int64)),
        count=len(records),
        labels=None if source.labels is None else source.labels[records],
        images=None if source.images is None else source.images[records],
        read=lambda record: source.read(int(records[record])),
        describe=lambda record: source.describe(int(records[record])),
    )
