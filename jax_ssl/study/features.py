"""Features of a set of images, made once and kept in one file that is mapped to memory: memory holds a batch.

`OUT/features/KEY.npy` has the features, float32 (N, D), `KEY.labels.npy` the labels, and `KEY.json` says of what they
are. KEY is a digest of the weights, the images, their size and crop. A file is written under another name and renamed
when it is whole, and goes on where a kill left it: unfinished.py. The folder may be deleted at any time. Where OUT is a
bucket or can't be written to, the cache of data sets has the files. Several processes share the work, and each has a
file of its own, which is gone when it ends.
"""

import collections
import contextlib
import hashlib
import json
import os
import re
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import NamedTuple

import jax
import numpy as np
from jax.experimental import multihost_utils

from jax_ssl import encoder, paths, sharding
from jax_ssl.data import cache
from jax_ssl.data.about import digest
from jax_ssl.data.split import Split
from jax_ssl.encoder import Encoder
from jax_ssl.errors import UserError
from jax_ssl.run.progress import Counter
from jax_ssl.study.unfinished import Unfinished, opened
from jax_ssl.views.sizes import Size

VERSION = "1"  # of what the files mean


def fingerprint(encode: Encoder) -> str:
    """A digest of a network: its settings, its weights, and the mean and std of its images."""
    found = hashlib.sha256(re.sub(r" at 0x[0-9a-f]+", "", repr(encode.backbone)).encode())
    for keys, leaf in jax.tree_util.tree_leaves_with_path(encode.variables):
        array = np.asarray(leaf)
        found.update(f"{jax.tree_util.keystr(keys)} {array.dtype} {array.shape}".encode())
        found.update(np.ascontiguousarray(array).view(np.uint8).data)
    return digest(found.hexdigest(), str(encode.mean), str(encode.std))


class Making(NamedTuple):
    """How features are made.

    stream: batches uint8 (b, H, W, 3) -> their features (b, D). batch: a function that says how many images at a time,
    called when they are made. shared: whether several processes share the work; then each reads its part of a batch,
    and `stream` gets global arrays.
    """

    stream: Callable[[Iterator], Iterator[np.ndarray]]
    batch: Callable[[], int] = lambda: encoder.BATCH
    shared: bool = True


def of_network(network: Callable[[], Encoder], size: Size) -> Making:
    """How a network makes features of images of this size; it is asked for when they are made."""
    return Making(lambda batches: encoder.outputs(network(), batches), lambda: encoder.batch_size(network(), size))


def make_or_load(making: Making, images: Split, weights: str, out: str, facts: dict, say) -> np.ndarray:
    """The features of all images that can be read, float32 (N, D), mapped from their file; the others are left out.

    weights: a digest of what makes them. out: the folder of results. facts: what KEY.json says besides. say: called
    with a line of progress, where it takes long.
    """
    key = digest(VERSION, weights, images.identity)
    if jax.process_count() > 1:
        return _in_own_file(making, images, say if jax.process_index() == 0 else _silent, facts)
    folder = folder_of(out)
    found = load(folder, key, images)
    if found is not None:
        return found
    with opened(folder, key) as (part, path):
        if part.done:
            say(f"going on from image {part.done:,} of {len(images.all):,}")
        write(part, making, images, say, facts)
        facts |= {"images": part.rows, "left_out": sorted(images.left_out), "size": images.size, "crop": images.crop}
        paths.write(paths.resolve(folder / f"{key}.json"), json.dumps(facts) + "\n")
        if images.labels is not None:
            np.save(folder / f"{key}.labels.npy", images.labels)
        os.replace(path, folder / f"{key}.npy")
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


def write(part: Unfinished, making: Making, images: Split, say, facts: dict) -> None:
    """Writes the features that are still missing, and leaves out of `images` what can't be read."""
    images.left_out |= set(np.flatnonzero(~part.read).tolist())
    flags, begin, count = collections.deque(), part.done, len(images.all)
    split = f", {facts['split']} images" if "split" in facts else ""
    what = f"features of {facts.get('weights', 'the network')}{split}"
    parts = jax.process_count() if making.shared else 1

    def batches():
        size = making.batch()
        size = -(-size // jax.device_count()) * jax.device_count() if parts > 1 else size
        for batch, good in images.batches(size, (jax.process_index() if parts > 1 else 0, parts), begin):
            flags.append(good if parts == 1 else np.concatenate(multihost_utils.process_allgather(good)))
            yield batch if parts == 1 else sharding.shard_batch(batch, sharding.make_mesh())

    with Counter(what, count - begin, say) as counter:
        for found in making.stream(batches()):
            good = flags.popleft()
            images.left_out |= {part.done + int(i) for i in np.flatnonzero(~good) if part.done + i < count}
            part.add(found[good], good[: count - part.done])
            counter.add(len(good))
    part.finish()


def _silent(line: str) -> None:
    """Says nothing: of several processes, the first one speaks."""


def _in_own_file(making: Making, images: Split, say, facts: dict) -> np.ndarray:
    """The features in a file that only this process has: it has no name any more when it is mapped."""
    with tempfile.NamedTemporaryFile(suffix=".npy") as file:
        write(Unfinished(file), making, images, say, facts)
        return np.load(file.name, mmap_mode="r")
