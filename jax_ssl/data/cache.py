"""What was learned by scanning a data set once (file names, byte offsets, labels), kept between runs.

An entry is a dict of NumPy arrays, stored without pickle; whoever made it judges whether it still holds. A cache that
can't be read or written costs time and nothing else.
"""

import hashlib
import json
import os
import tempfile
import zipfile
from pathlib import Path

import numpy as np

VERSION = 1  # of the entries' meaning


def folder() -> Path:
    """$JAX_SSL_CACHE, or ~/.cache/jax_ssl."""
    return Path(os.environ.get("JAX_SSL_CACHE") or Path.home() / ".cache" / "jax_ssl")


def place(key: str) -> Path:
    """The file of an entry. key: what was scanned, such as a path."""
    return folder() / f"{hashlib.sha256(key.encode('utf-8', 'surrogateescape')).hexdigest()[:32]}.npz"


def load(key: str) -> dict[str, np.ndarray] | None:
    """The arrays as they were saved, or None."""
    try:
        with np.load(place(key), allow_pickle=False) as archive:
            arrays = {name: archive[name] for name in archive.files}
        head = json.loads(arrays.pop("head").tobytes())
    except (OSError, ValueError, KeyError, EOFError, zipfile.BadZipFile):
        return None
    return arrays if head == [VERSION, key] else None


def save(key: str, **arrays: np.ndarray) -> None:
    """Keeps arrays under a key. Written aside and renamed, so that a reader never sees half of it."""
    head = np.frombuffer(json.dumps([VERSION, key]).encode(), np.uint8)
    written = None
    try:
        folder().mkdir(parents=True, exist_ok=True, mode=0o700)
        with tempfile.NamedTemporaryFile(dir=folder(), suffix=".tmp", delete=False) as file:
            written = file.name
            np.savez(file, head=head, **arrays)
        os.replace(written, place(key))
    except OSError:  # a full or read-only disk
        if written and os.path.exists(written):
            os.unlink(written)


def pack(values: list) -> np.ndarray:
    """A list as JSON in a uint8 array; NumPy's own string arrays would give each name the room of the longest."""
    return np.frombuffer(json.dumps(values).encode(), np.uint8)


def unpack(packed: np.ndarray) -> list:
    """The list of `pack`."""
    return json.loads(packed.tobytes())
