"""Unreadable records: skipped, replaced by the next good one, counted and named; too many of them end the run."""

import threading
from collections.abc import Callable

from PIL import Image

from jax_ssl.data.decode import BrokenImage
from jax_ssl.data.source import Source
from jax_ssl.errors import DataError, LostError

NAMED = 20  # in the message that ends a run
HANDFUL = 3  # broken records that no set is too small for, as long as they are fewer than half of it


def allowed(count: int, limit: float) -> int:
    """How many of `count` records may be broken: a share of `limit`, or a handful in a small set; 0 allows none."""
    few = min(HANDFUL, (count - 1) // 2) if limit else 0
    return min(max(int(limit * count + 1e-9), few), max(count - 1, 0))  # 0.29 * 100 is a little less than 29


class Broken(dict):
    """{name: reason} of the records of one set that could not be read; safe to fill from many threads.

    The set is all that is read for one purpose, its splits together: one bad picture of twenty held-out ones is no
    reason to end a run. lost: the disk's failure, told to a thread that gets no exception of another one.
    """

    def __init__(self, source: str, count: int, limit: float, log: Callable[[str], None] | None = None):
        super().__init__()
        self.source, self.count, self.limit, self.log = source, count, limit, log
        self.lock, self.lost = threading.Lock(), None

    def note(self, error: BrokenImage) -> None:
        """Counts a record once and says so; raises DataError as `check` does."""
        with self.lock:
            new = error.name not in self
            self[error.name] = error.reason
            total = len(self)
        if new and self.log:
            self.log(f"skipped an unreadable image ({total} so far): {error}")
        self.check()

    def check(self) -> None:
        """Raises DataError, naming the records, when more than `allowed` are broken; LostError if the disk is gone."""
        with self.lock:
            items = list(self.items())
        if self.lost is not None:
            raise self.lost
        if len(items) > allowed(self.count, self.limit):
            named = "; ".join(f"{name}: {reason}" for name, reason in items[:NAMED])
            more = f"; and {len(items) - NAMED} more" if len(items) > NAMED else ""
            raise DataError(
                f"{len(items)} of the {self.count} images of {self.source} can't be read, more than "
                f"data.broken_limit={self.limit:g} allows. Repair or remove them, or raise the limit: {named}{more}"
            )


def read_good(source: Source, broken: Broken) -> Callable[[int], Image.Image]:
    """-> function: record -> its image or that of the next good one after it, the same in every epoch and run."""
    known = set()

    def read(record: int) -> Image.Image:
        for candidate in range(record, record + source.count):
            candidate %= source.count
            if candidate in known:
                continue
            try:
                return source.read(candidate)
            except BrokenImage as error:
                known.add(candidate)
                broken.note(error)
            except LostError as error:
                broken.lost = error
                raise
        broken.check()  # raises: all of them are known to be broken

    return read
