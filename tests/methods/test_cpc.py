"""CPC as a whole: what a prediction may know of the pixels, what it is asked, and what it shows."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax_ssl.configs import cpc as presets

from jax_ssl import config, core, parts, train
from jax_ssl.errors import UserError
from jax_ssl.models import input_stage
from jax_ssl.models.context import Cpc
from tests.small import small

PATCH, STRIDE, ROWS = 8, 4, 7


def method_of(*more):
    return train.build(small("cpc", *more), examples=320)[:2]


@pytest.fixture(scope="module")
def started():
    """(method, first state, a batch of held-out images)."""
    method, tx = method_of()
    batch = {"views": jax.random.normal(jax.random.key(0), (16, 1, 32, 32, 3))}
    return method, jax.jit(lambda b: core.create(method, tx, jax.random.key(0), b))(batch), batch


def predictor(norm):
    """images -> predictions (4, B, 7, 7, offsets, T) of the network as it trains."""
    net = Cpc(parts.make_backbone(small("cpc", f"--config.model.norm={norm}")), 4, 2, 16, 2, 8)
    cut = lambda images: input_stage.cut(images, range(0, 28, 4), range(0, 28, 4), PATCH)
    variables = net.init(jax.random.key(0), cut(jnp.ones((2, 32, 32, 3))), ROWS)

    @jax.jit
    def run(images):
        return net.apply(variables, cut(images), ROWS, train=True, mutable=["batch_stats"])[0][0]

    return run


@pytest.fixture(scope="module")
def strict():
    return predictor("layer")


@pytest.mark.seal(2, "cpc")
@pytest.mark.parametrize("row", [0, 3])
def test_no_pixel_of_what_is_predicted_reaches_the_prediction_in_any_direction(strict, row):
    """The first offset's patch begins where that of the row ends; all pixels from there on are changed."""
    images = jax.random.normal(jax.random.key(1), (2, 32, 32, 3))
    end = row * STRIDE + PATCH
    beyond = {"down": np.s_[:, end:], "up": np.s_[:, : 32 - end], "left": np.s_[:, :, : 32 - end],
              "right": np.s_[:, :, end:]}  # fmt: skip
    for direction, (edge, part) in enumerate(beyond.items()):
        changed = images.at[part].add(jax.random.normal(jax.random.key(2), images[part].shape))
        moved = np.asarray(strict(images)[direction] != strict(changed)[direction]).any((0, 2, 3, 4))
        assert not moved[: row + 1].any() and moved[row + 1 :].all(), edge


def test_by_the_statistics_of_a_batch_everything_reaches_everything():
    run, images = predictor("batch"), jax.random.normal(jax.random.key(1), (2, 32, 32, 3))
    moved = np.asarray(run(images)[0] != run(images.at[:, 24:].add(1.0))[0]).any((0, 2, 3, 4))
    assert moved.all()


def test_the_loss_is_the_mean_over_directions_and_offsets_that_share_no_pixels(started):
    """Of predictions of nothing, log of all patches of the batch; the images' own are among them."""
    method, state, batch = started
    still = {**state.params, "predict": jax.tree.map(jnp.zeros_like, state.params["predict"])}
    value, (_, metrics) = jax.jit(method.loss)(still, state, batch, jax.random.key(0))
    np.testing.assert_allclose(value, np.log(16 * ROWS**2), rtol=1e-5)
    np.testing.assert_allclose(metrics["uniform_loss"], value, rtol=1e-5)
    width = state.params["predict"]["steps"]["kernel"].shape[-1] // state.params["target"]["bias"].size
    assert width == config.load("cpc:tiny").method.offsets


def test_candidates_are_set_by_the_key(started):
    method, state, batch = started
    measure = jax.jit(method.task.measure)
    first, again = (measure(state.params, state, batch, jax.random.key(3))["accuracy"] for _ in range(2))
    assert first == again and first < 0.2 and method.task.chance["accuracy"] == 1 / 128
    solve = method.task.baselines["nearest colour"]([], jax.random.key(0), None)
    assert 0 <= solve(batch, jax.random.key(3))["accuracy"] < 0.2  # of noise


def test_a_person_sees_what_is_seen_what_comes_and_what_was_chosen(started):
    method, state, batch = started
    shown = jax.jit(method.show)(state.params, state, batch, jax.random.key(0))
    images = batch["views"][:8, 0]
    row = (ROWS - 2) // 2
    end = row * STRIDE + PATCH
    np.testing.assert_array_equal(shown["seen"][:, 0, :end], images[:, :end])
    assert not shown["seen"][:, 0, end:].any()
    assert shown["patches"].shape == (8, 7, PATCH, PATCH, 3) and shown["right"].shape == (8, 6)
    below = images[:, (row + 2) * STRIDE :][:, :PATCH, 3 * STRIDE : 3 * STRIDE + PATCH]
    np.testing.assert_array_equal(shown["patches"][:, 0], below)
    same = (shown["patches"][:, 1:] == shown["patches"][:, :1]).all((2, 3, 4))
    np.testing.assert_array_equal(same, shown["right"])


def test_one_image_of_four_patches_is_shown_with_the_few_candidates_that_there_are():
    method, _ = method_of("--config.method.patch=16", "--config.method.stride=16")
    batch = {"views": jnp.zeros((1, 1, 32, 32, 3))}
    params, extra = jax.eval_shape(method.init, jax.random.key(0), batch)
    state = core.TrainState(0, params, (), {}, extra, jax.random.key(0), 0)
    shown = jax.eval_shape(method.show, params, state, batch, jax.random.key(0))
    assert shown["patches"].shape == (1, 5, 16, 16, 3) and shown["right"].shape == (1, 4)


@pytest.mark.parametrize("flags, words", [
    (["patch=32"], "method.patch=32, 4 apart, on 32 pixels is 1 x 1"), (["offsets=6"], "up to 7 rows below"),
    (["offsets=0"], "at least 1"), (["patch=40"], "can't be cut from 32 pixels"),
    (["patch=16", "stride=16", "offsets=2"], "is 2 x 2: take a smaller patch or method.stride, or fewer"),
    (["jitter=8"], "method.jitter=8"), (["directions=3"], "choose one of 1, 2, 4"),
])  # fmt: skip
def test_grids_on_which_nothing_can_be_predicted_are_told(flags, words):
    with pytest.raises(UserError, match=words):
        method, _ = method_of(*(f"--config.method.{flag}" for flag in flags))
        jax.eval_shape(method.init, jax.random.key(0), {"views": jnp.zeros((4, 1, 32, 32, 3))})


@pytest.mark.parametrize("preset, first, network", [("paper", 3, 1024), ("paper_v1", 2, 1024), ("cifar", 2, 128)])
def test_presets_have_seven_by_seven_patches(preset, first, network):
    settings = presets.get_config(preset)
    side, patch, stride = settings.data.eval_size, settings.method.patch, settings.method.stride
    stage = parts.network_of(settings)
    assert len(stage.starts(side)) == ROWS and -(-patch // stride) == first
    features = jax.eval_shape(stage.init_with_output, jax.random.key(0), jnp.zeros((1, side, side, 3)))[0]
    assert features.pooled.shape == (1, network) and features.patches.shape[1] == ROWS**2
