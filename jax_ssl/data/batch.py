"""Which records and which random numbers make up the batch of a step. NumPy only, no pixels."""

from typing import NamedTuple

import numpy as np

from jax_ssl.data.order import sample_ids
from jax_ssl.views.draws import draws

GROUPS = ("views", "local")  # the index of a group is the stream of its random numbers
FACTORS = ("jitter", "order", "grey", "sigma", "solarize")  # what the device needs after crop and flip


class Plan(NamedTuple):
    """Says for every step of a run which records it takes and how their views are drawn."""

    seed: int
    total: int  # images in the source
    batch_size: int  # over all hosts
    share: int  # images of the batch that this host makes
    offset: int  # place of this host's first image in the batch
    crops: dict  # {group: list of recipes}

    def step(self, step: int) -> tuple[np.ndarray, dict]:
        """The records, int64 (share,), and {group: its draws, arrays (share, V, ...)} of a step; see `draws`."""
        first = step * self.batch_size + self.offset
        epoch, record = sample_ids(self.seed, first, self.share, self.total)
        drawn = {name: draws(group, self.seed, epoch, record, GROUPS.index(name)) for name, group in self.crops.items()}
        return record, drawn
