"""kNN and linear probe of one frozen encoder on one labelled set: the rulers that training and `evaluate` share."""

from typing import NamedTuple

import numpy as np

from jax_ssl.encoder import Encoder, extract
from jax_ssl.evaluate import knn, linear
from jax_ssl.losses.diagnostics import feature_std, rankme


class Measured(NamedTuple):
    """Fractions: knn top-1 for each k, and what the linear probe says; feature_std and rankme of the bank."""

    knn: dict
    linear: dict
    feature_std: float
    rankme: float


def measure(encode: Encoder, data, seed: int = 0, batch: int = 256) -> Measured:
    """Both rulers on the encoder's pooled features.

    data: train_images and test_images uint8 (N, H, W, 3), train_labels and test_labels int (N,), classes.
    """
    bank, test = (extract(encode, images, batch) for images in (data.train_images, data.test_images))
    return measure_features(bank, test, data, seed)


def measure_features(train: np.ndarray, test: np.ndarray, data, seed: int = 0) -> Measured:
    """Both rulers on features (N, D) that are at hand: raw pixels, for one."""
    ks = tuple(k for k in knn.KS if k <= len(train)) or (len(train),)
    return Measured(
        knn=knn.accuracies(train, data.train_labels, test, data.test_labels, ks=ks, classes=data.classes),
        linear=linear.measure(train, data.train_labels, test, data.test_labels, data.classes, seed=seed),
        feature_std=float(feature_std(train)),
        rankme=float(rankme(train[:2048])),  # 2 048 rows tell the rank; a full SVD of the bank would cost seconds
    )


def pixels(data, mean, std) -> tuple[np.ndarray, np.ndarray]:
    """Raw pixels, normalised as the network gets them, as features: the baseline a representation has to beat.

    Normalised because it is the stronger baseline: without a mean removed, cosine similarity is mostly brightness.
    """
    flat = lambda images: ((images / np.float32(255) - np.float32(mean)) / np.float32(std)).reshape(len(images), -1)
    return flat(data.train_images), flat(data.test_images)
