"""A NumPy file of images and labels: x_train [y_train x_test y_test], or images [labels]."""

import io
import zipfile
from typing import NamedTuple

import numpy as np

from jax_ssl.data.about import About, join_names, plural, printable, source_line
from jax_ssl.data.disk import is_permanent, retry
from jax_ssl.data.source import Source, in_memory, train_or_test
from jax_ssl.errors import UserError
from jax_ssl.paths import resolve

TESTS = ("test", "val", "valid", "validation")  # the first one in the file is the test split
SPARSE = 1000  # label ids are renumbered where the largest is at least 2 * classes + SPARSE


class Labels(NamedTuple):
    """The labels of all splits, with ids from 0 on."""

    ids: dict[str, np.ndarray]  # {split: int32 (N,)}
    classes: int
    names: tuple[str, ...]  # of the classes, where ids were renumbered: the ids of the file
    note: tuple[str, ...]  # for the line about the source


def open_arrays(file: str, split: str) -> Source:
    """A split of an .npz file. Without a test split, a tenth of each class is held out as `test`.

    Raises UserError where the file is missing, damaged, or has arrays of other names, shapes or dtypes.
    """
    arrays = load(file)
    keys, name = sorted(arrays), printable(resolve(file).name)
    if "images" not in keys and "x_train" not in keys:
        raise UserError(
            f"{printable(file)} holds {keys}: name its arrays x_train, y_train, x_test, y_test, or images and labels."
        )
    pairs = {"train": ("images", "labels")} if "images" in keys else {
        key[2:]: (key, f"y_{key[2:]}") for key in keys if key.startswith("x_")
    }  # fmt: skip
    test = next((part for part in TESTS if part in pairs), None)
    images = {part: _images(file, pair[0], arrays[pair[0]]) for part, pair in pairs.items()}
    labels = _labels(file, pairs, arrays, {part: len(found) for part, found in images.items()})
    left = sorted(set(keys) - {key for part in ("train", test) for key in pairs.get(part, ())})
    place = f"x_{test}" if test not in (None, "test") else ""
    about = About(f"arrays:{printable(file)}", "", place, labels.note, tuple(left))
    wanted = test if split == "test" and test else split
    if wanted not in pairs and split not in ("train", "test"):
        raise UserError(f"{printable(file)} has no split {split!r}: it holds {keys}.")
    take = lambda part: in_memory(name, images[part], labels.ids.get(part), labels.classes, labels.names)
    if not test and split in ("train", "test"):
        return train_or_test(take("train"), split, about=about)
    present = len(np.unique(labels.ids["train"])) if "train" in labels.ids else 0
    text = source_line(about, len(images["train"]), present, len(images[test]) if test else None)
    return take(wanted)._replace(about=text)


def load(file: str) -> dict[str, np.ndarray]:
    """All arrays of an .npz file."""
    path = resolve(file)

    def read():
        with np.load(io.BytesIO(path.read_bytes()), allow_pickle=False) as archive:
            return {key: archive[key] for key in archive.files}

    try:
        return retry(read, str(path), is_permanent)
    except FileNotFoundError as error:
        raise UserError(
            f"There is no file {printable(file)}: give arrays:FILE.npz with x_train, y_train, x_test, y_test."
        ) from error
    except (ValueError, OSError, EOFError, AttributeError, TypeError, zipfile.BadZipFile) as error:
        raise UserError(f"{printable(file)} can't be read as a NumPy .npz file of plain arrays: {error}") from error


def _images(file: str, key: str, images: np.ndarray) -> np.ndarray:
    """The array as uint8 (N, H, W, 3); a grey channel is repeated."""
    shape = images.shape
    if images.ndim == 3 and shape[-1] != 3:  # (height, width, 3) is one colour image, not many grey ones of width 3
        images = images[..., None]
    if images.dtype != np.uint8 or images.ndim != 4 or images.shape[-1] not in (1, 3) or not len(images):
        found = f"{images.dtype} {shape}"
        raise UserError(
            f"{printable(file)}: {key} is {found}: save it as uint8 (images, height, width, 3), one or more."
        )
    return np.repeat(images, 3, axis=-1) if images.shape[-1] == 1 else images


def _labels(file: str, pairs: dict, arrays: dict[str, np.ndarray], counts: dict[str, int]) -> Labels:
    """The labels, checked. Sparse ids are renumbered, as kNN and linear probe need memory for each possible id."""
    found = {}
    for part, (_, key) in pairs.items():
        if key in arrays:
            found[part] = labels = arrays[key].reshape(-1)
            if len(labels) != counts[part] or labels.dtype.kind not in "iu" or labels.min() < 0:
                raise UserError(
                    f"{printable(file)}: {key} must hold a whole number from 0 on for each of {counts[part]} images."
                )
    if not found:
        return Labels({}, 0, (), ())
    largest = max(int(labels.max()) for labels in found.values())
    present = np.unique(np.concatenate([labels.astype(np.uint64) for labels in found.values()]))
    if largest < 2 * len(present) + SPARSE:
        return Labels({part: labels.astype(np.int32) for part, labels in found.items()}, largest + 1, (), ())
    ids = {part: np.searchsorted(present, labels.astype(np.uint64)).astype(np.int32) for part, labels in found.items()}
    shown = tuple(map(str, present.tolist()))
    note = f"{plural(len(present), 'label id')} up to {largest:,} numbered from 0 on ({join_names(shown)})"
    return Labels(ids, len(present), shown, (note,))
