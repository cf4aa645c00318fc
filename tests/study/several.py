"""Features of images that several processes share, for the test of hosts: tests/run/test_hosts.py."""

import flax.linen as nn
import jax.numpy as jnp
import numpy as np

from jax_ssl.data.broken import Broken
from jax_ssl.data.decode import BrokenImage
from jax_ssl.data.source import in_memory
from jax_ssl.data.split import Split
from jax_ssl.encoder import Encoder, outputs
from jax_ssl.models.features import Features
from jax_ssl.study import features
from tests.small import small

COUNT, BATCH, UNREADABLE = 83, 30, (7, 40, 82)


class Colours(nn.Module):
    """A network without weights: the mean colour."""

    def __call__(self, images):
        patches = images.reshape(len(images), -1, 3)
        return Features(patches.mean(1), patches, jnp.zeros((len(images), 0, 3)))


def extract(out) -> np.ndarray:
    """Features (N, 3), and in a last column the place of the image among all of them, of those that can be read."""
    images = np.random.default_rng(0).integers(0, 256, (COUNT, 32, 32, 3), np.uint8)
    source = in_memory("images", images, None)

    def read(record, reduction=None):
        if record in UNREADABLE:
            raise BrokenImage(f"images[{record}]", "it is a test")
        return source.read(record)

    data = small("simclr").data
    data.eval_size, data.eval_crop = 32, 1.0
    split = Split(source._replace(read=read), np.arange(COUNT), data, Broken("images", COUNT, 0.5))
    making = features.Making(lambda batches: outputs(Encoder(Colours(), {}, size=32), batches), lambda: BATCH)
    found = features.make_or_load(making, split, "colours", str(out), {}, print)
    return np.concatenate([found, split.records[:, None]], axis=1)
