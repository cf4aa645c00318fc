"""SimCLR's update besides its loss: one forward pass over both views, and a projector as the official one."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jax_ssl import parts, train
from jax_ssl.data import pipeline
from jax_ssl.losses import nt_xent
from tests.small import small


@pytest.fixture(scope="module")
def made():
    config = small("simclr")
    data = pipeline.open_data(config)
    method, _, _ = train.build(config, data.source.count)
    batch = jax.jit(train.preparation(config))(next(data.batches(0)), data.resident)
    params, extra = jax.jit(method.init)(jax.random.key(0), batch)
    return config, method, batch, params, extra


@pytest.mark.seal(2, "simclr")
def test_both_views_share_batch_statistics_as_in_one_forward_pass(made):
    """model.py runs the views as one batch: the stem's new mean is that of all 2B images."""
    config, method, batch, params, extra = made
    state = train.core.TrainState(0, params, (), {}, extra, jax.random.key(0), 0)
    loss, (new, _) = jax.jit(method.loss)(params, state, batch, jax.random.key(0))
    backbone = parts.make_backbone(config)
    views = batch["views"]
    mixed = views.reshape(-1, *views.shape[2:])
    stats = {"batch_stats": extra["stats"]["batch_stats"]["backbone"]}
    see = jax.jit(lambda variables, images: backbone.apply(variables, images, train=True, mutable=["batch_stats"]))
    _, changed = see({"params": params["backbone"], **stats}, mixed)
    close = lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-4, atol=1e-6)
    jax.tree.map(close, new["stats"]["batch_stats"]["backbone"], changed["batch_stats"])
    assert 0 < float(loss) < 2 * np.log(2 * len(views))


def test_the_last_norm_of_the_projector_has_a_scale_and_no_offset(made):
    _, _, _, params, _ = made
    head = params["projector"]
    assert set(head["Dense_0"]) == {"kernel"} and set(head["BatchNorm_0"]) == {"scale", "bias"}
    assert set(head["BatchNorm_1"]) == {"scale"}
    assert 0.005 < float(head["Dense_0"]["kernel"].std()) < 0.015  # N(0, 0.01)


def test_swapping_the_views_changes_nothing():
    z1, z2 = jax.random.normal(jax.random.key(0), (2, 16, 8))
    order = jnp.arange(16)[::-1]
    np.testing.assert_allclose(nt_xent(z1, z2, 0.2), nt_xent(z2, z1, 0.2), rtol=1e-6)
    np.testing.assert_allclose(nt_xent(z1, z2, 0.2), nt_xent(z1[order], z2[order], 0.2), rtol=1e-6)
