"""Sets of tensorflow-datasets by record number: their prepared files are read here, their own readers only run in sequence.

A TFRecord file is scanned once: the place of every image and every label go into the cache, and from then on a record
is one read. Neither the scan nor the reading decodes an image or loads TensorFlow. Small sets of one image size (CIFAR,
MNIST) are decoded as a whole and stay in memory.
"""

import functools
import mmap
import os
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import NamedTuple

import numpy as np
from etils import epath

from jax_ssl.data import cache, example
from jax_ssl.data.decode import decode
from jax_ssl.data.sources import Source, in_memory, split_apart
from jax_ssl.errors import UserError

IN_MEMORY = 2_000_000_000  # bytes, decoded
SCANNERS = 16  # files scanned at once, because a bucket takes its time


class Index(NamedTuple):
    """Where the images of a split are, in the order of its files."""

    shard: np.ndarray  # int32 (N,), which file
    start: np.ndarray  # int64 (N,), first byte of the encoded image; in array_record files the number of the record
    size: np.ndarray  # int64 (N,), bytes
    label: np.ndarray  # int32 (N,), -1 where there is none


def open_tfds(name: str, split: str, directory: str = "") -> Source:
    """A split of a prepared set. directory: where sets are prepared, "" = ~/tensorflow_datasets.

    Where `test` is missing or has no labels, `validation` is taken; where both are, a tenth of `train`.
    """
    info = _prepared(name, directory).info
    image, label = _features(name, info)
    wanted = ("test", "validation") if split == "test" else (split,)
    for candidate in wanted:
        if candidate in info.splits:
            source = _open_split(name, info, candidate, image, label)
            if split != "test" or source.labels is not None:
                break
    else:
        source = None
    if source is not None and split != "train":
        return source
    if split not in ("train", "test") or "train" not in info.splits:
        raise UserError(f"tfds:{name} has no split {split!r}: it has {', '.join(sorted(info.splits))}.")
    return source if _has_test(info) else split_apart(_open_split(name, info, "train", image, label), split)
