"""What a batch is made of: which records and which random numbers, from the step alone. NumPy, no pixels."""

from typing import NamedTuple

import numpy as np

from jax_ssl.data.order import sample_ids
from jax_ssl.views.draws import draws

GROUPS = ("views", "local")  # the place of a group is the stream of its random numbers
FACTORS = ("jitter", "order", "grey", "sigma", "solarize")  # what the device needs after crop and flip


class Plan(NamedTuple):
    """What the batches of a run are made of; the numpy part of the pipeline."""

    seed: int
    total: int  # images in the source
    batch_size: int  # over all hosts
    share: int  # of this host
    offset: int  # of this host in the batch
    crops: dict  # {group: list of recipes}

    def step(self, step: int) -> tuple[np.ndarray, dict]:
        """-> records int64 (share,) and {group: draws with leading (share, V)}."""
        first = step * self.batch_size + self.offset
        epoch, record = sample_ids(self.seed, first, self.share, self.total)
        drawn = {name: draws(group, self.seed, epoch, record, GROUPS.index(name)) for name, group in self.crops.items()}
        return record, drawn
