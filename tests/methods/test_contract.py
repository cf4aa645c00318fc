"""What every file in jax_ssl/methods promises. A new method is one row in small.py."""

import functools
import importlib
import inspect
import itertools
from types import SimpleNamespace

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from jax_ssl import config as config_files
from jax_ssl import encoder, parts, sharding, train
from jax_ssl.data import pipeline
from tests.small import METHODS, shallow, small

pytestmark = pytest.mark.usefixtures("kept_by_nobody")
LAYOUTS = {"1 device": (1, 1), "8 devices": (8, 1), "4 x 2": (8, 2)}
# Keys of first parameters where a relative error says something. Of key 0, SwAV's second step has an activation so
# close to ReLU's kink that rounding decides its gradient; of key 1, SimSiam's cosines cancel to a loss of 0.003.
START = dict.fromkeys(METHODS, 1) | {"simsiam": 17}
PARTS = ("params", "teacher", "extra")
# Elsewhere all layouts begin with the state of one device: a program that draws it is slow to compile. Every method
# draws one on eight devices when it trains, in test_train.py.
BEGUN_EVERYWHERE = ("moco", "dinov2")
PREPARED = {}  # programs by recipe: most methods have the crops of others


def batches(config):
    """What a method gets in each step, made on one device."""
    data, recipe = pipeline.open_data(config), str(config.data)
    prepare = PREPARED.setdefault(recipe, jax.jit(train.preparation(config)))
    return (prepare(raw, data.resident) for raw in data.batches(0))


def program(config, tx, traces, batch, devices=1, fsdp=1):
    """(compiled program, mesh) of a config over some devices, for batches such as `batch`: what a method gets.

    Its loss is that of the method times "factor", which comes with the batch: one, or nan. traces: grows by one
    each time that the loss is traced.
    """
    method, _, _ = train.build(config, pipeline.open_data(config).source.count)
    mesh = sharding.make_mesh(fsdp, jax.devices()[:devices])

    def loss(params, state, batch, rng):
        traces.append(1)
        value, rest = method.loss(params, state, {key: x for key, x in batch.items() if key != "factor"}, rng)
        return value * batch["factor"][0], rest

    def init(rng, batch):
        return method.init(rng, {key: x for key, x in batch.items() if key != "factor"})

    with jax.set_mesh(mesh):
        example = train.shapes_of(batch) | {"factor": jax.ShapeDtypeStruct((devices,), "float32")}
        scaled = method._replace(init=init, loss=loss)
        compiled = train.compile_step(scaled, tx, lambda raw, _: raw, mesh, example, fsdp_min_size=2**8)
    return compiled, mesh


def first_batch(name, *more):
    """(config, method, optimiser, the views of the first batch) of a method at its small size."""
    config = small(name, *shallow(name), *more)
    method, tx, _ = train.build(config, pipeline.open_data(config).source.count)
    return config, method, tx, next(batches(config))


def run(name, layout, first=None):
    """Two steps and one that is not finite, on a layout; the optimiser's state is the last gradient.

    first: the state to begin with, or None for the one that this layout makes. Returns the loss of each step, the first
    state, the state after each step, the metrics of the last one, how often the loss was traced, the arrays of
    parameters that were given up, whether the last state has the promised shapes, and two functions: `begin()` makes
    the first state of this layout, `advance(state, batch, factor)` makes more steps.
    """
    devices, fsdp = LAYOUTS[layout]
    keep_gradient, traces = optax.chain(optax.trace(decay=0.0), optax.scale(-0.1)), []
    given = list(itertools.islice(batches(config := small(name, *shallow(name))), 3))
    compiled, mesh = program(config, keep_gradient, traces, given[0], devices, fsdp)
    copied = jax.jit(lambda tree: jax.tree.map(jnp.copy, tree))  # a view would stop donation
    on_host = lambda state: jax.device_get(copied(state.replace(rng=0))).replace(rng=state.rng)

    def begin():
        with jax.set_mesh(mesh):
            return on_host(compiled.init(jax.random.key(START[name])))

    def advance(state, batch, factor):
        batch = batch | {"factor": np.full(devices, factor, np.float32)}
        with jax.set_mesh(mesh):
            rng = jax.device_put(state.rng, compiled.state.rng.sharding)
            state = state.replace(rng=jax.random.clone(rng))  # as the step gives it up with the state
            state = jax.device_put(state, jax.tree.map(lambda x: x.sharding, compiled.state))
            return compiled.step(state, sharding.shard_batch(batch, mesh), ())

    state = first = begin() if first is None else first
    states, losses, given_up = [], [], []
    for factor, batch in zip((1.0, 1.0, np.nan), given):
        given_up.extend(x for x in jax.tree.leaves(state.params) if isinstance(x, jax.Array))
        state, metrics = advance(state, batch, factor)
        losses.append(float(metrics["loss"]))
        states.append(on_host(state))
    as_promised = jax.tree.map(lambda a, b: a.shape == b.shape and a.dtype == b.dtype, state, compiled.state)
    return SimpleNamespace(losses=losses, first=first, states=states, metrics=jax.device_get(metrics),
                           traces=len(traces), given_up=given_up, as_promised=all(jax.tree.leaves(as_promised)),
                           begin=begin, advance=advance)  # fmt: skip


def relative_error(a, b):
    """The worst leaf: norm of the difference over the norm of the leaf, or of a hundredth of the tree."""
    norms = lambda tree: [float(np.linalg.norm(np.asarray(x, np.float64))) for x in jax.tree.leaves(tree)]
    difference = norms(jax.tree.map(lambda x, y: np.asarray(x, np.float64) - np.asarray(y, np.float64), a, b))
    size = norms(b)
    whole = np.linalg.norm(size)
    return max(d / max(s, 0.01 * whole, 1e-12) for d, s in zip(difference, size))


@pytest.fixture(scope="module")
def steps():
    """The outcome of `run` by name and layout. Tests are ordered by name, so each program is compiled once.

    Those of one method are kept: each has the images on all of its devices.
    """

    @functools.lru_cache(maxsize=len(LAYOUTS))
    def steps(name, layout):
        return run(name, layout, None if layout == "1 device" else steps(name, "1 device").first)

    return steps


every_method = pytest.mark.parametrize("name", METHODS, scope="module")


@pytest.mark.seal(3)
@pytest.mark.parametrize("layout", ["8 devices", "4 x 2"])
@every_method
def test_the_same_on_any_mesh(name, layout, steps):
    one, many = steps(name, "1 device"), steps(name, layout)
    np.testing.assert_allclose(many.losses[:2], one.losses[:2], rtol=1e-5)
    assert relative_error(many.states[0].opt_state[0].trace, one.states[0].opt_state[0].trace) < 1e-5
    for part in PARTS:
        ours, theirs = getattr(many.states[1], part), getattr(one.states[1], part)
        if jax.tree.leaves(theirs):
            assert relative_error(ours, theirs) < 1e-5, part
    if name in BEGUN_EVERYWHERE:
        first = many.begin()
        assert all(relative_error(getattr(first, part), getattr(one.first, part)) < 1e-6 for part in PARTS)


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
def test_gradient_reaches_every_parameter_and_no_teacher(name, steps):
    found, config = steps(name, "1 device"), small(name, *shallow(name))
    batch, state = next(batches(config)), found.first
    first = found.advance(state, batch, part := 1e-3)[1]
    for _ in range(8):  # past zero-initialised scales, and far enough to see the loss of one batch fall
        state, _ = found.advance(state, batch, 0.2 * part / first["grad_norm"])  # a step of length 0.02 or so
    reached = jax.tree.map(np.any, jax.device_get(state.opt_state[0].trace))
    dead = [jax.tree_util.keystr(k) for k, hit in jax.tree_util.tree_leaves_with_path(reached) if not hit]
    assert "backbone" in state.params and not dead, dead
    method = train.build(config, pipeline.open_data(config).source.count)[0]
    if method.teacher:
        loss = lambda teacher: method.loss(state.params, state.replace(teacher=teacher), batch, jax.random.key(1))[0]
        to_teacher = jax.jit(jax.grad(loss))(state.teacher)
        assert not any(np.any(g) for g in jax.device_get(jax.tree.leaves(to_teacher)))
    last = found.advance(state.replace(step=found.first.step), batch, part)[1]  # of the draws that `first` had
    assert last["loss"] < first["loss"] or method.teacher  # a moving target may make the task harder first


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
def test_the_backbone_can_be_frozen(name, steps):
    state, network = steps(name, "1 device").first, parts.network_of(config := small(name, *shallow(name)))
    side = config.data.crops["views"][0]["size"]
    images = np.random.default_rng(0).normal(size=(8, side, side, 3)).astype(np.float32)
    for which in ("student", "teacher")[: 1 + bool(state.teacher)]:
        features = encoder.freeze(network, state, which)(images)
        assert features.pooled.ndim == 2 and features.patches.ndim == 3 and features.registers.ndim == 3
        assert jnp.all(jnp.isfinite(features.pooled))
