"""BEiT's network and loss against the official code, its tokenizer's part, and what a user can get wrong."""

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from jax_ssl.configs import beit as beit_config
from PIL import Image

from jax_ssl import config, core, losses, train, weights
from jax_ssl.errors import UserError
from jax_ssl.methods import beit
from jax_ssl.models import dvae
from jax_ssl.optim.schedules import Clock
from jax_ssl.plan import pods
from jax_ssl.run import checkpoints, identity
from tests.near import relative_error
from tests.small import small
from tests.weights.arrays import read

TX = optax.sgd(0.1)


@pytest.mark.seal(2, "beit")
def test_scores_loss_and_gradient_are_those_of_the_official_code(request):
    folder = request.config.rootpath / "tests" / "golden"
    file, io = folder / "official_beit.pth", np.load(folder / "official_beit_io.npz")
    encoder, head = weights.load(file, heads=2), read(file)
    head = {"kernel": head["lm_head.weight"].T, "bias": head["lm_head.bias"]}
    params, net = {"backbone": encoder.variables["params"], "head": head}, beit.Net(encoder.backbone, 20)
    places = np.stack([np.flatnonzero(row) for row in io["mask"]])
    codes = np.take_along_axis(io["ids"], places, axis=1)

    @jax.jit
    def evaluate(params):
        scores = net.apply({"params": params}, io["x"], io["mask"], places)
        return losses.beit(scores, codes), scores

    (value, scores), gradient = jax.jit(jax.value_and_grad(evaluate, has_aux=True))(params)
    assert relative_error(scores.reshape(-1, 20), io["logits"]) <= 1e-5
    assert relative_error(value, io["loss"]) <= 1e-5
    assert relative_error(gradient["head"]["kernel"], io["dhead"].T) <= 1e-5
    assert relative_error(gradient["backbone"]["mask_token"], io["dmask_token"]) <= 1e-5
    table = gradient["backbone"]["encoder"]["relative_bias"]["table"]
    assert relative_error(table, io["dtable"]) <= 1e-5
    qkv = gradient["backbone"]["encoder"]["blocks"]["attention"]["qkv"]["kernel"][0]
    assert relative_error(qkv, io["dqkv"].T) <= 1e-5


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """The folder of a tokenizer's run, as training leaves it."""
    path, settings = tmp_path_factory.mktemp("dvae"), small("dvae", "--config.data.std=(0.5,0.5,0.5)")
    method = train.build(settings, examples=320)[0]
    create = jax.jit(lambda batch: core.create(method, TX, jax.random.key(3), batch))
    state = create({"views": jnp.zeros((2, 1, 32, 32, 3))})
    keeper = checkpoints.Checkpoints(path / "checkpoints")
    keeper.save(1, state, wait=True)
    keeper.close()
    identity.write_config(path, config.to_dict(settings))
    return str(path)


def begin(*more, views=None):
    """(method, first state, batch) of the small config."""
    method = train.build(small("beit", *more), examples=320)[0]
    views = jax.random.uniform(jax.random.key(0), (6, 1, 32, 32, 3)) if views is None else views
    state = jax.jit(lambda b: core.create(method, TX, jax.random.key(0), b))({"views": views})
    return method, state, {"views": views}


@pytest.mark.seal(2, "beit")
def test_the_targets_are_the_frozen_tokenizer_s_codes_and_it_stays_as_it_was(folder):
    """Predicting its codes exactly makes the loss zero; a step leaves its parameters alone, which are in `extra`."""
    method, state, batch = begin(f"--config.method.tokenizer={folder}")
    tokenizer = weights.tokenizer.load_tokenizer(folder)
    assert set(state.params) == {"backbone", "head"}
    jax.tree.map(np.testing.assert_array_equal, state.extra["tokenizer"], tokenizer.params())
    step = jax.jit(lambda s, b: core.train_step(method, TX, s, b))
    after, metrics = step(state, batch)
    jax.tree.map(np.testing.assert_array_equal, after.extra["tokenizer"], tokenizer.params())
    np.testing.assert_allclose(metrics["uniform_loss"], np.log(24), rtol=1e-6)
    assert metrics["loss"] == metrics["code_loss"]

    # The same code for all patches, forced by the bias, is what a head without weights predicts best by its bias.
    backbone = state.extra["tokenizer"]["backbone"]
    backbone = {**backbone, "codes": {**backbone["codes"], "bias": 1e4 * jax.nn.one_hot(7, 24)}}
    extra = {**state.extra, "tokenizer": {**state.extra["tokenizer"], "backbone": backbone}}
    head = {"kernel": jnp.zeros_like(state.params["head"]["kernel"]), "bias": 1e4 * jax.nn.one_hot(7, 24)}
    known = state.replace(extra=extra, params={**state.params, "head": head})
    metrics = step(known, batch)[1]
    assert (metrics["loss"], metrics["code_accuracy"], metrics["prototype_use"]) == (0, 1, 1)


def test_a_plan_has_the_tokenizer_that_is_yet_to_be_trained(folder):
    def shapes(folder, planned=True):
        config = pods.as_plan(lambda more: small("beit", *more), [f"--config.method.tokenizer={folder}"])
        config.method.planned = planned
        method = train.build(config, examples=320)[0]
        batch = {"views": jnp.zeros((2, 1, 32, 32, 3))}
        return jax.eval_shape(lambda: core.create(method, TX, jax.random.key(0), batch))

    to_come, there = shapes("nowhere"), shapes(folder)
    assert jax.tree.all(jax.tree.map(lambda a, b: (a.shape, a.dtype) == (b.shape, b.dtype), to_come, there))
    with pytest.raises(UserError, match="train one first"):
        shapes("nowhere", planned=False)


def painted(folder, mean, std, pixels):
    """What the tokenizer sees in views that were normalised in one way or another, as pixels."""
    norm = [f"--config.data.mean={mean}", f"--config.data.std={std}"]
    mean, std = np.float32(mean), np.float32(std)
    method, state, batch = begin(f"--config.method.tokenizer={folder}", *norm, views=(pixels - mean) / std)
    shown = jax.jit(method.show)(state.params, state, batch, jax.random.key(1))["reconstruction"]
    return np.asarray(shown) * std + mean


def test_the_tokenizer_sees_the_same_pixels_however_the_views_are_normalised(folder):
    pixels = np.random.RandomState(0).rand(4, 1, 32, 32, 3).astype(np.float32)
    one = painted(folder, (0.0, 0.0, 0.0), (1.0, 1.0, 1.0), pixels)
    other = painted(folder, (0.5, 0.4, 0.6), (0.2, 0.3, 0.1), pixels)
    np.testing.assert_allclose(one[:, 3], other[:, 3], atol=1e-4)
    assert one.shape == (4, 4, 32, 32, 3)
    holes = np.any(one[:, 3] != one[:, 0], axis=-1)
    assert np.all(one[:, 1][holes] == 0) and np.all(one[:, 2][~holes] == one[:, 0][~holes])
    np.testing.assert_allclose(holes.mean(), 6 / 16, atol=1e-6)  # int(0.383 * 16) patches of every image


def test_a_tokenizer_that_learns_beside_learns_by_its_own_loss_alone():
    method, state, batch = begin()

    @jax.jit
    @jax.grad
    def gradient(params):
        return method.loss(params, state, batch, jax.random.key(1))[1][1]["code_loss"]

    found = gradient(state.params)
    assert all(not np.any(g) for g in jax.tree.leaves(found["tokenizer"]))
    assert any(np.any(g) for g in jax.tree.leaves(found["backbone"]))
    assert set(state.extra) == {"stats"} and set(state.params) == {"backbone", "head", "tokenizer"}


def test_images_shrink_as_by_pil_s_lanczos():
    # PIL rounds between rows and columns, and cuts off there what overshoots: mild contrasts do not.
    pixels = np.random.RandomState(0).randint(80, 176, (2, 28, 28, 3)).astype(np.uint8)
    expected = [np.asarray(Image.fromarray(p).resize((14, 14), Image.LANCZOS)) / 255 for p in pixels]
    found = beit.resize(jnp.asarray(pixels / np.float32(255)), [14, 14])
    np.testing.assert_allclose(found, expected, atol=1.5 / 255)
    assert beit.resize(found, [14, 14]) is found


def test_the_paper_s_preset_hides_75_of_196_and_its_tokenizer_reads_112_pixels():
    settings = beit_config.get_config()
    assert int(settings.method.mask_ratio * 14 * 14) == 75
    keys = ("vocabulary", "width", "groups", "blocks", "patch", "dtype")
    network = {key: settings.method.beside[key] for key in keys}
    assert 224 // settings.model.patch * dvae.make(**network).stride == 112
    assert (settings.optim.scaling, settings.optim.base_lr, settings.optim.clip) == ("absolute", 1.5e-3, 3.0)


@pytest.mark.parametrize("override, words", [
    ("method.tokenizer=nowhere", "nowhere is not the folder of a run: train one first"),
    ("method.mask_ratio=0.0", "mask_ratio=0.0"),
    ("method.beside.groups=3", "16 x 16 pixels, and model.patch=8.*16 x 16 patches and only 8 x 8 codes"),
])  # fmt: skip
def test_wrong_settings_are_told(override, words):
    with pytest.raises(UserError, match=words):
        train.build(small("beit", f"--config.{override}"), examples=320)


def test_a_run_of_another_method_is_no_tokenizer(folder, tmp_path):
    identity.write_config(tmp_path, config.to_dict(small("simmim")))
    with pytest.raises(UserError, match="is a run of simmim: give a run of method dvae"):
        train.build(small("beit", f"--config.method.tokenizer={tmp_path}"), examples=320)
    with pytest.raises(UserError, match="model.name='vit'"):
        beit.make(object(), Clock(1.0, 1), tokenizer=folder, beside={})
