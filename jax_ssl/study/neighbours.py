"""The nearest other images of each image of a set, by their features."""

import numpy as np

from jax_ssl.evaluate import knn


def nearest_others(features: np.ndarray, count: int) -> tuple[np.ndarray, np.ndarray]:
    """(numbers, cosines) of the nearest other images of each, two (N, count), the nearest first; count below N.

    features: float32 (N, D). Equal images are neighbours too.
    """
    cosines, numbers = knn.nearest(features, features, count + 1)
    own = numbers == np.arange(len(numbers))[:, None]
    own[:, -1] |= ~own.any(1)  # among many equal images, an image may not find itself: then the last one goes
    return numbers[~own].reshape(-1, count), cosines[~own].reshape(-1, count)
