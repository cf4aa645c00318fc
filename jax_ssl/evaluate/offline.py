"""kNN and linear probe of one frozen encoder on one labelled set: the measures that training and `evaluate` share.

What can be measured is returned. For what cannot be, `notes` has a sentence with the reason: nine labelled images are
too few for a linear probe, but not for kNN and RankMe.
"""

from collections.abc import Callable, Iterable
from typing import NamedTuple

import jax
import numpy as np
from PIL import Image

from jax_ssl.encoder import Encoder, extract
from jax_ssl.errors import UserError
from jax_ssl.evaluate import knn, linear
from jax_ssl.losses.diagnostics import rankme
from jax_ssl.views.sizes import scaled_to

TASKS = ("knn", "linear")
K = 20  # of the kNN that is shown, see `shown_k`
ROWS = 2048  # of which the rank of features is taken
ABSENT = "-"  # in a table, for what could not be measured
PIXELS_SIDE = 32  # of the images whose pixels are features: 50 000 of them fit into 0.6 GB, at 224 into 30


class Measured(NamedTuple):
    """Measures of one network. Accuracies are fractions.

    knn: {k: top-1}. linear: what `linear.measure` returns. rankme: of the training features. What was not asked for or
    cannot be measured is empty or NaN; `notes` says why.
    """

    knn: dict
    linear: dict
    rankme: float
    notes: tuple[str, ...] = ()


def measure(encode: Encoder, data, seed: int = 0, tasks=TASKS) -> Measured:
    """The measures in `tasks` of the encoder's pooled features.

    data: train_images and test_images uint8 (N, H, W, 3), train_labels and test_labels int (N,), classes.
    """
    bank, test = (extract(encode, images) for images in (data.train_images, data.test_images))
    return measure_features(bank, test, data, seed, tasks)


def measure_features(train: np.ndarray, test: np.ndarray, data, seed: int = 0, tasks=TASKS) -> Measured:
    """The measures in `tasks` of given features (N, D), such as raw pixels."""
    notes = []

    def measured_or_noted(task: str, run: Callable[[], dict]) -> dict:
        try:
            return run() if task in tasks else {}
        except UserError as error:
            notes.append(str(error))
            return {}

    ks = tuple(k for k in knn.KS if k <= len(train)) or (len(train),)
    sets = train, data.train_labels, test, data.test_labels
    return Measured(
        knn=measured_or_noted("knn", lambda: knn.accuracies(*sets, ks=ks, classes=data.classes)),
        linear=measured_or_noted("linear", lambda: linear.measure(*sets, data.classes, seed=seed)),
        # So many rows are enough; the rank of all would take seconds.
        rankme=float(jax.jit(rankme)(train[:ROWS])) if len(train) else float("nan"),
        notes=tuple(notes),
    )


def scores(measured: Measured) -> dict[str, float]:
    """The numbers that training logs: knn (at the k nearest to 20), linear and rankme, where they were measured."""
    found = {"rankme": measured.rankme} if np.isfinite(measured.rankme) else {}
    if measured.linear:
        found["linear"] = measured.linear["top1"]
    if measured.knn:
        found["knn"] = measured.knn[shown_k(measured.knn)]
    return found


def shown_k(measured: Iterable[int]) -> int | None:
    """The k of the kNN accuracy that is shown: the nearest to K of those measured, None if there are none."""
    return min(measured, key=lambda k: abs(k - K), default=None)


def flat_pixels(images: np.ndarray, mean, std) -> np.ndarray:
    """Raw pixels, normalised as the network gets them, as features: uint8 (N, H, W, 3) -> float32 (N, D).

    They are a baseline. Images larger than PIXELS_SIDE are averaged down to it. Normalised pixels are the stronger
    baseline: with the mean left in, cosine similarity is mostly brightness.
    """
    small = shrink(images, PIXELS_SIDE).astype(np.float32)
    small /= 255
    small -= np.float32(mean)
    small /= np.float32(std)
    return small.reshape(len(images), -1)


def shrink(images: np.ndarray, side: int) -> np.ndarray:
    """uint8 (N, H, W, 3) with `side` pixels on the longer side, each the mean of those it covers; smaller unchanged."""
    if max(images.shape[1:3]) <= side:
        return images
    height, width = scaled_to(side, images.shape[1:3])
    small = np.empty((len(images), height, width, 3), np.uint8)
    for number, image in enumerate(images):
        small[number] = Image.fromarray(image).resize((width, height), Image.Resampling.BOX)
    return small


def heading(tasks) -> str:
    """The columns of the table: kNN at 20 and at its best k, linear probe, effective rank."""
    names = ("kNN k=20", "best k") * ("knn" in tasks) + ("linear",) * ("linear" in tasks) + ("RankMe",)
    return f"{'':32}" + "".join(f"{name:>10}" for name in names)


def row(label: str, measured: Measured, tasks) -> str:
    """A line of the table: accuracies in per cent, and RankMe."""
    knn, numbers = measured.knn, []
    if "knn" in tasks:
        numbers += [100 * knn[shown_k(knn)], 100 * max(knn.values())] if knn else [None, None]
    if "linear" in tasks:
        numbers.append(100 * measured.linear["top1"] if measured.linear else None)
    numbers.append(measured.rankme if np.isfinite(measured.rankme) else None)
    cells = (ABSENT if number is None else f"{number:.1f}" for number in numbers)
    return f"{label:32}" + "".join(f"{cell:>10}" for cell in cells)
