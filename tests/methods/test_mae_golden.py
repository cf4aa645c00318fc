"""The whole of MAE, from an official file to the loss, against what the official code gave for the same noise."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jax_ssl import losses, masking, weights
from jax_ssl.methods.mae import Net
from jax_ssl.models.positions import sincos
from tests.near import relative_error

FILES = {"official_mae": ("pred", True), "hf_mae_normpix0": ("logits", False), "hf_mae_normpix1": ("logits", True)}


@pytest.fixture(params=FILES)
def case(request):
    folder = request.config.rootpath / "tests" / "golden"
    prediction, norm_pix = FILES[request.param]
    io = np.load(folder / f"{request.param}_io.npz")
    whole = weights.load_mae(folder / f"{request.param}.pth", decoder_heads=2)
    return whole, io, io[prediction], norm_pix


@pytest.mark.seal(2, "mae")
def test_mask_prediction_and_loss_are_those_of_the_official_code(case):
    whole, io, golden, norm_pix = case
    keep, restore, hidden = masking.split(jnp.asarray(io["noise"]), keep=4)
    np.testing.assert_array_equal(hidden, io["mask"])
    if "ids_restore" in io:
        np.testing.assert_array_equal(restore, io["ids_restore"])
    images = jnp.asarray(io["x"])
    net = Net(whole.backbone, whole.decoder)
    prediction = jax.jit(net.apply)({"params": whole.params}, images, keep, restore)
    assert prediction.dtype == jnp.float32
    assert relative_error(prediction, golden) <= 1e-5
    loss = losses.mae(prediction, losses.patchify(images, whole.backbone.patch), hidden, norm_pix)
    assert relative_error(loss, io["loss"]) <= 1e-5


def test_position_codes_are_the_official_ones_in_order_of_axes_and_of_frequencies(request):
    """The recorded codes carry noise of 0.05, like every recorded parameter; a wrong order is off by up to 2."""
    codes = np.load(request.config.rootpath / "tests" / "golden" / "official_mae_io.npz")["pos_embed"][0]
    assert np.abs(codes[0]).max() < 0.25  # the class token has none
    assert np.abs(codes[1:] - sincos((4, 4), 32)).max() < 0.25
    assert np.abs(codes[1:] - sincos((4, 4), 32)).std() < 0.06
    assert np.abs(codes[1:] - sincos((4, 4), 32, "row")).max() > 1


@pytest.mark.parametrize("grid, width", [((4, 4), 32), ((2, 5), 16)])
def test_position_codes_follow_the_definition(grid, width):
    """Column first, each axis as sines then cosines of position / 10000^(j / (D / 4)), rows of the grid first."""
    quarter, waves = width // 4, (np.sin, np.cos)
    expected = [
        [wave(axis / 10000 ** (j / quarter)) for axis in (column, row) for wave in waves for j in range(quarter)]
        for row in range(grid[0])
        for column in range(grid[1])
    ]
    np.testing.assert_allclose(sincos(grid, width), expected, atol=1e-6)
