"""A stand-in for a network, which costs nothing: its patches are the pixels of 4 x 4, and its vector is their mean."""

from types import SimpleNamespace

import numpy as np

from jax_ssl.evaluate.case import Case
from jax_ssl.evaluate.correspondence import cut
from jax_ssl.models.features import Features

PATCH = 4


def features(images) -> Features:
    """Of uint8 images (B, H, W, 3): pooled (B, 48), patches (B, H / 4 * W / 4, 48)."""
    patches = cut((images / 255).astype(np.float32), (images.shape[1] // PATCH, images.shape[2] // PATCH))
    return Features(patches.mean(1), patches, patches[:, :0])


class Patched(Case):
    """A Case of it."""

    def __init__(self, train=None, test=None, classes=0, side=16):
        encode = SimpleNamespace(size=side, backbone=SimpleNamespace(pool="cls"))
        super().__init__("student", train, test, classes)
        self.encode = encode

    def outputs(self, batches, read):
        return (np.asarray(read(features(batch))) for batch in batches)
