"""`Source`: a set of images by record number; made from arrays, split into train and test, or cut to a subset.

No TensorFlow.
"""

import os
from collections.abc import Callable
from typing import NamedTuple

import numpy as np
from PIL import Image

from jax_ssl.data.about import About, digest, source_line
from jax_ssl.errors import UserError

QUIET = {"TF_CPP_MIN_LOG_LEVEL": "3", "TF_ENABLE_ONEDNN_OPTS": "0"}
SAMPLE = 64  # images of an array that go into its identity
TEST_SHARE = 0.1  # of each class, where a labelled source has no test split of its own

# TensorFlow reads these when it is imported, which happens later if at all. They silence its start-up messages.
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
    about: str = ""  # one line for the log: what was found, and what of it is not used
    class_names: tuple[str, ...] = ()  # class_names[label], where names are known
    identity: str = ""  # a digest of the records and their order: another digest is another data set


def in_memory(
    name: str, images: np.ndarray, labels: np.ndarray | None, classes: int | None = None, class_names=()
) -> Source:
    """The source of an array.

    images: uint8 (N, H, W, 3). labels: integers (N,), without large gaps. classes: how many, by default the largest
    label plus one.
    """
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


def held_out_mask(labels: np.ndarray, keys: np.ndarray) -> np.ndarray:
    """Which records of a labelled source are its test split, a tenth of each class with the lowest keys: bool (N,).

    Each class gives at least one image, unless it has only one. labels: integers (N,). keys: integers (N,) that depend
    on the record alone, so that every run holds out the same images.
    """
    held = np.zeros(len(labels), bool)
    by_class_and_key = np.lexsort((keys, labels))
    for members in np.split(by_class_and_key, np.flatnonzero(np.diff(labels[by_class_and_key])) + 1):
        if len(members) > 1:
            held[members[: max(1, round(TEST_SHARE * len(members)))]] = True
    return held


def train_or_test(source: Source, split: str, keys: np.ndarray | None = None, about: About | None = None) -> Source:
    """The split `train` or `test` of a source that has no test split of its own; see `held_out_mask`.

    keys: integers (count,), by default a hash of the record number. about: more for the line `Source.about`. If every
    class has only one image, the labels are dropped: no image is left to test on. Raises UserError for another split,
    and for `test` without labels.
    """
    about = about or About(source.name)
    if split not in ("train", "test"):
        raise UserError(f"{source.name} has no split {split!r}: choose 'train' or 'test'.")
    # Knuth's multiplicative hash of the record number.
    keys = np.arange(source.count, dtype=np.uint64) * np.uint64(0x9E3779B97F4A7C15) if keys is None else keys
    held = held_out_mask(source.labels, keys) if source.labels is not None else np.zeros(source.count, bool)
    if source.labels is not None and not held.any():
        about = about._replace(notes=(*about.notes, "no labels, as each class has one image"))
        source = source._replace(labels=None, classes=0, class_names=())
    if source.labels is None:
        why = f" ({'; '.join(about.notes)})" if about.notes else ""
        if split == "test":
            raise UserError(
                f"{source.name} has no labels and no test split{why}: name a labelled set in data.probe.name."
            )
        return source._replace(about=source_line(about, source.count, 0, None))
    present = len(np.unique(source.labels))
    text = source_line(about, int((~held).sum()), present, int(held.sum()), ", held out of each class")
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
