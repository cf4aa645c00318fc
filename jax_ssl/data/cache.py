"""Keeps on disk what the scan of a data set found (file names, byte offsets, labels, small images), for later runs.

Entries are NumPy arrays, stored without pickle; the caller checks whether they are still valid. If the cache can't be
read or written, the scan is only repeated. The folder may be deleted at any time.
"""

import contextlib
import hashlib
import json
import os
import shutil
import tempfile
import zipfile
from collections.abc import Callable
from pathlib import Path

import numpy as np

from jax_ssl import paths

MOST = 64_000_000_000  # bytes of large arrays that are kept; those that were not used for longest go first
VERSION = 2  # of what the entries mean; entries of another version are ignored
DAMAGED = (
    OSError,
    ValueError,
    KeyError,
    EOFError,
    zipfile.BadZipFile,
)  # raised for entries that are damaged or missing


def folder() -> Path:
    """$JAX_SSL_CACHE or ~/.cache/jax_ssl; a temporary folder if that is a bucket or there is no home folder."""
    there = os.path.expanduser(os.environ.get("JAX_SSL_CACHE") or "~/.cache/jax_ssl")
    if there.startswith("~") or paths.is_remote(
        there
    ):  # ~ stays where a user has no home folder, as in some containers
        return Path(tempfile.gettempdir()) / f"jax_ssl_cache_{os.getuid()}"
    return Path(there)


def entry_path(key: str, suffix: str = ".npz") -> Path:
    """The path of an entry's file. key: what was scanned, such as a path."""
    return folder() / f"{hashlib.sha256(key.encode('utf-8', 'surrogateescape')).hexdigest()[:32]}{suffix}"


def load(key: str) -> dict[str, np.ndarray] | None:
    """The arrays that `save` stored under this key, or None."""
    try:
        with np.load(entry_path(key), allow_pickle=False) as archive:
            arrays = {name: archive[name] for name in archive.files}
        head = json.loads(arrays.pop("head").tobytes())
    except DAMAGED:
        return None
    return arrays if head == [VERSION, key] else None


def save(key: str, **arrays: np.ndarray) -> None:
    """Stores arrays under a key. Does nothing where the disk is full or read-only."""
    head = np.frombuffer(json.dumps([VERSION, key]).encode(), np.uint8)
    _write(entry_path(key), lambda file: np.savez(file, head=head, **arrays))


def load_or_make(key: str, make: Callable[[], np.ndarray | None]) -> np.ndarray | None:
    """One large array: made and stored the first time, from then on memory-mapped from its file.

    make: may return None, which is then returned and not stored. Nor is what takes more than half of the room on the
    disk: it is made again by the next run.
    """
    path = entry_path(f"{VERSION} {key}", ".npy")
    try:
        found = np.load(path, mmap_mode="r", allow_pickle=False)
    except DAMAGED:
        made = make()
    else:
        with contextlib.suppress(OSError):  # a cache that others filled, which this user can only read
            os.utime(path)
        return found
    if made is not None and _has_room(path.parent, made.nbytes):
        _write(path, lambda file: np.save(file, made))
    return made


def _has_room(there: Path, size: int) -> bool:
    """Whether the disk has room for so many bytes, after the oldest large arrays beyond MOST are gone."""
    try:
        there.mkdir(parents=True, exist_ok=True, mode=0o700)
        kept = size
        for file in sorted(there.glob("*.npy"), key=lambda file: -file.stat().st_mtime):
            kept += file.stat().st_size
            if kept > MOST:
                file.unlink()  # a process that has mapped it keeps what it reads
        return size <= shutil.disk_usage(there).free / 2
    except OSError:
        return False


def _write(path: Path, fill: Callable) -> None:
    """Writes a temporary file and renames it, so that a reader never sees half of it."""
    temporary = None
    try:
        path.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
        with tempfile.NamedTemporaryFile(dir=path.parent, suffix=".tmp", delete=False) as file:
            temporary = file.name
            fill(file)
        os.replace(temporary, path)
    except OSError:  # a full or read-only disk
        if temporary and os.path.exists(temporary):
            os.unlink(temporary)


def pack(values: list | dict) -> np.ndarray:
    """Names and numbers as JSON in a uint8 array. (NumPy's string arrays pad every name to the longest one.)"""
    return np.frombuffer(json.dumps(values).encode(), np.uint8)


def unpack(packed: np.ndarray) -> list | dict:
    """What was given to `pack`."""
    return json.loads(packed.tobytes())
