"""Writes features, with the names of their images, for other programs: .npz, .parquet, or a projector folder.

    FILE.npz        features float32 (N, D), files and labels as text (N,)
    FILE.parquet    the columns that embedding viewers open as they are: file, label, features, projection_x,
                    projection_y, neighbors {ids, distances}, image {bytes, path}
    FOLDER/         tensors.tsv, metadata.tsv, sprite.png and projector_config.pbtxt, for TensorBoard's projector

A label is the name of the folder that an image is in, "" at the top.
"""

import io
import math
import os
import zipfile
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import NamedTuple

import numpy as np
from PIL import Image, ImageOps

from jax_ssl.errors import UserError

MOST_POINTS = 100_000  # of TensorBoard's projector
MOST_PIXELS = 8192  # side of its sprite
SIDE = 64  # pixels of a thumbnail in it, at most
BLOCK = 4096  # rows that are written at once


class Table(NamedTuple):
    """N images. features: float32 (N, D); files, labels: text; thumbs: numbers -> JPEGs; plane: float (N, 2) or None.

    near: (ids int (N, K), cosines (N, K)) of the nearest other images, or None.
    """

    features: np.ndarray
    files: list[str]
    labels: list[str]
    thumbs: Callable[[np.ndarray], Iterable[bytes]] = lambda numbers: ()
    plane: np.ndarray | None = None
    near: tuple[np.ndarray, np.ndarray] | None = None


def format_of(out: str) -> str:
    """`npz`, `parquet` or `projector`, by the end of a name. Raises UserError, also if a library is missing."""
    name = os.path.basename(out.rstrip("/"))
    ending = Path(name).suffix.lower()
    if ending == ".parquet":
        try:
            import pyarrow  # noqa: F401
        except ImportError:
            raise UserError(
                f"--out={out} needs pyarrow: pip install pyarrow, or take a name that ends in .npz."
            ) from None
        return "parquet"
    if ending and ending != ".npz" and not out.endswith("/"):
        raise UserError(f"--out={out}: a file ends in .npz or .parquet; the name of a projector folder has no ending.")
    return "npz" if ending == ".npz" and not out.endswith("/") else "projector"


def write(kind: str, out: Path, table: Table) -> str:
    """Writes the table in a format of `format_of`, whole or not at all. Returns a sentence on what was left out, ""."""
    made = out.with_name(f".{out.name}.tmp")
    note = {"npz": write_npz, "parquet": write_parquet, "projector": write_projector}[kind](made, table)
    if kind == "projector":
        out.mkdir(exist_ok=True)
        for file in sorted(made.iterdir()):
            os.replace(file, out / file.name)
        made.rmdir()
    else:
        os.replace(made, out)
    return note


def write_npz(path: Path, table: Table) -> str:
    """As `numpy.savez`, with the names compressed: NumPy gives each the room of the longest."""
    arrays = {"features": table.features, "files": np.array(table.files), "labels": np.array(table.labels)}
    with zipfile.ZipFile(path, "w") as archive:
        for name, array in arrays.items():
            entry = zipfile.ZipInfo(f"{name}.npy")  # without a clock
            entry.compress_type = zipfile.ZIP_STORED if name == "features" else zipfile.ZIP_DEFLATED
            with archive.open(entry, "w", force_zip64=True) as file:
                np.lib.format.write_array(file, array, allow_pickle=False)
    return ""


def write_parquet(path: Path, table: Table) -> str:
    import pyarrow as pa
    from pyarrow import parquet

    width = table.features.shape[1]
    fields = [("file", pa.string()), ("label", pa.string()), ("features", pa.list_(pa.float32(), width))]
    if table.plane is not None:
        fields += [("projection_x", pa.float64()), ("projection_y", pa.float64())]
    if table.near is not None:
        near = pa.struct([("ids", pa.list_(pa.int64())), ("distances", pa.list_(pa.float64()))])
        fields.append(("neighbors", near))
    fields.append(("image", pa.struct([("bytes", pa.binary()), ("path", pa.string())])))
    with parquet.ParquetWriter(path, pa.schema(fields)) as writer:
        for begin in range(0, len(table.files), BLOCK):
            rows = range(begin, min(begin + BLOCK, len(table.files)))
            flat = pa.array(np.asarray(table.features[rows.start : rows.stop], np.float32).ravel())
            columns = {"file": table.files[begin : rows.stop], "label": table.labels[begin : rows.stop],
                       "features": pa.FixedSizeListArray.from_arrays(flat, width)}  # fmt: skip
            if table.plane is not None:
                columns |= {"projection_x": table.plane[rows, 0], "projection_y": table.plane[rows, 1]}
            if table.near is not None:
                ids, cosines = table.near
                columns["neighbors"] = [{"ids": ids[i].tolist(), "distances": (1 - cosines[i]).tolist()} for i in rows]
            thumbs = zip(rows, table.thumbs(np.array(rows)))
            columns["image"] = [{"bytes": thumb, "path": table.files[i]} for i, thumb in thumbs]
            writer.write_table(pa.table(columns, schema=pa.schema(fields)))
    return ""


def write_projector(path: Path, table: Table) -> str:
    """A folder within the limits of the projector: of more points than it takes, points at equal distances."""
    path.mkdir(exist_ok=True)
    count = min(len(table.files), MOST_POINTS)
    chosen = np.unique(np.round(np.linspace(0, len(table.files) - 1, count)).astype(int))
    with open(path / "tensors.tsv", "w", encoding="utf-8") as file:
        for number in chosen:
            file.write("\t".join(f"{value:.6g}" for value in table.features[number]) + "\n")
    clean = lambda text: " ".join(text.split())
    several = any(table.labels)
    with open(path / "metadata.tsv", "w", encoding="utf-8") as file:
        if several:  # TensorBoard takes the first line of a single column for data
            file.write("file\tlabel\n")
        for number in chosen:
            words = [table.files[number], table.labels[number]] if several else [table.files[number]]
            file.write("\t".join(map(clean, words)) + "\n")
    side = min(SIDE, MOST_PIXELS // math.ceil(math.sqrt(count)))
    columns = math.ceil(math.sqrt(count))
    sprite = Image.new("RGB", (columns * side, columns * side))
    for place, thumb in enumerate(table.thumbs(chosen)):
        picture = ImageOps.pad(Image.open(io.BytesIO(thumb)), (side, side), color="white")
        sprite.paste(picture, (place % columns * side, place // columns * side))
    sprite.save(path / "sprite.png")
    (path / "projector_config.pbtxt").write_text(
        'embeddings {\n  tensor_name: "features"\n  tensor_path: "tensors.tsv"\n  metadata_path: "metadata.tsv"\n'
        f'  sprite {{\n    image_path: "sprite.png"\n    single_image_dim: {side}\n'
        f"    single_image_dim: {side}\n  }}\n}}\n"
    )
    left = len(table.files) - count
    return f"the projector takes {MOST_POINTS:,} points: {left:,} images are left out" if left else ""
