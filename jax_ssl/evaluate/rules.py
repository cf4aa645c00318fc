"""What every ruler asks of its labelled features, and what it takes as a seed.

The rule: a ruler that cannot tell raises a UserError with cause and remedy, and never returns a number that means
nothing. `offline` turns it into a note, because a measurement must not cost the run it measures.
"""

import numpy as np

from jax_ssl.errors import UserError


def check(ruler: str, train, train_labels, test) -> None:
    """Raises UserError where no ruler can tell anything. train (N, D) and test (Q, D): features; train_labels (N,)."""
    if not len(train) or not len(test):
        raise UserError(
            f"{ruler} learns from labelled images and tests on others, and there are {len(train):,} and {len(test):,}: "
            "give two images a class at least, or name a labelled set in data.probe.name."
        )
    if len(np.unique(np.asarray(train_labels))) < 2:
        raise UserError(
            f"{ruler} has nothing to tell apart, as all {len(train):,} labelled images are of one class: put the "
            "images of each class into a folder of its own, or name a labelled set in data.probe.name."
        )
    if not all(np.isfinite(np.asarray(features)).all() for features in (train, test)):
        raise UserError(
            f"{ruler} was given features that are not finite: the network's weights are ruined, or its images are "
            "(look at data.std); measure a checkpoint from before."
        )


def seed32(seed: int) -> int:
    """Any whole number as a seed that NumPy and jax take; those from 0 to 2^32 - 1 stay as they are."""
    return seed % 2**32
