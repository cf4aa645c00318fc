"""Opens the data set that `data.name` names, of whatever kind, as one `Source`. Does not import TensorFlow itself."""

import difflib
import functools
from pathlib import Path

import numpy as np
from PIL import Image

from jax_ssl.data.about import About, source_line
from jax_ssl.data.source import Source, in_memory
from jax_ssl.errors import UserError

KINDS = {
    "embedded": "embedded",
    "tfds": "tfds:NAME",
    "folder": "folder:PATH",
    "arrays": "arrays:FILE.npz",
    "synthetic": "synthetic or synthetic:SIZE",
}
EMBEDDED = Path(__file__).parent / "embedded"
CIFAR10 = ("airplane", "automobile", "bird", "cat", "deer", "dog", "frog", "horse", "ship", "truck")


def open_source(name: str, split: str, directory: str = "") -> Source:
    """A split of the data set `name`; see `KINDS` for how a name is written.

    split: `train`, `test`, or another split that the data set has. A labelled folder, TFDS set or array file without a
    test split holds out a tenth of each class, always the same images, as `test`. directory: where tensorflow-datasets
    are prepared; "" is its own default. Raises UserError where the data set or the split does not exist.
    """
    kind, _, rest = name.partition(":")
    if kind not in KINDS:
        near = difflib.get_close_matches(kind, KINDS, n=1)
        hint = f"did you mean {KINDS[near[0]]!r}?" if near else f"choose one of {', '.join(KINDS.values())}."
        raise UserError(f"data.name is {name!r}, which is not a known kind of source: {hint}")
    if kind in ("tfds", "folder", "arrays") and not rest:
        raise UserError(f"data.name is {name!r}: say which, as {KINDS[kind]}.")
    # Imported here because most runs need none of these.
    if kind == "tfds":
        from jax_ssl.data.tfds import open_tfds

        return open_tfds(rest, split, directory)
    if kind == "folder":
        from jax_ssl.data.folder import open_folder

        return open_folder(rest, split)
    if kind == "arrays":
        from jax_ssl.data.arrays import open_arrays

        return open_arrays(rest, split)
    return _embedded(split) if kind == "embedded" else _synthetic(rest, split)


@functools.cache  # a run asks for them again and again, and they take 0.13 s of a core to decode
def _embedded(split: str) -> Source:
    """500 training and 100 test images of each class of CIFAR-10, part of the package; see embedded/NOTICE."""
    if split not in ("train", "test"):
        raise UserError(f"The embedded images have no split {split!r}: choose 'train' or 'test'.")
    strips = sorted(EMBEDDED.glob(f"{split}_*.webp"))
    images = np.concatenate([np.array(Image.open(strip).convert("RGB")).reshape(-1, 32, 32, 3) for strip in strips])
    images.setflags(write=False)
    with np.load(EMBEDDED / "labels.npz", allow_pickle=False) as labels:
        source = in_memory("embedded", images, labels[split], 10, CIFAR10)
    return source._replace(about=source_line(About("embedded"), 5000, 10, 1000))


def _synthetic(size: str, split: str) -> Source:
    """Noise around one colour per class: ten classes, 1 000 training and 200 test images of `size` or 32 pixels."""
    if size and not (size.isdecimal() and int(size) > 0):
        raise UserError(f"data.name is 'synthetic:{size}': the size is a whole number of pixels, as in synthetic:32.")
    if split not in ("train", "test"):
        raise UserError(f"The synthetic images have no split {split!r}: choose 'train' or 'test'.")
    side, count = int(size or 32), {"train": 1000, "test": 200}[split]
    colours = np.random.RandomState(0).uniform(40, 215, (10, 3))
    random = np.random.RandomState(1 if split == "train" else 2)
    labels = np.arange(count) % 10
    noise = random.standard_normal((count, side, side, 3)).astype(np.float32) * 40
    images = np.clip(colours[labels][:, None, None].astype(np.float32) + noise, 0, 255).astype(np.uint8)
    text = source_line(About(f"synthetic:{side}"), 1000, 10, 200)
    return in_memory("synthetic", images, labels, 10)._replace(about=text)
