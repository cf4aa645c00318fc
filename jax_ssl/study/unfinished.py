"""A file of features that grows batch by batch, and is taken up again where a kill left it.

KEY.part is the .npy file, with the rows of images that could be read; KEY.read has a byte for each image, 1 for those.
The bytes of a batch are written behind its rows, so rows without them are cut off. Who writes has a lock on KEY.part,
which the system takes back when a process ends; a second command that needs the same features makes its own file.
"""

import contextlib
import fcntl
import io
import os
import tempfile
from collections.abc import Iterator
from pathlib import Path

import numpy as np


class Unfinished:
    """Features of the first `done` images: `rows` of them could be read. file, flags: of KEY.part and KEY.read."""

    def __init__(self, file, flags=None):
        self._file, self._flags = file, io.BytesIO() if flags is None else flags
        self._flags.seek(0)
        read = np.frombuffer(self._flags.read(), np.uint8).astype(bool)
        start, width = _head(file)
        there = (_size(file) - start) // (4 * width) if width else 0
        self.read = read if there >= read.sum() else read[:0]
        self.width = width if len(self.read) else None
        _cut(self._flags, len(self.read))
        _cut(file, start + 4 * width * self.rows if len(self.read) else 0)

    @property
    def done(self) -> int:
        return len(self.read)

    @property
    def rows(self) -> int:
        return int(self.read.sum())

    def add(self, features: np.ndarray, read: np.ndarray) -> None:
        """The next batch: features (r, D) of its images that could be read, and which these are, bool (b,)."""
        if self.width is None:
            self.width = features.shape[1]
            _write_head(self._file, (0, self.width))
        self._file.write(np.ascontiguousarray(features, np.float32).data)
        self._file.flush()
        self._flags.write(read.astype(np.uint8).tobytes())
        self._flags.flush()
        self.read = np.concatenate([self.read, read])

    def finish(self) -> None:
        """Makes the file a whole .npy file."""
        self._file.seek(0)
        _write_head(self._file, (self.rows, self.width or 1))
        self._file.flush()


@contextlib.contextmanager
def opened(folder: Path, key: str) -> Iterator[tuple[Unfinished, Path]]:
    """The Unfinished of that key, and the path of its file, which is to be renamed when it is whole.

    Where another command is writing it, a new one, which is gone if it is not finished.
    """
    path, flags = folder / f"{key}.part", folder / f"{key}.read"
    file = _locked(path)
    if file is not None:
        with file, open(flags, "ab+") as of_images:
            yield Unfinished(file, of_images), path
        flags.unlink(missing_ok=True)
        return
    descriptor, name = tempfile.mkstemp(prefix=f"{key}.", suffix=".tmp", dir=folder)
    try:
        with open(descriptor, "wb+") as file:
            yield Unfinished(file), Path(name)
    finally:
        Path(name).unlink(missing_ok=True)


def _locked(path: Path):
    """The file, locked for this process; None where another one has it, or files can't be locked."""
    file = os.fdopen(os.open(path, os.O_RDWR | os.O_CREAT, 0o666), "r+b")
    try:
        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        if os.path.samestat(os.fstat(file.fileno()), os.stat(path)):  # not just renamed by who had it
            return file
    except OSError:
        pass
    file.close()
    return None


def _head(file) -> tuple[int, int]:
    """(where rows begin, width) of an .npy file; zeros where it has no head yet."""
    file.seek(0)
    try:
        np.lib.format.read_magic(file)
        shape, _, _ = np.lib.format.read_array_header_1_0(file)
    except ValueError:
        return 0, 0
    return file.tell(), shape[1]


def _write_head(file, shape: tuple[int, int]) -> None:
    """The head of an .npy file. NumPy leaves room for any number of rows, so that its length is always the same."""
    np.lib.format.write_array_header_1_0(file, {"descr": "<f4", "fortran_order": False, "shape": shape})


def _size(file) -> int:
    return file.seek(0, os.SEEK_END)


def _cut(file, size: int) -> None:
    """Cuts the file there, and goes to its end."""
    file.truncate(size)
    file.seek(size)
