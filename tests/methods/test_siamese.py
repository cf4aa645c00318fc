"""What MoCo v3, BYOL, SimSiam and SwAV do beside their losses: teachers, switches, queues, prototypes."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax_ssl.configs import common
from jax_ssl.configs import moco_v3 as moco_v3_config

from jax_ssl import core, losses, parts, train
from jax_ssl.methods import byol
from jax_ssl.models import apply, heads
from jax_ssl.optim import schedules
from tests.methods.test_contract import first_batch
from tests.small import small

pytestmark = pytest.mark.usefixtures("kept_by_nobody")
CLOCK = schedules.Clock(10.0, 100)
train_network = jax.jit(apply.train, static_argnums=0)


def started(name, *more):
    """(config, method, state after the first step, views) of a method at its small size."""
    config, method, tx, batch = first_batch(name, *more)
    state = jax.jit(lambda batch: core.create(method, tx, jax.random.key(0), batch))(batch)
    return config, method, tx, state, batch


@pytest.mark.seal(2, "byol")
def test_byol_teacher_starts_on_its_own_and_follows_the_new_student():
    """byol_experiment.py: another key at init; after the update, target = tau * target + (1 - tau) * new online."""
    config, method, tx, state, batch = started("byol", "--config.method.momentum=0.9")
    kernel = lambda tree: np.asarray(tree["projector"]["Dense_0"]["kernel"])
    assert np.abs(kernel(state.teacher) - kernel(state.params)).max() > 0.01
    _, _, clock = train.build(config, 5000)
    state = state.replace(step=jnp.int32(clock.total_steps // 3))
    after, _ = jax.jit(lambda s, b: core.train_step(method, tx, s, b))(state, batch)
    tau = 1 - (1 - 0.9) * (np.cos(np.pi * (clock.total_steps // 3) / clock.total_steps) + 1) / 2
    expected = tau * kernel(state.teacher) + (1 - tau) * kernel(after.params)
    np.testing.assert_allclose(kernel(after.teacher), expected, rtol=1e-5, atol=1e-7)
    assert float(method.momentum(10**9)) == 1.0
    still = byol.make(parts.make_backbone(config), CLOCK, projector=(32, 16), predictor=(32, 16), momentum=0)
    assert still.momentum(5) == 0.0 and not still.guards["method.momentum"]


@pytest.mark.seal(2, "moco_v3")
@pytest.mark.seal(2, "byol")
@pytest.mark.parametrize("name", ["moco_v3", "byol"])
def test_teachers_normalise_by_their_own_batch_and_average_no_statistics(name):
    config, method, tx, state, batch = started(name)
    after, _ = jax.jit(lambda s, b: core.train_step(method, tx, s, b))(state, batch)
    mean = lambda stats: np.asarray(stats["batch_stats"]["backbone"]["BatchNorm_0"]["mean"])
    views = core.two_views(batch)
    net = byol.Projected(parts.make_backbone(config), byol.Mlp(**head(name, config)))
    stats = state.extra["teacher_stats"]
    for view in views:
        _, stats = train_network(net, state.teacher, stats, view)
    np.testing.assert_allclose(mean(after.extra["teacher_stats"]), mean(stats), rtol=1e-4, atol=1e-6)
    assert "predictor" not in after.teacher and "predictor" in after.params


@pytest.mark.seal(2, "moco_v3")
def test_moco_v3_draws_a_transformer_as_vits_py_does_and_leaves_its_patch_embedding_alone():
    vit = common.vit("Ti", patch=8, width=64, depth=2, heads=2, positions="sincos_row", remat="none", dtype="float32")
    config = small("moco_v3").copy_and_resolve_references()
    config.model, config.optim = vit, moco_v3_config.paper().optim
    method, tx, _ = train.build(config, 100)
    batch = {"views": jax.random.normal(jax.random.key(1), (8, 2, 32, 32, 3))}
    state = jax.jit(lambda: core.create(method, tx, jax.random.key(0), batch))()
    blocks, start = state.params["backbone"]["encoder"]["blocks"], jax.device_get(state.params)
    bound = np.abs(blocks["attention"]["qkv"]["kernel"]).max()
    np.testing.assert_allclose(bound, np.sqrt(6 / (2 * 64)), rtol=0.01)
    np.testing.assert_allclose(np.abs(blocks["attention"]["out"]["kernel"]).max(), np.sqrt(6 / (2 * 64)), rtol=0.01)
    assert np.abs(state.params["backbone"]["cls_token"]).max() < 1e-5
    state = state.replace(step=jnp.int32(50))  # the learning rate of the first step is zero
    advance = jax.jit(lambda s, b: core.train_step(method, tx, s, b))
    for _ in range(2):
        state, _ = advance(state, batch)
    moved = jax.tree.map(lambda a, b: bool(np.any(a != b)), start["backbone"], jax.device_get(state.params["backbone"]))
    assert not moved["embed"]["kernel"] and not moved["embed"]["bias"]
    assert moved["encoder"]["blocks"]["attention"]["qkv"]["kernel"]


def head(name, config):
    last = dict(last_norm=True, last_scale=False) if name == "moco_v3" else dict(last_bias=False)
    return dict(widths=config.method.projector, norm=True, **last)


@pytest.mark.parametrize("name, switch, key", [
    ("byol", "--config.method.predictor=()", "method.predictor"),
    ("byol", "--config.method.momentum=0.0", "method.momentum"),
    ("simsiam", "--config.method.stop_gradient=False", "method.stop_gradient"),
    ("simsiam", "--config.method.predictor=()", "method.predictor"),
    ("vicreg", "--config.method.variance=0.0", "method.variance"),
    ("swav", "--config.method.iterations=0", "method.iterations"),
])  # fmt: skip
def test_a_mechanism_can_be_switched_off_and_the_doctor_knows(name, switch, key):
    _, method, _, state, batch = started(name, switch)
    assert not method.guards[key] and len(method.guards) - sum(method.guards.values()) == 1
    loss, _ = jax.jit(method.loss)(state.params, state, batch, jax.random.key(0))
    assert jnp.isfinite(loss)


# ---- SwAV


def test_swav_takes_any_number_of_small_crops_and_two_large_ones():
    for flags in (["--config.data.crops.local[0].count=1"], ["--config.data.crops.local[0].count=4"]):
        _, method, _, state, batch = started("swav", *flags)
        assert jnp.isfinite(jax.jit(method.loss)(state.params, state, batch, jax.random.key(0))[0])


@pytest.mark.seal(2, "swav")
def test_swav_prototypes_stand_still_at_first_and_keep_length_one():
    _, method, tx, state, batch = started("swav", "--config.method.freeze_steps=2", "--config.optim.weight_decay=0.0")
    advance, states = jax.jit(lambda s, b: core.train_step(method, tx, s, b)), [state]
    for _ in range(4):
        states.append(advance(states[-1], batch)[0])
    centres = [np.asarray(s.params["prototypes"]) for s in states]
    np.testing.assert_allclose(centres[2], centres[0], atol=1e-6)
    assert np.abs(centres[4] - centres[2]).max() > 1e-5
    np.testing.assert_allclose(np.linalg.norm(centres, axis=-1), 1, rtol=1e-5)


@pytest.mark.seal(2, "swav")
def test_swav_queue_is_shifted_newest_first_and_used_once_full():
    config, method, tx, state, batch = started("swav")
    net = heads.Crops(parts.make_backbone(config), heads.Mlp(config.method.projector, norm=True))
    loss = jax.jit(lambda s: method.loss(s.params, s, batch, jax.random.key(0)))
    size, seen = len(batch["views"]), []
    for step in range(3):
        value, (extra, _) = loss(state)
        seen.insert(0, np.asarray(extra["queue"][:, :size]))
        expected = np.concatenate([*seen, np.zeros((2, 64, 16))], axis=1)[:, :64]
        np.testing.assert_allclose(extra["queue"], expected, atol=1e-6)
        high, low = scores(net, state, batch)
        with_queue = None if step < 2 else jnp.einsum("vqd,kd->vqk", state.extra["queue"], state.params["prototypes"])
        targets = losses.swav_targets(high, 0.05, 3, with_queue)
        np.testing.assert_allclose(value, losses.swapped_prediction(targets, high, low, 0.1), rtol=1e-4)
        state = state.replace(step=state.step + 1, extra=extra)


def scores(net, state, batch):
    """Prototype scores of the large and the small crops; src/resnet50.py: a forward pass a size, one head for all."""
    params, stats = {k: state.params[k] for k in ("backbone", "projector")}, state.extra["stats"]
    z, _ = train_network(net, params, stats, [batch["views"], batch["local"]])
    result = jnp.einsum("bvd,kd->vbk", losses.unit(z), state.params["prototypes"])
    return result[:2], result[2:]


@pytest.mark.seal(2, "swav")
def test_crops_of_a_size_share_a_forward_pass_and_all_sizes_share_the_head():
    config, _, _, state, batch = started("swav")
    backbone, projector = parts.make_backbone(config), heads.Mlp(config.method.projector, norm=True)
    params, stats = {k: state.params[k] for k in ("backbone", "projector")}, state.extra["stats"]
    found, _ = train_network(heads.Crops(backbone, projector), params, stats, [batch["views"], batch["local"]])
    pooled = []
    for crops in (batch["views"], batch["local"]):
        flat = crops.reshape(-1, *crops.shape[2:])
        own = {name: tree["backbone"] for name, tree in stats.items()}
        features, _ = train_network(backbone, params["backbone"], own, flat)
        pooled.append(features.pooled.reshape(*crops.shape[:2], -1))
    pooled = jnp.concatenate(pooled, 1)
    own = {name: tree["projector"] for name, tree in stats.items()}
    expected, _ = train_network(projector, params["projector"], own, pooled.reshape(-1, pooled.shape[-1]))
    np.testing.assert_allclose(found, expected.reshape(found.shape), rtol=1e-4, atol=1e-5)


# ---- collapse, at the length of the tiny preset: the doctor speaks when a mechanism is off, and only then


@pytest.mark.slow
@pytest.mark.parametrize("seed", [0, 1])
@pytest.mark.parametrize("name, switch", [
    ("simsiam", ""), ("simsiam", "--config.method.stop_gradient=False"), ("byol", ""),
    ("byol", "--config.method.predictor=()"),
])  # fmt: skip
def test_the_doctor_speaks_within_the_tiny_preset_and_only_of_collapse(name, switch, seed, tmp_path):
    from jax_ssl import __main__ as command

    flags = [f"--config.seed={seed}", "--config.evaluate_at_end=False", *filter(None, [switch])]
    assert command.main(["train", f"--config={name}:tiny", f"--workdir={tmp_path}", *flags]) == 0
    log = (tmp_path / "log.txt").read_text()
    assert ("looks collapsed" in log) == bool(switch)
    if switch:
        assert switch.removeprefix("--config.").split("=")[0] in log
