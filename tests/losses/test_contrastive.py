import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.sharding import Mesh, NamedSharding
from jax.sharding import PartitionSpec as P

from jax_ssl import losses

CLOSE = dict(rtol=1e-5, atol=1e-6)


@pytest.fixture
def golden(request):
    folder = request.config.rootpath / "tests" / "golden"
    return lambda name: {k: jnp.asarray(v) for k, v in np.load(folder / f"{name}.npz").items()}


@pytest.mark.seal(2, "simclr")
def test_nt_xent_and_its_gradient_are_those_of_lightly(golden):
    g = golden("nt_xent")
    loss, grads = jax.jit(jax.value_and_grad(losses.nt_xent, (0, 1)))(g["z1"], g["z2"], g["temperature"])
    np.testing.assert_allclose(loss, g["loss"], rtol=1e-5)
    np.testing.assert_allclose(grads[0], g["dz1"], **CLOSE)
    np.testing.assert_allclose(grads[1], g["dz2"], **CLOSE)


def test_nt_xent_of_embeddings_that_say_nothing_is_log_of_the_other_views():
    np.testing.assert_allclose(losses.nt_xent(jnp.ones((5, 3)), jnp.ones((5, 3)), 0.1), np.log(9), rtol=1e-5)


@pytest.mark.seal(2, "moco")
def test_info_nce_and_its_gradient_are_those_of_moco(golden):
    g = golden("moco_info_nce")
    arguments = g["query"], g["key"], g["queue"], g["temperature"]
    loss, grads = jax.jit(jax.value_and_grad(losses.info_nce, (0, 1, 2)))(*arguments)
    np.testing.assert_allclose(loss, g["loss"], rtol=1e-5)
    np.testing.assert_allclose(grads[0], g["dquery"], **CLOSE)
    assert not grads[1].any() and not grads[2].any()


def test_clip_is_that_of_open_clip_and_its_gradient_that_of_the_definition(golden):
    g = golden("clip")
    loss, grads = jax.jit(jax.value_and_grad(losses.clip, (0, 1, 2)))(g["image"], g["text"], g["logit_scale"])
    np.testing.assert_allclose(loss, g["loss"], rtol=1e-5)
    image, text = (np.asarray(losses.unit(g[key]), np.float64) for key in ("image", "text"))
    cosines, scale = image @ text.T, float(g["logit_scale"])
    e = np.exp(scale * cosines)
    slope = (e / e.sum(0) + e / e.sum(1, keepdims=True)) / 2 / len(e) - np.eye(len(e)) / len(e)  # of the scores
    np.testing.assert_allclose(grads[2], np.sum(slope * cosines), rtol=1e-5)
    ways = (grads[0], slope @ text, g["image"], image), (grads[1], slope.T @ image, g["text"], text)
    for grad, along, x, ours in ways:
        across = along - ours * np.sum(along * ours, axis=1, keepdims=True)
        expected = scale * across / np.linalg.norm(x, axis=1, keepdims=True)
        assert np.linalg.norm(grad - expected) / np.linalg.norm(expected) < 1e-5


def test_clip_of_captions_that_say_nothing_is_log_of_the_batch():
    np.testing.assert_allclose(losses.clip(jnp.ones((5, 3)), jnp.ones((5, 3)), 14.3), np.log(5), rtol=1e-5)


def test_half_precision_inputs_are_computed_in_fp32():
    z = jax.random.normal(jax.random.key(0), (2, 16, 8), jnp.bfloat16)
    loss = losses.nt_xent(z[0], z[1], 0.05)
    assert loss.dtype == jnp.float32
    assert loss == losses.nt_xent(z[0].astype(jnp.float32), z[1].astype(jnp.float32), 0.05)
    assert losses.clip(z[0], z[1], 20.0) == losses.clip(z[0].astype(jnp.float32), z[1].astype(jnp.float32), 20.0)
    queue = losses.unit(z[1]).astype(jnp.bfloat16)
    loss = losses.info_nce(z[0], z[1], queue, 0.05)
    assert loss == losses.info_nce(*(x.astype(jnp.float32) for x in (z[0], z[1], queue)), 0.05)


def test_logits_are_multiplied_at_highest_precision():
    z = jnp.ones((4, 3))
    for text in (
        str(jax.make_jaxpr(lambda z: losses.nt_xent(z, z, 0.1))(z)),
        str(jax.make_jaxpr(lambda z: losses.info_nce(z, z, z, 0.1))(z)),
        str(jax.make_jaxpr(lambda z: losses.clip(z, z, 10.0))(z)),
    ):
        assert text.count("dot_general[") == text.count("precision=(Precision.HIGHEST, Precision.HIGHEST)") > 0


@pytest.mark.parametrize("shape", [(8, 1), (4, 2)])
def test_the_same_on_a_mesh(shape):
    mesh = Mesh(np.array(jax.devices()).reshape(shape), ("data", "fsdp"))
    z = jax.random.normal(jax.random.key(1), (3, 16, 8))
    queue = losses.unit(jax.random.normal(jax.random.key(2), (24, 8)))

    def both(a, b, k):
        return losses.nt_xent(a, b, 0.1) + losses.info_nce(a, k, queue, 0.1) + losses.clip(a, b, 10.0)

    expected = jax.jit(jax.value_and_grad(both))(*z)
    placed = [jax.device_put(x, NamedSharding(mesh, P(("data", "fsdp")))) for x in z]
    found = jax.jit(jax.value_and_grad(both))(*placed)
    np.testing.assert_allclose(found[0], expected[0], rtol=1e-5)
    np.testing.assert_allclose(found[1], expected[1], **CLOSE)


def test_unit_rows_have_length_one_and_zero_stays_finite():
    x = jnp.array([[3.0, 4.0], [0.0, 0.0], [1e-4, 0.0]])
    np.testing.assert_allclose(losses.unit(x), [[0.6, 0.8], [0.0, 0.0], [1.0, 0.0]], rtol=1e-6)
    assert jnp.isfinite(jax.jit(jax.grad(lambda x: losses.unit(x).sum()))(x)).all()


@pytest.mark.seal(2, "cpc")
def test_cpc_and_its_gradients_are_those_of_lightning_bolts(golden):
    g = golden("cpc")
    preds, targets, height = g["preds"], g["targets"], g["preds"].shape[1]

    def each(preds, targets):
        return jnp.stack([losses.cpc(preds, targets, i + 1, g["embed_scale"]) for i in range(1, height - 1)])

    # Bolts adds the loss of the offset i + 1 so many times as i says.
    weighted = lambda *arrays: jnp.sum(each(*arrays) * jnp.arange(1, height - 1))
    np.testing.assert_allclose(each(preds, targets), g["losses"], rtol=1e-5)
    for function, name in ((lambda *arrays: each(*arrays)[0], "first"), (weighted, "bolts")):
        value, grads = jax.jit(jax.value_and_grad(function, (0, 1)))(preds, targets)
        for gradient, key in zip(grads, (f"dpreds_{name}", f"dtargets_{name}")):
            np.testing.assert_allclose(gradient, g[key], rtol=1e-5, atol=1e-6 * float(jnp.abs(g[key]).max()))
    np.testing.assert_allclose(value, g["loss_bolts"], rtol=1e-5)


def cpc_by_hand(preds, targets, offset, scale):
    """InfoNCE written out from the paper in float64: one query after the other."""
    batch, height, width, size = preds.shape
    everything, costs = targets.reshape(-1, size).astype(np.float64), []
    for image, row, column in np.ndindex(batch, height - offset, width):
        scores = scale * everything @ preds[image, row, column].astype(np.float64)
        right = (image * height + row + offset) * width + column
        costs.append(np.log(np.exp(scores - scores.max()).sum()) + scores.max() - scores[right])
    return np.mean(costs)


@pytest.mark.seal(2, "cpc")
@pytest.mark.parametrize("offset, scale", [(1, 1.0), (2, 0.1), (3, 0.5)])
def test_cpc_is_that_of_an_oracle_written_from_the_paper(offset, scale):
    preds, targets = np.random.default_rng(offset).normal(size=(2, 3, 4, 5, 6)).astype(np.float32) * 2
    np.testing.assert_allclose(
        losses.cpc(jnp.asarray(preds), jnp.asarray(targets), offset, scale),
        cpc_by_hand(preds, targets, offset, scale), rtol=1e-5,
    )  # fmt: skip


def test_cpc_of_predictions_that_say_nothing_is_log_of_all_patches():
    np.testing.assert_allclose(losses.cpc(jnp.zeros((3, 4, 5, 2)), jnp.ones((3, 4, 5, 2))), np.log(60), rtol=1e-6)
