"""Extracts the features of all images of a folder into a file. A second call goes on where a kill left the first."""

import collections
from collections.abc import Iterator
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np

from jax_ssl import encoder, paths
from jax_ssl.data.source import Source
from jax_ssl.errors import UserError
from jax_ssl.run.progress import Counter
from jax_ssl.sizes import sides
from jax_ssl.study.embed import formats, images
from jax_ssl.study.embed.formats import Table
from jax_ssl.study.embed.images import Network
from jax_ssl.study.embed.store import Plan, Store
from jax_ssl.study.neighbours import nearest_others
from jax_ssl.study.report import project

NEAREST = 8  # neighbours in a parquet file
MOST_NEAR = 100_000  # images up to which all are compared with all
MOST_PLANE = 10_000  # images up to which a projection is made; viewers make one of their own


def embed(network: Network, folder: str, out: str, say=print) -> Path:
    """Writes the features of the images below `folder` to `out` and returns its path. Raises UserError.

    Memory holds a few batches. What is done is kept in `OUT.partial` until the file is whole.
    """
    kind, path = formats.format_of(out), local(out)
    source = images.source_of(folder)
    size = network.encode.size
    width = jax.eval_shape(network.encode, jnp.zeros((1, *sides(size), 3))).pooled.shape[1]
    batch, size = encoder.batch_size(network.encode, size), size if isinstance(size, int) else list(size)
    these = images.split_of(source, network.settings).identity
    store = Store(path.with_name(f"{path.name}.partial"), Plan(network.digest, these, source.count, width, batch, size))
    if store.replaced:
        say(f"what was in {store.folder} is of another network, other images or another machine: all begins anew")
    if store.done:
        say(f"going on from image {store.done:,} of {source.count:,}")
    extract(network, source, store, kind != "npz", say)
    rows = store.rows()
    good = np.flatnonzero(rows.read)
    if not len(good):
        raise UserError(f"None of the {source.count:,} images of {folder} can be read: repair them.")
    note = formats.write(kind, path, table_of(rows, good, source, kind, say))
    store.remove()
    if len(good) < source.count:
        say(f"{source.count - len(good):,} images could not be read and are left out")
    if note:
        say(note)
    return path


def local(out: str) -> Path:
    """The path of a file of this machine: libraries write it themselves."""
    if paths.is_remote(out):
        raise UserError(f"--out={out}: features are written to a file of this machine; copy it from there.")
    path = Path(paths.resolve(out))
    if not path.parent.is_dir():
        raise UserError(f"--out={out}: there is no folder {path.parent}: make it, or choose another --out.")
    return path


def extract(network: Network, source: Source, store: Store, thumbs: bool, say) -> None:
    """Adds the batches that the store does not have yet. All batches have one shape, so that one program is used."""
    split = images.split_of(source, network.settings, store.done, say)
    counter, waiting = Counter("features", len(split), say), collections.deque()

    def batches() -> Iterator[np.ndarray]:
        for batch, good in split.batches(store.plan.batch):
            waiting.append((batch, good))
            yield np.pad(batch, ((0, store.plan.batch - len(batch)), (0, 0), (0, 0), (0, 0)))

    for found in encoder.outputs(network.encode, batches()):
        batch, good = waiting.popleft()
        small = [images.thumbnail(one) if thumbs and read else b"" for one, read in zip(batch, good)]
        store.add(found[: len(good)], good, small)
        counter.add(len(good))
    counter.close()


def table_of(rows, good: np.ndarray, source: Source, kind: str, say) -> Table:
    """The Table of the images that could be read, numbers `good`; for parquet with a projection and neighbours."""
    whole = len(good) == len(rows.read)
    features = rows.features if whole else rows.features[good]
    files = [source.describe(int(number)) for number in good]
    thumbs = rows.thumbs if whole else Chosen(rows.thumbs, good)
    table = Table(features, files, [images.label_of(file) for file in files], thumbs)
    if kind != "parquet":
        return table
    if len(good) <= MOST_NEAR and len(good) > 1:
        table = table._replace(near=nearest_others(features, min(NEAREST, len(good) - 1)))
    else:
        say(f"no neighbours: all would be compared with all, which is done up to {MOST_NEAR:,} images")
    if len(good) <= MOST_PLANE:
        return table._replace(plane=project.points_of(features).points)
    say(f"no projection: it is made up to {MOST_PLANE:,} images; embedding viewers make one of their own")
    return table


class Chosen:
    """Some items of a sequence, by number."""

    def __init__(self, items, numbers: np.ndarray):
        self.items, self.numbers = items, numbers

    def __getitem__(self, place: int):
        return self.items[int(self.numbers[place])]
