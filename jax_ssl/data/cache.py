"""What was learned by scanning a data set once (file names, byte offsets, labels, small images), kept between runs.

NumPy arrays, stored without pickle; whoever made them judges whether they still hold. A cache that can't be read or
written costs time and nothing else, and may be deleted at any time.
"""

import hashlib
import json
import os
import tempfile
import zipfile
from collections.abc import Callable
from pathlib import Path

import numpy as np

from jax_ssl import paths

VERSION = 2  # of the entries' meaning
DAMAGED = (OSError, ValueError, KeyError, EOFError, zipfile.BadZipFile)  # also: not there


def folder() -> Path:
    """$JAX_SSL_CACHE, or ~/.cache/jax_ssl, on a disk; a place for temporary files where there is neither."""
    there = os.path.expanduser(os.environ.get("JAX_SSL_CACHE") or "~/.cache/jax_ssl")
    if there.startswith("~") or paths.is_remote(there):  # a container's user without a home
        return Path(tempfile.gettempdir()) / f"jax_ssl_cache_{os.getuid()}"
    return Path(there)


def place(key: str, suffix: str = ".npz") -> Path:
    """The file of an entry. key: what was scanned, such as a path."""
    return folder() / f"{hashlib.sha256(key.encode('utf-8', 'surrogateescape')).hexdigest()[:32]}{suffix}"


def load(key: str) -> dict[str, np.ndarray] | None:
    """The arrays as they were saved, or None."""
    try:
        with np.load(place(key), allow_pickle=False) as archive:
            arrays = {name: archive[name] for name in archive.files}
        head = json.loads(arrays.pop("head").tobytes())
    except DAMAGED:
        return None
    return arrays if head == [VERSION, key] else None


def save(key: str, **arrays: np.ndarray) -> None:
    """Keeps arrays under a key."""
    head = np.frombuffer(json.dumps([VERSION, key]).encode(), np.uint8)
    _write(place(key), lambda file: np.savez(file, head=head, **arrays))


def load_or_make(key: str, make: Callable[[], np.ndarray | None]) -> np.ndarray | None:
    """One large array, made the first time and from then on mapped from its file, without time or memory of its own."""
    path = place(f"{VERSION} {key}", ".npy")
    try:
        return np.load(path, mmap_mode="r", allow_pickle=False)
    except DAMAGED:
        made = make()
    if made is not None:
        _write(path, lambda file: np.save(file, made))
    return made


def _write(path: Path, fill: Callable) -> None:
    """Written aside and renamed, so that a reader never sees half of it."""
    written = None
    try:
        path.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
        with tempfile.NamedTemporaryFile(dir=path.parent, suffix=".tmp", delete=False) as file:
            written = file.name
            fill(file)
        os.replace(written, path)
    except OSError:  # a full or read-only disk
        if written and os.path.exists(written):
            os.unlink(written)


def pack(values: list | dict) -> np.ndarray:
    """Names and numbers as JSON in a uint8 array; a string array of NumPy gives each name the room of the longest."""
    return np.frombuffer(json.dumps(values).encode(), np.uint8)


def unpack(packed: np.ndarray) -> list | dict:
    """What was given to `pack`."""
    return json.loads(packed.tobytes())
