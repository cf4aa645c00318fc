"""Unreadable images: each is skipped, replaced by the next readable one and logged; too many of them end the run."""

import threading
from collections.abc import Callable

from PIL import Image

from jax_ssl.data.decode import BrokenImage
from jax_ssl.data.source import Source
from jax_ssl.errors import DataError, LostError

LISTED = 20  # images that the error message names
ALWAYS_ALLOWED = 3  # broken images that are allowed in a small set too, while they are fewer than half of it


def max_broken(count: int, limit: float) -> int:
    """How many of `count` images may be broken: the share `limit` of them, or ALWAYS_ALLOWED in a small set.

    limit: 0 allows none.
    """
    few = min(ALWAYS_ALLOWED, (count - 1) // 2) if limit else 0
    return min(
        max(int(limit * count + 1e-9), few), max(count - 1, 0)
    )  # 1e-9: 0.29 * 100 is a little less than 29 in floating point


class Broken(dict):
    """{name: reason} of the images that could not be read; may be filled from many threads.

    count: all images that are read for one purpose (to measure: both splits), so that one bad image among twenty test
    images does not end a run. limit: see `max_broken`. lost: the LostError of a reader thread, kept here
    because tf.data replaces it by an error of its own; `check` raises it.
    """

    def __init__(self, source: str, count: int, limit: float, log: Callable[[str], None] | None = None):
        super().__init__()
        self.source, self.count, self.limit, self.log = source, count, limit, log
        self.lock, self.lost = threading.Lock(), None

    def note(self, error: BrokenImage) -> None:
        """Counts an image once and logs it; raises as `check` does."""
        with self.lock:
            new = error.name not in self
            self[error.name] = error.reason
            total = len(self)
        if new and self.log:
            self.log(f"skipped an unreadable image ({total} so far): {error}")
        self.check()

    def check(self) -> None:
        """Raises DataError, naming the images, if more than `max_broken` are broken; LostError if the disk failed."""
        if self.lost is not None:
            raise self.lost
        if len(self) > max_broken(self.count, self.limit):
            with self.lock:
                items = list(self.items())
            named = "; ".join(f"{name}: {reason}" for name, reason in items[:LISTED])
            more = f"; and {len(items) - LISTED} more" if len(items) > LISTED else ""
            raise DataError(
                f"{len(items)} of the {self.count} images of {self.source} can't be read, more than "
                f"data.broken_limit={self.limit:g} allows. Repair or remove them, or raise the limit: {named}{more}"
            )


def skipping_reader(source: Source, broken: Broken) -> Callable[[int], Image.Image]:
    """-> function: record -> its image, or that of the next readable record; the same choice in every epoch and run.

    What else the function is given is handed on to `source.read`.
    """
    known = set()

    def read(record: int, *reduction) -> Image.Image:
        for candidate in range(record, record + source.count):
            candidate %= source.count
            if candidate in known:
                continue
            try:
                return source.read(candidate, *reduction)
            except BrokenImage as error:
                known.add(candidate)
                broken.note(error)
            except LostError as error:
                broken.lost = error
                raise
        broken.check()  # raises, because all of them are broken

    return read
