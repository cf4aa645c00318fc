"""A split of a data set at evaluation size, whose images are read when they are asked for: sets of any size.

Memory holds the batch that is used and AHEAD batches that are read meanwhile. An image that can't be read is counted by
`Broken`, as everywhere, and whoever notes it in `left_out` leaves it out. No jax, no TensorFlow.
"""

import collections
import functools
import os
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import NamedTuple

import numpy as np

from jax_ssl.data.about import digest
from jax_ssl.data.broken import Broken
from jax_ssl.data.decode import BrokenImage
from jax_ssl.data.pipeline import ProbeSources, balanced_records, centre_crop, probe_sources
from jax_ssl.data.source import Source, subset
from jax_ssl.errors import UserError
from jax_ssl.views.sizes import Size, sides, written

AHEAD = 2
AT_ONCE = 256  # images of a batch where all are read into memory
HELD_OUT = 10  # of a set without labels, every tenth image is a test image


class Split:
    """Images uint8 (N, H, W, 3) and labels int32 (N,), None without: `split[10:20]` reads ten of them.

    data: `config.data`, of which eval_size, eval_crop and workers are used. `identity` is a digest of the images that
    were there at first and of how they are cut; `left_out` has the places, among these, of those that can't be read.
    """

    dtype = np.dtype(np.uint8)

    def __init__(self, source: Source, records: np.ndarray, data, broken: Broken):
        self.source, self.all, self.broken, self.left_out = source, np.asarray(records), broken, set()
        self.size, self.crop, self.workers = data.eval_size, data.eval_crop, data.workers or os.cpu_count()

    @functools.cached_property
    def identity(self) -> str:
        """Asked for where features are kept only: each file of a folder is asked for its time, which a mount takes."""
        state = self.source.state() if self.source.state else ""
        return digest(self.source.identity, state, self.all.astype(np.int64), f"{written(self.size)} {self.crop}")

    @property
    def records(self) -> np.ndarray:
        """The records of the source that are left, in order."""
        return np.delete(self.all, sorted(self.left_out))

    def __len__(self) -> int:
        return len(self.all) - len(self.left_out)

    @property
    def shape(self) -> tuple[int, int, int, int]:
        return (len(self), *sides(self.size), 3)

    @property
    def labels(self) -> np.ndarray | None:
        return None if self.source.labels is None else self.source.labels[self.records]

    def __getitem__(self, chosen) -> np.ndarray:
        """The chosen images; one that can't be read is black. chosen: a slice, or an array of integers."""
        with ThreadPoolExecutor(self.workers) as pool:
            return _stacked(list(pool.map(self._read, self.records[chosen])), self.size)[0]

    def read(self, done: Callable[[int], None] = lambda count: None) -> np.ndarray:
        """All images that can be read, in memory; the others are left out. done: told how many more were tried."""
        images, rows, place = np.zeros((len(self.all), *sides(self.size), 3), np.uint8), 0, 0
        for batch, good in self.batches(AT_ONCE):
            self.left_out |= {place + int(number) for number in np.flatnonzero(~good)}
            place, last = place + len(batch), rows + int(good.sum())
            images[rows:last], rows = batch[good], last
            done(len(batch))
        return images[:rows]

    def batches(
        self, size: int, part: tuple[int, int] = (0, 1), start: int = 0
    ) -> Iterator[tuple[np.ndarray, np.ndarray]]:
        """Batches of `size` of all images in order, the last one smaller: (images, bool (b,): which could be read).

        part: (i, n) reads only the i-th of n equal parts of each batch; the last parts are filled with black images.
        start: the place of the first image.
        """
        index, parts = part
        share = size // parts
        starts = iter(range(start, len(self.all), size))
        pool, waiting = ThreadPoolExecutor(self.workers), collections.deque()
        try:
            while True:
                while len(waiting) <= AHEAD and (first := next(starts, None)) is not None:
                    places = range(first + index * share, min(first + (index + 1) * share, len(self.all)))
                    waiting.append([pool.submit(self._read_place, place) for place in places])
                if not waiting:
                    return
                images, good = _stacked([future.result() for future in waiting.popleft()], self.size)
                fill = share - len(good) if parts > 1 else 0
                yield np.pad(images, ((0, fill), (0, 0), (0, 0), (0, 0))), np.pad(good, (0, fill))
        finally:
            pool.shutdown(wait=True, cancel_futures=True)

    def _read_place(self, place: int) -> np.ndarray | None:
        return None if place in self.left_out else self._read(self.all[place])

    def _read(self, record) -> np.ndarray | None:
        try:
            return centre_crop(self.source.read(int(record)), self.size, self.crop)
        except BrokenImage as error:
            self.broken.note(error)
            return None


def _stacked(views: list, size: Size) -> tuple[np.ndarray, np.ndarray]:
    good = np.array([view is not None for view in views], bool)
    images = np.zeros((len(views), *sides(size), 3), np.uint8)
    for place in np.flatnonzero(good):
        images[place] = views[place]
    return images, good


class Probe(NamedTuple):
    """Images to measure on, in memory, uint8 (N, S, S, 3), and their labels, int32 (N,)."""

    train_images: np.ndarray
    train_labels: np.ndarray
    test_images: np.ndarray
    test_labels: np.ndarray
    classes: int
    split: str = "test"  # the split of the data set that gives the test images
    about: str = ""  # one line about the data set, see `Source.about`
    note: str = ""  # one line where this is not the usual split, else ""


class Splits(NamedTuple):
    """Training and test images to measure on. classes: 0 without labels; split, about, note: as in `Probe`."""

    train: Split
    test: Split
    classes: int
    split: str
    about: str
    note: str

    def read(self, done: Callable[[int], None] = lambda count: None) -> Probe:
        """All of them in memory, without those that can't be read. done: as in `Split.read`."""
        images = self.train.read(done), self.test.read(done)
        labels = self.train.labels, self.test.labels
        return Probe(images[0], labels[0], images[1], labels[1], self.classes, self.split, self.about, self.note)


def open_splits(config, log: Callable[[str], None] | None = None) -> Splits:
    """The images on which features are measured, from data.probe.name or the training set, read when asked for.

    data.probe.train and data.probe.test are their numbers (0 = all), chosen by `balanced_records`. A set without labels
    gives every tenth of its images as a test image. log: called with a line per unreadable image. Raises UserError as
    `open_source` does.
    """
    sources = probe_sources(config)
    if sources.test is not None:
        return _splits(config, sources, log)
    train, test = without_labels(sources.train)
    return _splits(config, sources._replace(train=train, test=test, split="every tenth"), log)


def open_labelled(config, log: Callable[[str], None] | None = None) -> Splits | None:
    """The same; None for a training set without labels. Raises UserError where data.probe.name names one."""
    sources = probe_sources(config)
    if sources.test is None and config.data.probe.name:
        about = sources.train.about
        raise UserError(f"data.probe.name has no labels: name a labelled set, or leave it empty. {about}.")
    return None if sources.test is None else _splits(config, sources, log)


def _splits(config, sources: ProbeSources, log) -> Splits:
    pair, counts = (sources.train, sources.test), (config.data.probe.train, config.data.probe.test)
    chosen = [
        np.arange(source.count)[: count or None] if source.labels is None else balanced_records(source.labels, count)
        for source, count in zip(pair, counts)
    ]
    broken = Broken(sources.test.name, sum(map(len, chosen)), config.data.broken_limit, log)
    train, test = (Split(source, records, config.data, broken) for source, records in zip(pair, chosen))
    classes = max(source.classes for source in pair)
    return Splits(train, test, classes, sources.split, sources.train.about, sources.note)


def without_labels(source: Source) -> tuple[Source, Source]:
    """Training and test images of a source without labels, of which every tenth is a test image."""
    if source.count < 2:
        raise UserError(f"{source.name} has {source.count} image: measure on two at least.")
    places = np.arange(source.count)
    held = places % HELD_OUT == min(HELD_OUT, source.count) - 1
    return subset(source, np.flatnonzero(~held)), subset(source, np.flatnonzero(held))
