"""A network, all images of a folder and their features, for `embed` and `find`."""

import functools
import io
from collections.abc import Callable, Iterator
from typing import NamedTuple

import numpy as np
from ml_collections import ConfigDict
from PIL import Image

from jax_ssl import bounds, encoder, paths
from jax_ssl.data import selection
from jax_ssl.data.about import digest, printable
from jax_ssl.data.broken import Broken
from jax_ssl.data.decode import decode
from jax_ssl.data.disk import read_bytes
from jax_ssl.data.folder import state_of
from jax_ssl.data.source import Source
from jax_ssl.data.split import Split
from jax_ssl.encoder import Encoder, at_depth
from jax_ssl.errors import UserError
from jax_ssl.run import results
from jax_ssl.study import features, measure

THUMB = 64  # pixels of a thumbnail


class Network(NamedTuple):
    """encode: frozen, at the depth of the settings. settings: how its images are made. digest: of its weights."""

    encode: Encoder
    settings: ConfigDict
    digest: str
    name: str
    out: str  # where features may be kept


class Folder(NamedTuple):
    """All readable images of a folder, and their features, float32 (N, D), mapped. images[numbers] reads some."""

    features: np.ndarray
    files: list[str]
    images: Split


def open_network(run, weights, which, size, say=print) -> Network:
    """The Network of --run, with `which` of its networks, or of the file --weights. Raises UserError."""
    if (run is None) == (weights is None):
        raise UserError("Give the network: --run=FOLDER of a run, or --weights=FILE.")
    overrides = [f"--config.data.eval_size={bounds.as_written(size)}"] if size else []
    if run is not None:
        found = measure.choose(measure.open_run(run, overrides, say=say), [which or "student"], say)
    else:
        found = measure.open_file(weights, results.folder_of(weights), which, overrides, say)
    name = found.names[-1]
    encode = at_depth(measure.trained(found, name), found.settings.feature_depth)
    return Network(encode, found.settings, features.fingerprint(encode), name, found.out)


def source_of(folder: str) -> Source:
    """All images below a folder, in the order of their names, whatever their folders are called."""
    root, names = selection.names_in(folder)
    state = functools.cache(lambda: state_of(root, names))
    return Source(
        name=f"folder:{printable(folder)}", count=len(names), labels=None, classes=0, images=None,
        read=lambda record, *reduction: decode(read_bytes(root, names[record]), names[record], *reduction),
        describe=lambda record: printable(names[record]), identity=digest("\0".join(names)),
        state=None if paths.is_remote(root) else state,
    )  # fmt: skip


def split_of(source: Source, settings: ConfigDict, say=print) -> Split:
    """All images, as the network gets them. One that can't be read is left out, and said."""
    return Split(source, np.arange(source.count), settings.data, Broken(source.name, source.count, 1.0, say))


def open_folder(network: Network, folder: str, say=print) -> Folder:
    """The Folder; its features are kept beside the run, so that the next call has them, or goes on after a kill."""
    source = source_of(folder)
    split = split_of(source, network.settings, say)
    making = features.of_network(lambda: network.encode, split.size)
    facts = {"weights": network.name, "of": folder}
    found = features.make_or_load(making, split, network.digest, network.out, facts, say)
    return Folder(found, [source.describe(int(record)) for record in split.records], split)


def label_of(file: str) -> str:
    """The name of the folder that a file is in, "" at the top."""
    return file.rpartition("/")[0].rpartition("/")[2]


def thumbnails(split: Split, done: Callable[[int], None], numbers: np.ndarray) -> Iterator[bytes]:
    """A small JPEG of each of the readable images of these numbers, which are read again. done: told how many more."""
    for begin in range(0, len(numbers), encoder.BATCH):
        found = split[numbers[begin : begin + encoder.BATCH]]
        yield from map(thumbnail, found)
        done(len(found))


def thumbnail(image: np.ndarray) -> bytes:
    """A small JPEG of an image, uint8 (H, W, 3)."""
    picture, coded = Image.fromarray(image), io.BytesIO()
    picture.thumbnail((THUMB, THUMB), Image.Resampling.BOX)
    picture.save(coded, "JPEG", quality=85)
    return coded.getvalue()
