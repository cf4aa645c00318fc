"""Extracts the features of all images of a folder into a file. A second call goes on where a kill left the first."""

import functools
from pathlib import Path

from jax_ssl import paths
from jax_ssl.data.about import plural
from jax_ssl.errors import UserError
from jax_ssl.run.progress import Counter
from jax_ssl.study.embed import formats, images
from jax_ssl.study.embed.formats import Table
from jax_ssl.study.embed.images import Folder, Network
from jax_ssl.study.neighbours import nearest_others
from jax_ssl.study.report import project

NEAREST = 8  # neighbours in a parquet file
MOST_NEAR = 100_000  # images up to which all are compared with all
MOST_PLANE = 10_000  # images up to which a projection is made; viewers make one of their own


def embed(network: Network, folder: str, out: str, say=print) -> Path:
    """Writes the features of the images below `folder` to `out` and returns its path. Raises UserError.

    Memory holds a few batches. The features are kept beside the run, as those of `evaluate` and `find` are.
    """
    kind, path = formats.format_of(out), local(out)
    there = images.open_folder(network, folder, say)
    table = table_of(there, kind, say)
    count = min(len(there.files), formats.MOST_POINTS) if kind == "projector" else len(there.files)
    with Counter("thumbnails", count, say) as counter:
        thumbs = functools.partial(images.thumbnails, there.images, counter.add)
        note = formats.write(kind, path, table._replace(thumbs=thumbs))
    left_out = len(there.images.left_out)
    if left_out:
        say(f"unreadable, and left out: {plural(left_out, 'image')}")
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


def table_of(there: Folder, kind: str, say) -> Table:
    """The Table of a folder, without thumbnails; for parquet with a projection and neighbours."""
    features, count = there.features, len(there.files)
    table = Table(features, there.files, [images.label_of(file) for file in there.files])
    if kind != "parquet":
        return table
    if 1 < count <= MOST_NEAR:
        table = table._replace(near=nearest_others(features, min(NEAREST, count - 1), say))
    else:
        say(f"no neighbours: all would be compared with all, which is done up to {MOST_NEAR:,} images")
    if count <= MOST_PLANE:
        return table._replace(plane=project.points_of(features).points)
    say(f"no projection: it is made up to {MOST_PLANE:,} images; embedding viewers make one of their own")
    return table
