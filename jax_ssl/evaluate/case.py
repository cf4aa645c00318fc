"""What a ruler measures: one network, or raw pixels, on the images of one data set.

A ruler is a file of this folder with `NEEDS` and `measure(case, seed, *, ...) -> ({metric: number}, protocol)`; its
name is the name of its task. NEEDS has "labels" if it needs labelled images, "network" if it can't measure raw pixels,
"squares" if it can't measure images whose height is not their width, "trained" if untrained networks are none of its
rows, as it has them as a baseline. The keywords are its options. A number is finite, and a fraction where there is a
choice; `recall@5` is the metric `recall` at k = 5. The protocol has every choice that was made. SHOWN are the metrics
in its table, where it is not all; DECIDES is the one by which it is judged, where it is not the first. fewshot.py is a
small one.
"""

import functools
from collections.abc import Callable, Iterable, Iterator

import numpy as np

from jax_ssl import encoder
from jax_ssl.encoder import Encoder


class Side:
    """The training or the test images: `features`, `labels` and `images`, in one order.

    features: float32 (N, D), read only, on the host; for large sets mapped from a file. labels: int32 (N,) or None.
    images: uint8 (N, S, S, 3), an array or what reads them when they are asked for. Features and labels may be given as
    functions that make them; then they are made once, features first: images that can't be read are left out of all.
    """

    def __init__(self, features, labels=None, images=None):
        self._features, self._labels, self.images = features, labels, images

    @functools.cached_property
    def features(self) -> np.ndarray:
        return self._features() if callable(self._features) else self._features

    @functools.cached_property
    def labels(self) -> np.ndarray | None:
        if not callable(self._labels):
            return self._labels
        _ = self.features  # which leaves out what can't be read
        return self._labels()

    def __len__(self) -> int:
        return len(self.features)


class Case:
    """A network, or raw pixels, on a data set: what a ruler gets.

    name: "pixels", "untrained", "student", "teacher" or the name of a file. classes: 0 without labels. encode: an
    Encoder or a function that makes it; None for raw pixels. pixels: uint8 (b, S, S, 3) -> float32 (b, D), for those.
    flops, training: functions for cost.py, which counts nothing itself; the second is None but for a run's student.
    shared: where a ruler keeps what holds for all cases on the same images, under a key that begins with its name.
    """

    def __init__(
        self, name: str, train: Side, test: Side, classes: int = 0, encode=None, pixels: Callable | None = None,
        flops: Callable | None = None, training: Callable | None = None, shared: dict | None = None,
    ):  # fmt: skip
        self.name, self.train, self.test, self.classes = name, train, test, classes
        self._encode, self._pixels, self.flops, self.training = encode, pixels, flops, training
        self.shared = {} if shared is None else shared

    @functools.cached_property
    def encode(self) -> Encoder | None:
        return self._encode if self._encode is None or isinstance(self._encode, Encoder) else self._encode()

    def outputs(self, batches: Iterable[np.ndarray], read: Callable) -> Iterator:
        """What `read` takes from the network's Features of each batch of images; see `encoder.outputs`."""
        return encoder.outputs(self.encode, batches, read)

    def embed(self, batches: Iterable[np.ndarray]) -> np.ndarray:
        """Features of any images, as those of `train` and `test`: batches uint8 (b, S, S, 3) -> float32 (N, D)."""
        return np.concatenate(list(self.stream(batches)))

    def stream(self, batches: Iterable[np.ndarray]) -> Iterator[np.ndarray]:
        """`embed`, batch by batch."""
        return map(self._pixels, batches) if self._pixels else self.outputs(batches, encoder.pooled_of)
