"""Prepared sets of tensorflow-datasets, read by record number; their own reader can only go through them in order.

The files of a split are scanned once. The byte offset of every image and every label go into the cache; from then on a
record is one read. Neither the scan nor the reads import TensorFlow. Small sets of one image size (CIFAR, MNIST) are
decoded as a whole and stay in memory.
"""

import difflib
import errno
import json
import math
import mmap
import os
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import NamedTuple

import numpy as np
import tensorflow_datasets as tfds
from absl import logging
from etils import epath
from PIL import Image

from jax_ssl.data import cache, example
from jax_ssl.data.about import About, digest, source_line
from jax_ssl.data.decode import BrokenImage, decode
from jax_ssl.data.disk import is_permanent, retry
from jax_ssl.data.source import Source, in_memory, train_or_test
from jax_ssl.errors import UserError
from jax_ssl.paths import resolve

IN_MEMORY = 2_000_000_000  # bytes; decoded sets up to this size stay in memory
TESTS = ("test", "validation")  # the first that has labels is the test split; ImageNet's `test` has none
THREADS = 16  # files scanned at once, because a bucket answers slowly
CHUNK = 1000  # records that are read or decoded as one task


class Index(NamedTuple):
    """The records of a split, in the order of its files."""

    shard: np.ndarray  # int32 (N,), number of the file
    start: np.ndarray  # int64 (N,), first byte of the encoded image; for array_record always 0
    size: np.ndarray  # int64 (N,), bytes of the encoded image
    label: np.ndarray  # int32 (N,), -1 where there is none


class Split(NamedTuple):
    """One split of a prepared set, and the names of the features that are read."""

    name: str
    files: list[epath.Path]
    array_record: bool  # or TFRecord
    image: str  # name of the feature
    label: str  # name of the feature, "" without labels
    shape: tuple[int | None, ...]  # of the images, None where sizes differ
    classes: int
    class_names: tuple[str, ...]
    count: int  # of images


def open_tfds(name: str, split: str, directory: str = "") -> Source:
    """A split of a prepared set. directory: where sets are prepared, "" = ~/tensorflow_datasets.

    `test` is the set's own split; or `validation` where `test` is missing or has no labels; or else a tenth of `train`.
    Raises UserError where the set is unknown, not prepared, damaged, or has no images or no such split.
    """
    info = _prepared_info(name, directory)
    splits = {part: _describe_split(name, info, part) for part in info.splits}
    test = next((part for part in TESTS if part in splits and _first_label(splits[part]) >= 0), None)
    left = tuple(f"split {part}" for part in sorted(splits) if part not in ("train", test))
    about = About(f"tfds:{name}", "", test if test not in (None, "test") else "", (), left)
    if split not in splits and (split not in ("train", "test") or "train" not in splits):
        raise UserError(f"tfds:{name} has no split {split!r}: choose one of {', '.join(sorted(splits))}.")
    if split in ("train", "test") and not test and "train" in splits:
        return train_or_test(_open(splits["train"]), split, about=about)
    source, train = _open(splits[test if split == "test" and test else split]), splits.get("train")
    shown = (train.count, train.classes, splits[test].count) if train and test else (source.count, source.classes, None)
    return source._replace(about=source_line(about, *shown))


def _prepared_info(name: str, directory: str):
    """The DatasetInfo of a prepared set. Nothing is downloaded. Raises UserError where it is not prepared."""
    where = os.fspath(resolve(directory)) if directory else None
    verbosity = logging.get_verbosity()
    logging.set_verbosity(logging.ERROR)  # its warning about a missing folder would repeat the error below
    try:
        builder = retry(lambda: tfds.builder(name, data_dir=where), f"tfds:{name}", is_permanent)
    except (ValueError, ImportError, OSError) as error:  # DatasetNotFoundError is a ValueError and lists all names
        near = difflib.get_close_matches(name, tfds.list_builders(with_community_datasets=False), n=1)
        hint = f"did you mean tfds:{near[0]}?" if near else "see tensorflow.org/datasets/catalog."
        raise UserError(f"tensorflow-datasets can't open {name!r} ({str(error).splitlines()[0]}): {hint}") from error
    finally:
        logging.set_verbosity(verbosity)
    if not builder.info.splits:
        where = directory or os.fspath(epath.Path(builder.data_dir).parents[1])
        raise UserError(
            f"tfds:{name} is not prepared in {where}: set data.dir to where it is, or prepare it there with python -c "
            f"\"import tensorflow_datasets as t; t.builder('{name}', data_dir='{where}').download_and_prepare()\""
        )
    return builder.info


def _describe_split(name: str, info, split: str) -> Split:
    """The files of a split, and its image and label features."""
    kind = info.file_format.value
    if kind not in ("tfrecord", "array_record"):
        raise UserError(f"tfds:{name} is prepared as {kind}: prepare it as tfrecord or array_record.")
    features = dict(info.features.items())
    images = [key for key, feature in features.items() if isinstance(feature, tfds.features.Image)]
    labels = [key for key, feature in features.items() if isinstance(feature, tfds.features.ClassLabel)]
    named = tuple(key for key in info.supervised_keys or () if isinstance(key, str))
    image = next((key for key in (*named, "image", *images) if key in images), None)
    label = next((key for key in (*named, "label", *labels) if key in labels), "")
    if image is None or features[image].np_dtype not in (np.uint8, np.uint16):
        raise UserError(f"tfds:{name} has no image feature of whole numbers: it has {', '.join(sorted(features))}.")
    return Split(
        name=f"tfds:{name}/{split}",
        files=[epath.Path(file) for file in info.splits[split].filepaths],
        array_record=kind == "array_record",
        image=image,
        label=label,
        shape=tuple(features[image].shape),
        classes=features[label].num_classes if label else 0,
        class_names=tuple(features[label].names or ()) if label else (),
        count=info.splits[split].num_examples,
    )


def _open(split: Split) -> Source:
    """The source of a split: in memory if it is small and of one image size, else read by record."""
    index, key = _index(split)
    count = len(index.start)
    if not count:
        raise UserError(f"{split.name} holds no images: prepare it again.")
    labels = index.label if split.label and (index.label >= 0).all() else None
    source = Source(
        name=split.name,
        count=count,
        labels=labels,
        classes=split.classes if labels is not None else 0,
        images=None,
        read=_reader(split, index, _from_file),
        describe=lambda record: f"{split.name}[{record}]",
        class_names=split.class_names if labels is not None else (),
        identity=digest(split.name, index.shard, index.start, index.size, index.label),
    )
    if None in split.shape or count * math.prod(split.shape[:2]) * 3 > IN_MEMORY:
        return source
    images = cache.load_or_make(f"images of {key}", lambda: _all_images(split, index))
    if images is None:
        return source
    whole = in_memory(split.name, images, labels, source.classes, source.class_names)
    return whole._replace(identity=source.identity)


def _all_images(split: Split, index: Index) -> np.ndarray | None:
    """Every image, decoded: uint8 (N, H, W, 3). None if one is broken or has another size."""
    contents = {} if split.array_record else {file: retry(file.read_bytes, str(file)) for file in split.files}
    read = _reader(split, index, lambda file, start, size: contents[file][start : start + size])
    images = np.empty((len(index.start), *split.shape[:2], 3), np.uint8)

    def fill(first):
        for record in range(first, min(first + CHUNK, len(images))):
            images[record] = read(record)

    try:
        with ThreadPoolExecutor() as pool:
            list(pool.map(fill, range(0, len(images), CHUNK)))
    except (BrokenImage, ValueError):  # ValueError: NumPy's, for an image of another size
        return None
    return images


def _reader(split: Split, index: Index, fetch: Callable) -> Callable[[int], Image.Image]:
    """-> function: record -> RGB image. fetch: file, first byte, bytes -> the encoded image."""
    if split.array_record:
        opened = {}

        def encoded(record):
            try:
                records = opened.get("records") or opened.setdefault("records", _array_records(split.files))
                data = records[record]
            except RuntimeError as error:  # array_record raises this for the errors of the system
                opened.clear()  # a reader that failed once fails always
                raise OSError(errno.EIO, str(error)) from error
            start, end, _ = example.image_and_label(data, 0, len(data), split.image.encode(), split.label.encode())
            return data[start:end]
    else:

        def encoded(record):
            return fetch(split.files[index.shard[record]], int(index.start[record]), int(index.size[record]))

    def read(record: int) -> Image.Image:
        name = f"{split.name}[{record}]"
        try:
            data = retry(
                lambda: encoded(record), name
            )  # waits also when the file is gone, as it holds thousands of images
        except example.DAMAGED as error:
            raise BrokenImage(name, f"its record is damaged: {error}") from error
        return decode(data, name)

    return read


def _from_file(file: epath.Path, start: int, size: int) -> bytes:
    with file.open("rb") as opened:
        opened.seek(start)
        return opened.read(size)


def _array_records(files: list[epath.Path]):
    """The records of array_record files, by number."""
    from array_record.python.array_record_data_source import ArrayRecordDataSource  # not on every platform

    return ArrayRecordDataSource([os.fspath(file) for file in files])


def _first_label(split: Split) -> int:
    """The label of the first record, -1 without one: then the split has no labels."""
    if not split.label or not split.files:
        return -1
    try:
        data, start = _read_at_start(lambda: _first_record(split), split.files[0])
        return example.image_and_label(data, start, len(data), split.image.encode(), split.label.encode())[2]
    except example.DAMAGED as error:
        raise _damage_error(split.files[0], error) from error


def _first_record(split: Split) -> tuple[bytes, int]:
    """The bytes of the first file up to the end of its first record, and the offset of that record."""
    if split.array_record:
        return _array_records(split.files[:1])[0], 0
    with split.files[0].open("rb") as file:
        head = file.read(example.HEADER.size)
        return head + file.read(example.HEADER.unpack(head)[0]), len(head)


def _read_at_start(action: Callable, file: epath.Path):
    """What action() reads of a file when a set is opened, with `retry`. Raises UserError if the file is missing."""
    try:
        return retry(action, str(file), is_permanent)
    except FileNotFoundError as error:
        raise UserError(f"{file} is missing: prepare the set again, or set data.dir to where it is.") from error


def _index(split: Split) -> tuple[Index, str]:
    """The index of a split, and its cache key: files, sizes, times. It comes from the cache, or else from a scan."""
    with ThreadPoolExecutor(THREADS) as pool:
        status = pool.map(lambda file: _read_at_start(file.stat, file), split.files)
        stamp = [[os.fspath(file), one.length, one.mtime] for file, one in zip(split.files, status, strict=True)]
        key = f"tfds {split.name} {split.image} {split.label} {json.dumps(stamp)}"
        entry = cache.load(key)
        if entry is not None:
            return Index(**entry), key
        scan = lambda number: _read_at_start(lambda: _scan(split, number), split.files[number])
        found = list(pool.map(scan, range(len(split.files))))
    rows = np.concatenate([np.array(rows, np.int64).reshape(-1, 4) for rows in found] or [np.zeros((0, 4), np.int64)])
    index = Index(rows[:, 0].astype(np.int32), rows[:, 1], rows[:, 2], rows[:, 3].astype(np.int32))
    cache.save(key, **index._asdict())
    return index, key


def _scan(split: Split, shard: int) -> list[tuple[int, int, int, int]]:
    """The rows of the index for one file. On a disk it is memory-mapped, so that only the pages of headers are read."""
    file, names = split.files[shard], (split.image.encode(), split.label.encode())
    try:
        if split.array_record:
            source = _array_records([file])
            numbers = np.split(np.arange(len(source)), range(CHUNK, len(source), CHUNK))
            parts = (source.__getitems__(part.tolist()) for part in numbers)
            found = [example.image_and_label(data, 0, len(data), *names) for part in parts for data in part]
            return [(shard, 0, end - start, label) for start, end, label in found]
        data = file.read_bytes() if "://" in os.fspath(file) else _map_file(file)
        found = [example.image_and_label(data, *place, *names) for place in example.records(data)]
        return [(shard, start, end - start, label) for start, end, label in found]
    except example.DAMAGED as error:
        raise _damage_error(file, error) from error


def _map_file(file: epath.Path):
    if not file.stat().length:
        return b""  # an empty file can't be mapped
    with file.open("rb") as opened:
        return mmap.mmap(opened.fileno(), 0, access=mmap.ACCESS_READ)


def _damage_error(file: epath.Path, error: Exception) -> UserError:
    return UserError(f"{file} is damaged ({error}): prepare the set again.")
