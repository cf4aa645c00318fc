"""Maps are pooled to the sizes of the papers' probes, by torch's rule."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jax_ssl import parts
from jax_ssl.evaluate.layers import MapPool, adaptive, pooled_side
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


def test_pooled_features_are_the_map_where_it_is_small_enough():
    net = MapPool(parts.make_backbone(small("simclr")), "max")
    images = jax.random.normal(jax.random.key(0), (2, 32, 32, 3))
    features, variables = jax.jit(net.init_with_output)(jax.random.key(1), images)
    assert features.patches.shape == (2, 16, 16) and "Block_0" in variables["params"]
    np.testing.assert_array_equal(features.pooled, features.patches.reshape(2, -1))
