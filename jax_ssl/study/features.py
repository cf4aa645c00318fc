"""Features of a set of images, made once and kept in one file that is mapped to memory: memory holds a batch.

`OUT/features/KEY.npy` has the features, float32 (N, D), `KEY.labels.npy` the labels, and `KEY.json` says of what they
are. KEY is a digest of the weights, the images, their size and crop. A file is written under another name and renamed
when it is whole; the folder may be deleted at any time. Where OUT is a bucket or can't be written to, the cache of data
sets has the files. Several processes share the work, and each has a file of its own, which is gone when it ends.
"""

import collections
import contextlib
import hashlib
import json
import os
import re
import tempfile
import uuid
from collections.abc import Callable, Iterator
from pathlib import Path

import jax
import numpy as np
from jax.experimental import multihost_utils

from jax_ssl import paths, sharding
from jax_ssl.data import cache
from jax_ssl.data.about import digest
from jax_ssl.data.split import Split
from jax_ssl.encoder import Encoder
from jax_ssl.errors import UserError
from jax_ssl.run.progress import Counter

VERSION = "1"  # of what the files mean
BATCH = 256


def fingerprint(encode: Encoder) -> str:
    """A digest of a network: its settings, its weights, and the mean and std of its images."""
    found = hashlib.sha256(re.sub(r" at 0x[0-9a-f]+", "", repr(encode.backbone)).encode())
    for keys, leaf in jax.tree_util.tree_leaves_with_path(encode.variables):
        array = np.asarray(leaf)
        found.update(f"{jax.tree_util.keystr(keys)} {array.dtype} {array.shape}".encode())
        found.update(np.ascontiguousarray(array).view(np.uint8).data)
    return digest(found.hexdigest(), str(encode.mean), str(encode.std))


def make_or_load(
    stream: Callable[[Iterator], Iterator[np.ndarray]], images: Split, weights: str, out: str, facts: dict, say,
    shared: bool = True
) -> np.ndarray:  # fmt: skip
    """The features of all images that can be read, float32 (N, D), mapped from their file; the others are left out.

    stream: batches uint8 (b, S, S, 3) -> their features (b, D). weights: a digest of what makes them. out: the folder
    of results. facts: what KEY.json says besides. say: called with a line of progress, where it takes long. shared:
    whether several processes share the work; then each gets its part of a batch, and `stream` a global array.
    """
    key = digest(VERSION, weights, images.identity)
    if jax.process_count() > 1:
        return _in_own_file(stream, images, say if jax.process_index() == 0 else _silent, facts, shared)
    folder = folder_of(out)
    found = load(folder, key, images)
    if found is not None:
        return found
    made = folder / f"{key}.{uuid.uuid4().hex[:8]}.tmp"
    try:
        with open(made, "wb+") as file:
            rows = write(file, stream, images, say, facts, shared)
        facts |= {"images": rows, "left_out": sorted(images.left_out), "size": images.size, "crop": images.crop}
        paths.write(paths.resolve(folder / f"{key}.json"), json.dumps(facts) + "\n")
        if images.labels is not None:
            np.save(folder / f"{key}.labels.npy", images.labels)
        os.replace(made, folder / f"{key}.npy")
    finally:
        made.unlink(missing_ok=True)
    return np.load(folder / f"{key}.npy", mmap_mode="r")


def folder_of(out: str) -> Path:
    """The folder for features of a folder of results. See the first lines of this file."""
    if not paths.is_remote(out):
        with contextlib.suppress(UserError):
            return Path(paths.make_writable(f"{out}/features", "it is only a cache"))
    return Path(paths.make_writable(str(cache.folder() / "features"), "set JAX_SSL_CACHE to another folder"))


def load(folder: Path, key: str, images: Split) -> np.ndarray | None:
    """The features under this key, if they are there; then the images that could not be read are left out."""
    try:
        facts = json.loads((folder / f"{key}.json").read_text())
        found = np.load(folder / f"{key}.npy", mmap_mode="r", allow_pickle=False)
    except cache.DAMAGED:
        return None
    if len(found) + len(facts["left_out"]) != len(images.all):
        return None
    images.left_out |= set(facts["left_out"])
    return found


def write(file, stream, images: Split, say, facts: dict, shared: bool) -> int:
    """Writes the features as an .npy file, and leaves out of `images` what can't be read; returns the rows."""
    flags, rows, place, shape = collections.deque(), 0, 0, (0, 1)
    what = f"features of {facts.get('weights', 'the network')}, {facts.get('split', '')} images"
    counter, parts = Counter(what, len(images.all), say), jax.process_count() if shared else 1

    def batches():
        size = -(-BATCH // jax.device_count()) * jax.device_count() if parts > 1 else BATCH
        for batch, good in images.batches(size, (jax.process_index() if parts > 1 else 0, parts)):
            flags.append(good if parts == 1 else np.concatenate(multihost_utils.process_allgather(good)))
            yield batch if parts == 1 else sharding.shard_batch(batch, sharding.make_mesh())

    for found in stream(batches()):
        good = flags.popleft()
        if not rows:
            shape = (len(images.all), found.shape[1])
            _write_head(file, shape)
        file.write(np.ascontiguousarray(found[good], np.float32).data)
        images.left_out |= {place + int(i) for i in np.flatnonzero(~good) if place + i < len(images.all)}
        place, rows = place + len(good), rows + int(good.sum())
        counter.add(len(good))
    counter.close()
    file.seek(0)
    _write_head(file, (rows, shape[1]))
    return rows


def _write_head(file, shape: tuple[int, int]) -> None:
    """The head of an .npy file. NumPy leaves room for any number of rows, so that its length is always the same."""
    np.lib.format.write_array_header_1_0(file, {"descr": "<f4", "fortran_order": False, "shape": shape})


def _silent(line: str) -> None:
    """Says nothing: of several processes, the first one speaks."""


def _in_own_file(stream, images: Split, say, facts: dict, shared: bool) -> np.ndarray:
    """The features in a file that only this process has: it has no name any more when it is mapped."""
    with tempfile.NamedTemporaryFile(suffix=".npy") as file:
        write(file, stream, images, say, facts, shared)
        file.flush()
        return np.load(file.name, mmap_mode="r")
