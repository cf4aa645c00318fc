"""The whole of SimMIM, from an official file to the loss and its gradient, and what is hidden."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax_ssl.configs import simmim as simmim_config

from jax_ssl import core, losses, masking, train, weights
from jax_ssl.errors import UserError
from jax_ssl.methods import simmim
from jax_ssl.methods.simmim import Net
from jax_ssl.optim.schedules import Clock
from tests.near import relative_error
from tests.small import small
from tests.weights.arrays import read


@pytest.mark.seal(2, "simmim")
def test_prediction_loss_and_gradient_are_those_of_the_official_code(request):
    folder = request.config.rootpath / "tests" / "golden"
    file, io = folder / "official_simmim.pth", np.load(folder / "official_simmim_io.npz")
    encoder, head = weights.load(file, heads=2), read(file)
    side, width = encoder.backbone.patch, encoder.backbone.width
    # The official head's outputs are ordered by channel first: a pixel shuffle puts them in their places.
    in_order = lambda x: np.moveaxis(x.reshape(3, side, side, -1), 0, 2).reshape(side**2 * 3, -1)
    kernel, bias = in_order(head["decoder.0.weight"]).T, in_order(head["decoder.0.bias"])[:, 0]
    assert kernel.shape == (width, side**2 * 3)
    params = {"backbone": encoder.variables["params"], "predict": {"kernel": kernel, "bias": bias}}
    net, patches = Net(encoder.backbone), losses.patchify(jnp.asarray(io["x"]), side)

    @jax.jit
    @jax.value_and_grad
    def evaluate(params):
        return losses.simmim(net.apply({"params": params}, io["x"], io["mask"] > 0), patches, io["mask"])

    prediction = jax.jit(net.apply)({"params": params}, io["x"], io["mask"] > 0)
    assert relative_error(losses.unpatchify(prediction, side, 4), io["pred"]) <= 1e-5
    value, gradient = evaluate(params)
    assert relative_error(value, io["loss"]) <= 1e-5
    gradient = gradient["backbone"]
    assert relative_error(gradient["mask_token"], io["dmask_token"]) <= 1e-5
    assert relative_error(gradient["encoder"]["relative_bias"]["table"], io["dtable"]) <= 1e-5
    expected = io["dembed"].transpose(2, 3, 1, 0).reshape(-1, width)
    assert relative_error(gradient["embed"]["kernel"], expected) <= 1e-5


@pytest.mark.parametrize("size, cell, patch, count", [(224, 32, 16, 30), (192, 32, 16, 22), (32, 8, 4, 10)])
def test_as_many_cells_are_hidden_as_in_the_paper_and_each_as_a_whole(size, cell, patch, count):
    """22 of 36 cells of an image of 192 pixels."""
    grid, side = (size // patch,) * 2, cell // patch
    cells = (size // cell) ** 2
    scores = masking.cell_scores(jax.random.key(0), 6, grid, side)
    hidden = np.asarray(masking.split(scores, (cells - count) * side**2)[2])
    whole = hidden.reshape(6, size // cell, side, size // cell, side).mean((2, 4))
    assert set(np.unique(whole)) == {0.0, 1.0} and np.all(whole.sum((1, 2)) == count)
    assert len(np.unique(hidden, axis=0)) == 6


def shown_by(*more):
    """(views, function from views to the picture of a reconstruction) of a new network."""
    config, views = small("simmim", *more), jax.random.uniform(jax.random.key(0), (4, 1, 32, 32, 3))
    method, tx, _ = train.build(config, examples=320)
    state = jax.jit(lambda x: core.create(method, tx, jax.random.key(0), {"views": x}))(views)
    return views, jax.jit(lambda x: method.show(state.params, state, {"views": x}, state.rng)["reconstruction"])


def test_what_a_person_sees_is_the_image_what_is_left_and_the_filled_holes():
    views, show = shown_by("--config.method.mask_ratio=0.5")
    image, left, filled = np.moveaxis(show(views), 1, 0)
    holes = np.all(left == 0, axis=-1)
    np.testing.assert_array_equal(image, views[:, 0])
    np.testing.assert_array_equal(filled[~holes], image[~holes])
    np.testing.assert_allclose(holes.mean((1, 2)), 0.5)
    assert np.all(filled[holes] != image[holes])


def test_only_what_a_mask_token_covers_is_unknown_to_the_encoder():
    """What is under the mask changes the target, never the prediction."""
    views, show = shown_by()
    holes = np.all(np.asarray(show(views))[:, 1] == 0, axis=-1)[:, None, ..., None]
    np.testing.assert_allclose(show(jnp.where(holes, 1 - views, views))[:, 2], show(views)[:, 2], atol=1e-6)


@pytest.mark.parametrize("override, words", [
    ("mask_cell=12", "multiple of model.patch=8"), ("mask_cell=24", "24 does not divide images of 32 x 32"),
    ("mask_ratio=1.5", "mask_ratio=1.5"),
])  # fmt: skip
def test_wrong_masks_are_told(override, words):
    with pytest.raises(UserError, match=words):
        shown_by(f"--config.method.{override}")


def test_a_network_without_patches_is_refused():
    with pytest.raises(UserError, match="model.name='vit'"):
        simmim.make(object(), Clock(1.0, 1))


def test_the_paper_s_preset_is_the_official_recipe():
    config = simmim_config.get_config()
    assert (config.batch_size, config.epochs, config.optim.scaling, config.optim.clip) == (2048, 800, "linear_512", 5)
    assert (config.method.mask_cell, config.method.mask_ratio, config.optim.milestones) == (32, 0.6, (700.0,))
