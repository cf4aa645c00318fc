"""What every file in jax_ssl/methods promises. A new method is one row in small.py."""

import importlib
import inspect

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from jax_ssl import config as config_files
from jax_ssl import core, encoder, parts, sharding, train
from jax_ssl.data import pipeline
from tests.small import METHODS, small

LAYOUTS = {"1 device": (1, 1), "8 devices": (8, 1), "4 x 2": (8, 2)}
# Keys of first parameters where a relative error says something. Of key 0, SwAV's second step has an activation so
# close to ReLU's kink that rounding decides its gradient; of key 1, SimSiam's cosines cancel to a loss of 0.003.
START = dict.fromkeys(METHODS, 1) | {"simsiam": 17}


def program(config, tx, devices=1, fsdp=1):
    """(compiled program, batches, resident images) of a config over some devices."""
    data = pipeline.open_data(config)
    method, _, _ = train.build(config, data.source.count)
    mesh = sharding.make_mesh(fsdp, jax.devices()[:devices])
    with jax.set_mesh(mesh):
        resident = sharding.replicate(data.resident, mesh)
        example = train.shapes_of(data.example)
        prepare = train.preparation(config)
        compiled = train.compile_step(method, tx, prepare, mesh, example, resident, fsdp_min_size=2**8)
    return compiled, mesh, resident, data.batches(0)


def first_batch(name, *more):
    """(config, method, optimiser, the views of the first batch) of a method at its small size."""
    config = small(name, *more)
    data = pipeline.open_data(config)
    method, tx, _ = train.build(config, data.source.count)
    return config, method, tx, train.preparation(config)(next(data.batches(0)), data.resident)


def run(name, layout, steps=2):
    """The loss of each step and the state after each, on a layout; the optimiser's state is the last gradient."""
    devices, fsdp = LAYOUTS[layout]
    keep_gradient = optax.chain(optax.trace(decay=0.0), optax.scale(-0.1))
    compiled, mesh, resident, batches = program(small(name), keep_gradient, devices, fsdp)
    with jax.set_mesh(mesh):
        state, states, losses = compiled.init(jax.random.key(START[name])), [], []
        for _ in range(steps):
            state, metrics = compiled.step(state, sharding.shard_batch(next(batches), mesh), resident)
            losses.append(float(metrics["loss"]))
            states.append(jax.device_get(state.replace(rng=0)))
    return losses, states


def relative_error(a, b):
    """The worst leaf: norm of the difference over the norm of the leaf, or of a hundredth of the tree."""
    norms = lambda tree: [float(np.linalg.norm(np.asarray(x, np.float64))) for x in jax.tree.leaves(tree)]
    difference = norms(jax.tree.map(lambda x, y: np.asarray(x, np.float64) - np.asarray(y, np.float64), a, b))
    size = norms(b)
    whole = np.linalg.norm(size)
    return max(d / max(s, 0.01 * whole, 1e-12) for d, s in zip(difference, size))


@pytest.fixture(scope="module")
def on_one_device():
    cache = {}
    return lambda name: cache.setdefault(name, None) or cache.update({name: run(name, "1 device")}) or cache[name]


@pytest.mark.seal(3)
@pytest.mark.parametrize("layout", ["8 devices", "4 x 2"])
@pytest.mark.parametrize("name", METHODS)
def test_the_same_on_any_mesh(name, layout, on_one_device):
    losses_one, states_one = on_one_device(name)
    losses, states = run(name, layout)
    np.testing.assert_allclose(losses, losses_one, rtol=1e-5)
    assert relative_error(states[0].opt_state[0].trace, states_one[0].opt_state[0].trace) < 1e-5
    for part in ("params", "teacher", "extra"):
        ours, theirs = getattr(states[-1], part), getattr(states_one[-1], part)
        if jax.tree.leaves(theirs):
            assert relative_error(ours, theirs) < 1e-5, part


@pytest.mark.parametrize("name", METHODS)
def test_one_compilation_gives_the_state_up_and_a_step_that_is_not_finite_changes_nothing(name):
    config, traces = small(name), []
    data = pipeline.open_data(config)
    method, tx, _ = train.build(config, data.source.count)
    mesh = sharding.make_mesh(1, jax.devices()[:2])

    def loss(params, state, batch, rng):  # that of the method, times what comes with the batch: one, or nan
        traces.append(1)
        value, rest = method.loss(params, state, {key: x for key, x in batch.items() if key != "factor"}, rng)
        return value * batch["factor"][0], rest

    def init(rng, batch):
        return method.init(rng, {key: x for key, x in batch.items() if key != "factor"})

    def prepare(raw, resident):
        return train.preparation(config)(raw["views"], resident) | {"factor": raw["factor"]}

    with jax.set_mesh(mesh):
        resident, batches = sharding.replicate(data.resident, mesh), data.batches(0)
        factor = jax.ShapeDtypeStruct((config.batch_size,), "float32")
        example = {"views": train.shapes_of(data.example), "factor": factor}
        compiled = train.compile_step(method._replace(init=init, loss=loss), tx, prepare, mesh, example, resident)
        states = [compiled.init(jax.random.key(0))]
        for value in (1.0, 1.0, np.nan):
            before = jax.tree.map(jnp.copy, states[-1])
            raw = {"views": next(batches), "factor": np.full(config.batch_size, value, np.float32)}
            state, metrics = compiled.step(states[-1], sharding.shard_batch(raw, mesh), resident)
            states.append(state)
    assert len(traces) == 1
    assert all(x.is_deleted() for old in states[:-1] for x in jax.tree.leaves(old.params))
    same = jax.tree.map(lambda a, b: a.shape == b.shape and a.dtype == b.dtype, state, compiled.state)
    assert all(jax.tree.leaves(same))
    for part in ("params", "opt_state", "teacher", "extra"):
        jax.tree.map(np.testing.assert_array_equal, getattr(state, part), getattr(before, part))
    assert int(state.step) == 3 and int(state.skipped) == 1 and int(metrics["skipped"]) == 1


@pytest.mark.parametrize("name", METHODS)
def test_gradient_reaches_every_parameter_and_no_teacher(name):
    _, method, _, batch = first_batch(name)
    tx, losses = optax.adam(1e-3), []
    state = jax.jit(lambda b: core.create(method, tx, jax.random.key(0), b))(batch)

    @jax.jit
    def advance(state):
        def score(params, teacher):
            return method.loss(params, state.replace(teacher=teacher), batch, jax.random.key(1))

        (loss, (extra, _)), (grads, to_teacher) = jax.value_and_grad(score, (0, 1), has_aux=True)(
            state.params, state.teacher
        )
        updates, opt_state = tx.update(grads, state.opt_state, state.params)
        params = optax.apply_updates(state.params, updates)
        reached = lambda tree: jax.tree.map(lambda g: jnp.any(g != 0), tree)
        state = state.replace(params=params, opt_state=opt_state, extra=extra, step=state.step + 1)
        return state, loss, reached(grads), reached(to_teacher)

    for _ in range(8):  # past zero-initialised scales, and far enough to see the loss of one batch fall
        state, loss, reached, teacher_reached = advance(state)
        losses.append(float(loss))
    assert losses[-1] < losses[0] or method.teacher  # a moving target may make the task harder first
    dead = [jax.tree_util.keystr(k) for k, hit in jax.tree_util.tree_leaves_with_path(reached) if not hit]
    assert "backbone" in state.params and not dead, dead
    assert not any(jax.tree.leaves(teacher_reached))


@pytest.mark.parametrize("name", METHODS)
def test_file_is_short_cites_its_source_and_has_a_full_config(name):
    module = importlib.import_module(f"jax_ssl.methods.{name}")
    assert "Paper:" in module.__doc__ and "Code:" in module.__doc__
    assert len(inspect.getsource(module).splitlines()) <= 150
    keywords = {k for k, p in inspect.signature(module.make).parameters.items() if p.kind is p.KEYWORD_ONLY}
    for preset in ("paper", "cifar", "tiny"):
        config = config_files.load(f"{name}:{preset}")
        assert keywords == set(config.method.keys()) - {"name"}, "every hyper-parameter can be overridden"


@pytest.mark.parametrize("name", METHODS)
def test_the_backbone_can_be_frozen(name):
    config, method, tx, batch = first_batch(name)
    state = jax.jit(lambda b: core.create(method, tx, jax.random.key(0), b))(batch)
    for which in ("student", "teacher")[: 1 + bool(method.teacher)]:
        features = encoder.freeze(parts.network_of(config), state, which)(batch["views"][:, 0])
        assert features.pooled.ndim == 2 and features.patches.ndim == 3 and features.registers.ndim == 3
        assert jnp.all(jnp.isfinite(features.pooled))
