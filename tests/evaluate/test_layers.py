"""Maps are pooled to the sizes of the papers' probes, by torch's rule."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jax_ssl import encoder, parts
from jax_ssl.encoder import Encoder, at_depth, outputs
from jax_ssl.evaluate import correspondence, layers
from jax_ssl.evaluate.layers import adaptive, pooled_side
from tests.small import small


@pytest.mark.parametrize("rows, width, side", [
    (55, 64, 12), (27, 192, 7), (13, 384, 5), (13, 256, 6),  # RotNet's AlexNet, conv1 to conv5
    (56, 256, 6), (28, 512, 4), (14, 1024, 3), (7, 2048, 2),  # ResNet-50's stages in VISSL
    (4, 64, 4), (1, 20000, 1),
])  # fmt: skip
def test_the_sides_of_the_papers(rows, width, side):
    assert pooled_side(rows, width) == side


def test_cells_are_torchs():
    """torch's adaptive pools of 13 to 6: from floor(13 i / 6) to ceil(13 (i + 1) / 6)."""
    x = jnp.arange(13.0)[None, :, None]
    assert adaptive(x, 1, 6, jnp.max)[0, :, 0].tolist() == [2, 4, 6, 8, 10, 12]
    assert adaptive(x, 1, 6, jnp.mean)[0, :, 0].tolist() == [1, 3, 5, 7, 9, 11]
    assert adaptive(x, 1, 5, jnp.max)[0, :, 0].tolist() == [2, 5, 7, 10, 12]


def test_maps_behind_all_stages_are_those_of_shortened_networks(monkeypatch):
    images = np.random.RandomState(0).randint(0, 256, (3, 32, 32, 3)).astype(np.uint8)
    backbone = parts.make_backbone(small("simclr"))
    encode = Encoder(backbone, jax.jit(backbone.init)(jax.random.key(1), images / 255.0))
    asked = []
    monkeypatch.setattr(encoder, "batch_size", lambda each, size: asked.append((each.backbone.depths, size)) or 2)
    found = layers.maps(encode, images, range(1, 3), "max")
    assert asked == [(range(1, 3), 32)]  # as many at once as fit with what is kept of each depth
    for depth in (1, 2):
        (patches,) = outputs(at_depth(encode, depth), [images], correspondence.patches_of)
        np.testing.assert_allclose(found[depth - 1], patches.reshape(3, -1), atol=1e-5)  # small enough: not pooled


def test_as_many_depths_in_a_pass_as_memory_holds():
    assert layers.passes(4, 6000) == [range(1, 5)]
    assert layers.passes(5, 26_000) == [range(1, 3), range(3, 5), range(5, 6)]
    assert layers.passes(2, 10**6) == [range(1, 2), range(2, 3)]
