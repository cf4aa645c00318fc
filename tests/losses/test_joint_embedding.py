"""MoCo v3, BYOL, SimSiam, Barlow Twins, VICReg and SwAV against the official numbers, and against their definitions."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.sharding import Mesh, NamedSharding
from jax.sharding import PartitionSpec as P

from jax_ssl import losses

# name: (arguments as in the golden file, those that get a gradient, the gradient that the file has)
TWO_VIEWS = {
    "moco_v3": (("q1", "q2", "k1", "k2", "temperature"), ("q1", "q2"), "dq1"),
    "byol": (("p1", "p2", "t1", "t2"), ("p1", "p2"), "dp1"),
    "simsiam": (("p1", "p2", "z1", "z2"), ("p1", "p2"), "dp1"),
    "barlow_twins": (("z1", "z2", "lambd"), ("z1", "z2"), "dz1"),
    "vicreg": (("z1", "z2"), ("z1", "z2"), "dz1"),
}
# What each gives to embeddings that say nothing: all images alike, or (Barlow Twins, VICReg) nothing shared.
UNIFORM = {"moco_v3": 4 * 0.1 * np.log(12), "byol": 0.0, "simsiam": -1.0, "barlow_twins": 24.0, "vicreg": 25 * 0.99}


@pytest.fixture
def golden(request):
    folder = request.config.rootpath / "tests" / "golden"
    return lambda name: {k: jnp.asarray(v) for k, v in np.load(folder / f"{name}.npz").items()}


@pytest.mark.parametrize(
    "name", [pytest.param(name, marks=pytest.mark.seal(2, name)) for name in TWO_VIEWS], ids=list(TWO_VIEWS)
)
def test_value_and_gradient_are_the_official_ones(name, golden):
    arguments, trained, recorded = TWO_VIEWS[name]
    g = golden(name)
    values = [g[key] for key in arguments]
    loss, grads = jax.jit(jax.value_and_grad(getattr(losses, name), tuple(range(len(values)))))(*values)
    grads = dict(zip(arguments, grads))
    np.testing.assert_allclose(loss, g["loss"], rtol=1e-5)
    error = np.linalg.norm(grads[recorded[1:]] - g[recorded]) / np.linalg.norm(g[recorded])
    assert error < 1e-5
    for key in arguments:
        if values[arguments.index(key)].ndim:
            assert bool(np.any(grads[key] != 0)) == (key in trained), key


@pytest.mark.parametrize("name", TWO_VIEWS)
def test_value_of_embeddings_that_say_nothing(name, golden):
    arguments, _, _ = TWO_VIEWS[name]
    g = golden(name)
    same = jnp.ones((12, 24))
    values = [same if g[key].ndim else g[key] for key in arguments]
    np.testing.assert_allclose(getattr(losses, name)(*values), UNIFORM[name], rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("name", TWO_VIEWS)
def test_the_same_on_a_mesh_and_in_half_precision(name):
    arguments, _, _ = TWO_VIEWS[name]
    views = sum(key not in ("temperature", "lambd") for key in arguments)
    values = list(jax.random.normal(jax.random.key(1), (views, 16, 8), jnp.bfloat16))
    constants = [0.2] * (len(arguments) - views)
    function = jax.jit(jax.value_and_grad(lambda *z: getattr(losses, name)(*z, *constants)))
    loss, expected = function(*(z.astype(jnp.float32) for z in values))
    assert loss.dtype == jnp.float32 and loss == function(*values)[0]
    mesh = Mesh(np.array(jax.devices()).reshape(4, 2), ("data", "fsdp"))
    split = NamedSharding(mesh, P(("data", "fsdp")))
    on_mesh, grads = function(*(jax.device_put(z.astype(jnp.float32), split) for z in values))
    np.testing.assert_allclose(on_mesh, loss, rtol=1e-5)
    np.testing.assert_allclose(grads, expected, rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("name", ["moco_v3", "barlow_twins", "vicreg"])
def test_matrices_are_multiplied_at_highest_precision(name):
    arguments, _, _ = TWO_VIEWS[name]
    values = [0.2 if key in ("temperature", "lambd") else jnp.ones((4, 3)) for key in arguments]
    text = str(jax.make_jaxpr(getattr(losses, name))(*values))
    assert text.count("dot_general[") == text.count("precision=(Precision.HIGHEST, Precision.HIGHEST)") > 0


def test_simsiam_without_stop_gradient_moves_the_projections(golden):
    g = golden("simsiam")
    loss = lambda z: losses.simsiam(g["p1"], g["p2"], z, g["z2"], stop=False)
    assert jax.jit(jax.grad(loss))(g["z1"]).any()
    np.testing.assert_allclose(loss(g["z1"]), g["loss"], rtol=1e-5)


# ---- SwAV


@pytest.mark.seal(2, "swav")
def test_swav_is_the_official_one(golden):
    g = golden("swav")
    loss = losses.swav(g["high"], g["low"], g["temperature"], g["epsilon"], int(g["iterations"]))
    np.testing.assert_allclose(loss, g["loss"][0], rtol=1e-4)  # its reference iterates: the bar is 1e-4


def oracle_sinkhorn(scores, epsilon, iterations):
    """Caron et al. 2020, appendix A.1, in float64 and without logarithms."""
    q = np.exp(np.asarray(scores, np.float64) / epsilon).T
    q /= q.sum()
    for _ in range(iterations):
        q /= q.sum(1, keepdims=True) * len(q)
        q /= q.sum(0, keepdims=True) * q.shape[1]
    return (q * q.shape[1]).T


@pytest.mark.seal(2, "swav")
def test_sinkhorn_of_scores_that_are_never_stored_is_the_same():
    """Embeddings and prototypes in chunks of rows, with padding: a center, whose softmax is the assignment."""
    z, c = (jnp.asarray(x, jnp.float32) for x in np.random.RandomState(0).randn(2, 12, 6))
    real = jnp.arange(12) < 10
    center = losses.sinkhorn_center(z, 0.5, 3, lambda z: z @ c.T, mask=real, chunks=4)
    expected = losses.sinkhorn(z[:10] @ c.T, 0.5, 3)
    np.testing.assert_allclose(losses.dino_targets(z @ c.T, center, 0.5)[:10], expected, rtol=1e-4, atol=1e-6)


def test_sinkhorn_is_the_papers_and_balances_the_prototypes():
    scores = 0.5 * np.random.default_rng(0).normal(size=(64, 8)).astype(np.float32)
    ours = losses.sinkhorn(jnp.asarray(scores), 0.05, 3)
    np.testing.assert_allclose(ours, oracle_sinkhorn(scores, 0.05, 3), rtol=1e-4, atol=1e-7)
    for iterations in (0, 1, 3):
        np.testing.assert_allclose(losses.sinkhorn(jnp.asarray(scores), 0.05, iterations).sum(1), 1, rtol=1e-5)
    np.testing.assert_allclose(losses.sinkhorn(jnp.asarray(scores), 0.05, 60).sum(0), 8, rtol=0.02)
    assert jnp.all(jnp.isfinite(losses.sinkhorn(1e3 * jnp.asarray(scores), 0.05, 3)))  # exp(scores) would overflow


def test_sinkhorn_needs_no_maximum_behind_its_first_iteration():
    """Prototypes that are hundreds of logits apart, so that a sum of exponentials would vanish without the argument."""
    scores = np.random.default_rng(1).normal(size=(24, 8)) + 30.0 * np.arange(8)
    logits = scores / 0.05
    for _ in range(4):
        logits = logits - np.logaddexp.reduce(logits, axis=0)
        logits = logits - np.logaddexp.reduce(logits, axis=1, keepdims=True)
    np.testing.assert_allclose(losses.sinkhorn(jnp.asarray(scores), 0.05, 4), np.exp(logits), atol=2e-3)


@pytest.mark.seal(2, "swav")
def test_swav_gradient_is_that_of_the_definition_and_none_reaches_the_targets(golden):
    g = golden("swav")
    high, low, t = g["high"], g["low"], float(g["temperature"])
    grad = jax.jit(jax.grad(lambda h: losses.swav(h, low, t, 0.05, 3)))(high)
    targets = [oracle_sinkhorn(h, 0.05, 3) for h in np.asarray(high)]
    softmax = lambda x: np.exp(x / t) / np.exp(x / t).sum(-1, keepdims=True)
    high = np.asarray(high, np.float64)
    # View 0 predicts the targets of view 1 and the other way round: one of 1 + L crops, one of two terms.
    share = 1 / (2 * (1 + len(low)) * high.shape[1] * t)
    expected = np.stack([softmax(high[0]) - targets[1], softmax(high[1]) - targets[0]]) * share
    assert np.linalg.norm(grad - expected) / np.linalg.norm(expected) < 1e-4


def test_a_queue_takes_part_in_the_assignment_and_not_in_the_result():
    high = jax.random.normal(jax.random.key(0), (2, 4, 16)) / 4
    queue = jax.random.normal(jax.random.key(1), (2, 60, 16)) / 4
    targets = losses.swav_targets(high, 0.05, 3, queue)
    expected = [oracle_sinkhorn(np.concatenate([h, q]), 0.05, 3)[:4] for h, q in zip(high, queue)]
    np.testing.assert_allclose(targets, expected, rtol=1e-3, atol=1e-6)


def test_swav_that_knows_nothing_is_log_k_with_any_number_of_crops():
    for crops in (0, 3):
        loss = losses.swav(jnp.zeros((2, 6, 30)), jnp.zeros((crops, 6, 30)), 0.1, 0.05, 3)
        np.testing.assert_allclose(loss, np.log(30), rtol=1e-6)
