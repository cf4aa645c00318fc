"""Small square images as a folder of parts: lossless pictures that travel to a machine without a network bit by bit.

    python tests/benchmarks/parts.py cifar10.npz parts/     # x_train, y_train, x_test, y_test -> 1 MB a part
    python tests/benchmarks/parts.py parts/ cifar10.npz     # and back: what `--config.data.name=arrays:FILE` takes

A part is a strip of at most 500 images below each other, `train_000.webp`; `labels.npz` has the labels of each split.
The folder may hold the parts in folders of its own. The embedded images of the package lie in the same way.
"""

import sys
from pathlib import Path

import numpy as np
from PIL import Image

AT_ONCE = 500  # images a part: WebP's sides end at 16 383 pixels
SPLITS = ("train", "test")


def cut(arrays: dict[str, np.ndarray], folder: Path) -> int:
    """Writes x_train, y_train, x_test and y_test, uint8 (N, S, S, 3) and int (N,), as parts; returns how many."""
    folder.mkdir(parents=True, exist_ok=True)
    count = 0
    for split in SPLITS:
        images = arrays[f"x_{split}"]
        for number, first in enumerate(range(0, len(images), AT_ONCE)):
            strip = images[first : first + AT_ONCE].reshape(-1, *images.shape[2:])
            Image.fromarray(strip).save(folder / f"{split}_{number:03d}.webp", lossless=True, method=2)
            count += 1
    np.savez_compressed(folder / "labels.npz", **{split: arrays[f"y_{split}"].astype(np.uint8) for split in SPLITS})
    return count


def join(folder: Path) -> dict[str, np.ndarray]:
    """The arrays that `cut` was given. Raises ValueError where a part or the labels are missing."""
    files = sorted(folder.rglob("*.webp"), key=lambda path: path.name)
    labels = next(iter(sorted(folder.rglob("labels.npz"))), None)
    if labels is None:
        raise ValueError(f"{folder} has no labels.npz: give the folder that `parts.py FILE.npz FOLDER` wrote.")
    arrays = {}
    with np.load(labels, allow_pickle=False) as found:
        for split in SPLITS:
            strips = [np.asarray(Image.open(path).convert("RGB")) for path in files if path.name.startswith(split)]
            side = strips[0].shape[1] if strips else 0
            images = [strip.reshape(-1, side, side, 3) for strip in strips]
            count = sum(map(len, images))
            if count != len(found[split]):
                labelled = len(found[split])
                raise ValueError(f"{folder} has {count} {split} images and {labelled} labels: parts are missing.")
            arrays |= {f"x_{split}": np.concatenate(images), f"y_{split}": found[split]}
    return arrays


def main(given: str, wanted: str) -> None:
    if Path(given).is_dir():
        np.savez(wanted, **join(Path(given)))
        return
    with np.load(given, allow_pickle=False) as archive:
        print(f"{cut(dict(archive), Path(wanted))} parts in {wanted}")


if __name__ == "__main__":
    if len(sys.argv) != 3:
        sys.exit(__doc__)
    main(*sys.argv[1:])
