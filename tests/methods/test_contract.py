"""What every file in jax_ssl/methods promises. A new method is one row in small.py."""

import functools
import importlib
import inspect
from types import SimpleNamespace

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from jax_ssl import config as config_files
from jax_ssl import core, encoder, parts, sharding, train
from jax_ssl.data import pipeline
from tests.small import METHODS, small

ADAM = optax.adam(1e-3)
LAYOUTS = {"1 device": (1, 1), "8 devices": (8, 1), "4 x 2": (8, 2)}
# Keys of first parameters where a relative error says something. Of key 0, SwAV's second step has an activation so
# close to ReLU's kink that rounding decides its gradient; of key 1, SimSiam's cosines cancel to a loss of 0.003.
START = dict.fromkeys(METHODS, 1) | {"simsiam": 17}


def program(config, tx, traces, devices=1, fsdp=1):
    """(compiled program, mesh, resident images, batches) of a config over some devices.

    Its loss is that of the method times "factor", which comes with the batch: one, or nan. traces: grows by one
    each time that the loss is traced.
    """
    data = pipeline.open_data(config)
    method, _, _ = train.build(config, data.source.count)
    mesh = sharding.make_mesh(fsdp, jax.devices()[:devices])

    def loss(params, state, batch, rng):
        traces.append(1)
        value, rest = method.loss(params, state, {key: x for key, x in batch.items() if key != "factor"}, rng)
        return value * batch["factor"][0], rest

    def init(rng, batch):
        return method.init(rng, {key: x for key, x in batch.items() if key != "factor"})

    def prepare(raw, resident):
        return train.preparation(config)(raw["views"], resident) | {"factor": raw["factor"]}

    with jax.set_mesh(mesh):
        resident = sharding.replicate(data.resident, mesh)
        example = {"views": train.shapes_of(data.example), "factor": jax.ShapeDtypeStruct((devices,), "float32")}
        scaled = method._replace(init=init, loss=loss)
        compiled = train.compile_step(scaled, tx, prepare, mesh, example, resident, fsdp_min_size=2**8)
    return compiled, mesh, resident, data.batches(0)


def first_batch(name, *more):
    """(config, method, optimiser, the views of the first batch) of a method at its small size."""
    config = small(name, *more)
    data = pipeline.open_data(config)
    method, tx, _ = train.build(config, data.source.count)
    return config, method, tx, train.preparation(config)(next(data.batches(0)), data.resident)


def run(name, layout):
    """Two steps and one that is not finite, on a layout; the optimiser's state is the last gradient.

    Returns the loss of each step, the state after each, the metrics of the last one, how often the loss was traced,
    the arrays of parameters that were given up, and whether the last state has the promised shapes.
    """
    devices, fsdp = LAYOUTS[layout]
    keep_gradient, traces = optax.chain(optax.trace(decay=0.0), optax.scale(-0.1)), []
    compiled, mesh, resident, batches = program(small(name), keep_gradient, traces, devices, fsdp)
    with jax.set_mesh(mesh):
        state, states, losses, given_up = compiled.init(jax.random.key(START[name])), [], [], []
        for factor in (1.0, 1.0, np.nan):
            given_up.extend(jax.tree.leaves(state.params))
            raw = {"views": next(batches), "factor": np.full(devices, factor, np.float32)}
            state, metrics = compiled.step(state, sharding.shard_batch(raw, mesh), resident)
            losses.append(float(metrics["loss"]))
            states.append(jax.device_get(jax.tree.map(jnp.copy, state.replace(rng=0))))  # a view would stop donation
    as_promised = jax.tree.map(lambda a, b: a.shape == b.shape and a.dtype == b.dtype, state, compiled.state)
    return SimpleNamespace(losses=losses, states=states, metrics=jax.device_get(metrics), traces=len(traces),
                           given_up=given_up, as_promised=all(jax.tree.leaves(as_promised)))  # fmt: skip


def relative_error(a, b):
    """The worst leaf: norm of the difference over the norm of the leaf, or of a hundredth of the tree."""
    norms = lambda tree: [float(np.linalg.norm(np.asarray(x, np.float64))) for x in jax.tree.leaves(tree)]
    difference = norms(jax.tree.map(lambda x, y: np.asarray(x, np.float64) - np.asarray(y, np.float64), a, b))
    size = norms(b)
    whole = np.linalg.norm(size)
    return max(d / max(s, 0.01 * whole, 1e-12) for d, s in zip(difference, size))


@pytest.fixture(scope="module")
def steps():
    """The outcome of `run` by name and layout. Tests are ordered by name, so each program is compiled once."""
    return functools.cache(run)


@pytest.fixture(scope="module")
def created():
    """(config, method, first batch, first state with Adam) by name."""

    @functools.cache
    def create(name):
        config, method, _, batch = first_batch(name)
        state = jax.jit(lambda b: core.create(method, ADAM, jax.random.key(0), b))(batch)
        return config, method, batch, state

    return create


every_method = pytest.mark.parametrize("name", METHODS, scope="module")


@pytest.mark.seal(3)
@pytest.mark.parametrize("layout", ["8 devices", "4 x 2"])
@every_method
def test_the_same_on_any_mesh(name, layout, steps):
    one, many = steps(name, "1 device"), steps(name, layout)
    np.testing.assert_allclose(many.losses[:2], one.losses[:2], rtol=1e-5)
    assert relative_error(many.states[0].opt_state[0].trace, one.states[0].opt_state[0].trace) < 1e-5
    for part in ("params", "teacher", "extra"):
        ours, theirs = getattr(many.states[1], part), getattr(one.states[1], part)
        if jax.tree.leaves(theirs):
            assert relative_error(ours, theirs) < 1e-5, part


@every_method
def test_one_compilation_gives_the_state_up_and_a_step_that_is_not_finite_changes_nothing(name, steps):
    found = steps(name, "8 devices")
    assert found.traces == 1
    assert found.given_up and all(x.is_deleted() for x in found.given_up)
    assert found.as_promised
    before, after = found.states[1:]
    for part in ("params", "opt_state", "teacher", "extra"):
        jax.tree.map(np.testing.assert_array_equal, getattr(after, part), getattr(before, part))
    assert int(after.step) == 3 and int(after.skipped) == 1 and int(found.metrics["skipped"]) == 1
    assert np.isnan(found.losses[2]) and np.isfinite(found.losses[:2]).all()


@every_method
def test_gradient_reaches_every_parameter_and_no_teacher(name, created):
    _, method, batch, state = created(name)
    losses = []

    @jax.jit
    def advance(state):
        def score(params, teacher):
            return method.loss(params, state.replace(teacher=teacher), batch, jax.random.key(1))

        (loss, (extra, _)), (grads, to_teacher) = jax.value_and_grad(score, (0, 1), has_aux=True)(
            state.params, state.teacher
        )
        updates, opt_state = ADAM.update(grads, state.opt_state, state.params)
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


@every_method
def test_file_is_short_cites_its_source_and_has_a_full_config(name):
    module = importlib.import_module(f"jax_ssl.methods.{name}")
    assert "Paper:" in module.__doc__ and "Code:" in module.__doc__
    assert len(inspect.getsource(module).splitlines()) <= 150
    keywords = {k for k, p in inspect.signature(module.make).parameters.items() if p.kind is p.KEYWORD_ONLY}
    for preset in ("paper", "cifar", "tiny"):
        config = config_files.load(f"{name}:{preset}")
        assert keywords == set(config.method.keys()) - {"name"}, "every hyper-parameter can be overridden"


@every_method
def test_the_backbone_can_be_frozen(name, created):
    config, method, batch, state = created(name)
    for which in ("student", "teacher")[: 1 + bool(method.teacher)]:
        features = encoder.freeze(parts.network_of(config), state, which)(batch["views"][:, 0])
        assert features.pooled.ndim == 2 and features.patches.ndim == 3 and features.registers.ndim == 3
        assert jnp.all(jnp.isfinite(features.pooled))
