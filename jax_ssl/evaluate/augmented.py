"""Random crops of images for probes that are trained on them, cut on the host, ahead of the network.

Which crop an image gets follows from (seed, epoch, image), as in training.
"""

import itertools
import os
from collections.abc import Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor

import numpy as np
from PIL import Image

from jax_ssl.views.cut import PLACE, cut_views
from jax_ssl.views.draws import draws


def recipe(side: int, count: int = 1, scale=(0.08, 1.0)) -> dict:
    """A random resized crop and a flip, as torchvision's: bicubic, without changes of colour."""
    return dict(
        count=count, size=side, scale=scale, ratio=(3 / 4, 4 / 3), interpolation="bicubic", flip=0.5,
        jitter=(0, 0, 0, 0), jitter_probability=0.0, grey=0.0, grey_first=False, blur=0.0, blur_sigma=(0.1, 2.0),
        solarize=0.0,
    )  # fmt: skip


def steps_of(count: int, batch: int, steps: int, seed: int) -> Iterator[tuple[int, np.ndarray]]:
    """Yields (epoch, rows) of each of `steps` batches of `count` images; an epoch is a permutation of whole batches."""
    whole = count // batch
    for number in range(steps):
        epoch, place = divmod(number, whole)
        order = np.random.default_rng((seed, epoch)).permutation(count)
        yield epoch, order[place * batch : (place + 1) * batch]


def crops(images, batches: Iterable[tuple[int, np.ndarray]], made_by: dict, seed: int) -> Iterator[np.ndarray]:
    """Yields the crops of the images of each batch (epoch, rows): uint8 (b * count, S, S, 3).

    images: uint8 (N, S, S, 3), read when asked for. made_by: a recipe. Crops are cut in threads, one batch ahead.
    """
    with ThreadPoolExecutor(os.cpu_count()) as pool:

        def begin(epoch, rows):
            # As sample, the row: so a crop does not depend on the batch that the image is in.
            drawn = draws([made_by], seed, np.full(len(rows), epoch, np.int64), rows.astype(np.int64), 0)
            one = lambda place, image: cut_views(
                Image.fromarray(image), {name: drawn[name][place] for name in PLACE}, [made_by]
            )
            return pool.map(one, range(len(rows)), images[rows])

        waiting = None
        for batch in itertools.chain(batches, [None]):
            begun = batch and begin(*batch)
            if waiting is not None:
                yield np.concatenate(list(waiting))
            waiting = begun
