"""What `data.reduce_jpegs` saves and changes: milliseconds to decode an image and cut its views, and their pixels.

    taskset -c 0 python tests/benchmarks/reduced_jpegs.py /path/to/photographs dino simclr mae

By processor time on one core. Differences are in 1/255, in the mean and for the pixel in a hundred that moves most; how
far bilinear views are from bicubic ones stands beside them. Every photograph of the folder is used four times.
"""

import sys
import time
from pathlib import Path

import numpy as np

from jax_ssl import config as configs
from jax_ssl.data import pipeline
from jax_ssl.data.batch import GROUPS
from jax_ssl.data.decode import decode
from jax_ssl.views.cut import PLACE, cut_views, reduction
from jax_ssl.views.draws import draws

EPOCHS = 4


def draws_of(crops: dict, epoch: int, record: int) -> list[tuple]:
    """(draws, recipes) of each group of one image's views."""
    numbers = np.array([epoch]), np.array([record])
    drawn = {name: draws(group, 0, *numbers, GROUPS.index(name)) for name, group in crops.items()}
    return [({key: drawn[name][key][0] for key in PLACE}, group) for name, group in crops.items()]


def timed(make):
    start = time.process_time()
    return make(), time.process_time() - start


def compare(files: list[bytes], crops: dict) -> dict[str, float]:
    """Mean seconds and differences over all files."""
    seconds, moved, other = [], [], []
    for record, file in enumerate(files):
        for epoch in range(EPOCHS):
            each = draws_of(crops, epoch, record)
            views = lambda image, each=each: np.concatenate([cut_views(image, *group).ravel() for group in each])
            least = lambda height, width, each=each: min(reduction(*group, height, width) for group in each)
            whole, first = timed(lambda file=file, views=views: views(decode(file)))
            small, second = timed(lambda file=file, views=views, least=least: views(decode(file, "", least)))
            seconds.append((first, second))
            bilinear = [(drawn, [dict(group[0], interpolation="bilinear"), *group[1:]]) for drawn, group in each]
            moved.append(np.abs(whole.astype(int) - small))
            other.append(np.abs(whole.astype(int) - views(decode(file), bilinear)))
    whole, small = np.mean(seconds, axis=0)
    moved, other = np.concatenate(moved), np.concatenate(other)
    return {"ms": 1e3 * whole, "reduced ms": 1e3 * small, "times": whole / small, "mean": moved.mean(),
            "99 %": np.percentile(moved, 99), "bilinear mean": other.mean()}  # fmt: skip


def main(folder: str, *names: str) -> None:
    paths = [path for path in sorted(Path(folder).rglob("*")) if path.suffix.lower() in (".jpg", ".jpeg")]
    files = [path.read_bytes() for path in paths]
    for name in names:
        found = compare(files, pipeline.recipes(configs.load(name)))
        print(f"{name:<8} {len(files)} photographs  " + "  ".join(f"{key} {value:.2f}" for key, value in found.items()))


if __name__ == "__main__":
    if len(sys.argv) < 3:
        sys.exit(__doc__)
    main(*sys.argv[1:])
