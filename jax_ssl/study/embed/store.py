"""Features that grow on a disk, batch by batch, and are taken up again where a kill left them.

The folder `OUT.partial/` has plan.json, which says of what they are; features.f32, one row of float32 for each image;
read.u8, 1 for an image that could be read; thumbs.bin with thumbnails, and lengths.u32 with the bytes of each. A batch
counts when all of its parts are there; what is more is cut off. Batches begin at the same images after a kill as
without one, so the files end with the same bytes.
"""

import json
import os
import shutil
from pathlib import Path
from typing import NamedTuple

import numpy as np

PARTS = ("features.f32", "read.u8", "thumbs.bin", "lengths.u32")


class Plan(NamedTuple):
    """What is in a store. weights and images: digests; count: images; width: of a feature; batch: images at a time."""

    weights: str
    images: str
    count: int
    width: int
    batch: int
    size: int | list[int]  # of the images; a list (height, width) as JSON gives it back


class Rows(NamedTuple):
    """The whole content: features float32 (N, D), mapped; read bool (N,); thumbnails as bytes, b"" without."""

    features: np.ndarray
    read: np.ndarray
    thumbs: "Thumbs"


class Thumbs(NamedTuple):
    """Thumbnails by number, read when they are asked for."""

    path: Path
    ends: np.ndarray

    def __getitem__(self, number: int) -> bytes:
        begin = int(self.ends[number - 1]) if number else 0
        with open(self.path, "rb") as file:
            file.seek(begin)
            return file.read(int(self.ends[number]) - begin)


class Store:
    """The folder of unfinished features. `done` images are in it already; `add` writes the next batch.

    replaced: whether the folder was there with another plan, and was emptied.
    """

    def __init__(self, folder: Path, plan: Plan):
        self.folder, self.plan = folder, plan
        planned = self._planned()
        self.replaced = planned not in (None, list(plan))
        if planned != list(plan):
            self.remove()
            folder.mkdir(parents=True)
            for name in PARTS:
                (folder / name).touch()
            (folder / "plan.tmp").write_text(json.dumps(plan))
            os.replace(folder / "plan.tmp", folder / "plan.json")
        self.done = self._whole_batches()
        self._cut()

    def _planned(self) -> list | None:
        try:
            return json.loads((self.folder / "plan.json").read_text())
        except (FileNotFoundError, ValueError):
            return None

    def _whole_batches(self) -> int:
        """How many images are there in all parts, in whole batches."""
        size = {name: (self.folder / name).stat().st_size for name in PARTS}
        lengths = np.fromfile(self.folder / "lengths.u32", "<u4")
        ends = np.cumsum(lengths, dtype=np.int64)
        thumbs = int(np.searchsorted(ends, size["thumbs.bin"], side="right"))
        count = min(size["features.f32"] // (4 * self.plan.width), size["read.u8"], thumbs)
        return count if count >= self.plan.count else count - count % self.plan.batch

    def _cut(self) -> None:
        lengths = np.fromfile(self.folder / "lengths.u32", "<u4")[: self.done]
        sizes = 4 * self.plan.width * self.done, self.done, int(lengths.sum(dtype=np.int64)), 4 * self.done
        for name, size in zip(PARTS, sizes):
            os.truncate(self.folder / name, size)

    def add(self, features: np.ndarray, read: np.ndarray, thumbs: list[bytes]) -> None:
        """Writes a batch: features (b, D), read bool (b,), thumbs b of them."""
        rows = np.where(read[:, None], features, 0).astype("<f4")
        parts = rows.tobytes(), read.astype(np.uint8).tobytes(), b"".join(thumbs), np.array(
            list(map(len, thumbs)), "<u4").tobytes()  # fmt: skip
        for name, data in zip(PARTS, parts):
            with open(self.folder / name, "ab") as file:
                file.write(data)
        self.done += len(read)

    def rows(self) -> Rows:
        """The whole content, when all images are done."""
        shape = self.plan.count, self.plan.width
        features = np.memmap(self.folder / "features.f32", "<f4", "r", shape=shape)
        read = np.fromfile(self.folder / "read.u8", np.uint8).astype(bool)
        ends = np.cumsum(np.fromfile(self.folder / "lengths.u32", "<u4"), dtype=np.int64)
        return Rows(features, read, Thumbs(self.folder / "thumbs.bin", ends))

    def remove(self) -> None:
        """Deletes the folder, the plan first: after a kill in between, what is left counts as nothing."""
        (self.folder / "plan.json").unlink(missing_ok=True)
        shutil.rmtree(self.folder, ignore_errors=True)
