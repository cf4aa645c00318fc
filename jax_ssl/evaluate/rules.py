"""What every measure requires of its labelled features, and what it takes as a seed.

The rule: where nothing can be measured, a UserError says cause and remedy; a number without a meaning is never
returned. `offline` turns the error into a note, because a failed measurement must not end the run.
"""

import numpy as np

from jax_ssl.errors import UserError


def check(measure: str, train, train_labels, test) -> None:
    """Raises UserError for features that no measure can use: none, of one class, or not finite.

    measure: its name in the message. train (N, D) and test (Q, D): features; train_labels (N,).
    """
    if not len(train) or not len(test):
        raise UserError(
            f"{measure} learns from labelled images and tests on others; there are {len(train):,} and {len(test):,}: "
            "give at least two images of each class, or name a labelled set in data.probe.name."
        )
    if len(np.unique(np.asarray(train_labels))) < 2:
        raise UserError(
            f"{measure} needs two classes, and all {len(train):,} labelled images are of one class: put the "
            "images of each class into a folder of its own, or name a labelled set in data.probe.name."
        )
    check_features(measure, train, test)


def check_features(measure: str, *features) -> None:
    """Raises UserError for features (N, D) that are not finite, or the same for all images. measure: as in `check`."""
    for array in features:
        if not all(np.isfinite(np.asarray(block)).all() for block in blocks(array)):
            raise UserError(
                f"{measure} was given features that are not finite: the network's weights are damaged, or its images "
                "are (look at data.std); measure an earlier checkpoint."
            )
    for array in features:
        if len(array) > 1 and all((np.asarray(block) == np.asarray(array[:1])).all() for block in blocks(array)):
            raise UserError(
                f"{measure} was given the same feature for all {len(array):,} images: the network has collapsed, or "
                "its images are all the same; measure an earlier checkpoint."
            )


def blocks(array, rows: int = 4096):
    """Pieces of `rows` rows, so that no copy of all features is made."""
    return (array[start : start + rows] for start in range(0, len(array), rows))


def some(count: int, most: int, seed: int) -> np.ndarray:
    """Rows of `count` of which at most `most` are drawn by the seed, in order: int (min(count, most),). 0 = all."""
    if not 0 < most < count:
        return np.arange(count)
    return np.sort(np.random.default_rng(seed32(seed)).permutation(count)[:most])


def best_of(scores, losses) -> int:
    """Which of several heads is taken: the best accuracy; among equals the smallest loss, NaN for one that diverged."""
    return int(np.lexsort((np.nan_to_num(losses, nan=np.inf), -np.asarray(scores)))[0])


def seed32(seed: int) -> int:
    """Any integer as a seed that NumPy and JAX accept; those from 0 to 2^32 - 1 stay unchanged."""
    return seed % 2**32
