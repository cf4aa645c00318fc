"""The nearest other images of each image of a set, by their features."""

import numpy as np

from jax_ssl.evaluate import knn
from jax_ssl.run.progress import Counter


def compared(features: np.ndarray, count: int, say) -> tuple[np.ndarray, np.ndarray]:
    """(cosines, numbers) of `knn.nearest` of each image among all, itself included. say: told how far it is."""
    with Counter("comparing images with each other", len(features), say) as counter:
        return knn.nearest(features, features, count, done=counter.add)


def nearest_others(features: np.ndarray, count: int, say=print) -> tuple[np.ndarray, np.ndarray]:
    """(numbers, cosines) of the nearest other images of each, two (N, count), the nearest first; count below N.

    features: float32 (N, D). Equal images are neighbours too.
    """
    cosines, numbers = compared(features, count + 1, say)
    own = numbers == np.arange(len(numbers))[:, None]
    own[:, -1] |= ~own.any(1)  # among many equal images, an image may not find itself: then the last one goes
    return numbers[~own].reshape(-1, count), cosines[~own].reshape(-1, count)
