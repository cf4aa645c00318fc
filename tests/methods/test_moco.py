"""MoCo's memory: what the queue holds, when it is written, and what never gets a gradient."""

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from jax_ssl import core, parts, train
from jax_ssl.data import pipeline
from jax_ssl.losses import unit
from jax_ssl.methods import moco
from jax_ssl.models import apply
from tests.small import small

LAST = 5  # steps
train_network = jax.jit(apply.train, static_argnums=0)


@pytest.fixture(scope="module")
def steps():
    """The states of a short run of a queue of two batches, the batches, and the method."""
    plain = ["--config.method.momentum=0.9", "--config.model.norm_groups=1", "--config.method.shuffle=False"]
    config = small("moco", *plain)
    data = pipeline.open_data(config)
    method, _, _ = train.build(config, data.source.count)
    tx, prepare, batches = optax.sgd(0.05), jax.jit(train.preparation(config)), data.batches(0)
    made = [jax.tree.map(np.asarray, prepare(next(batches), data.resident)) for _ in range(LAST)]
    states = [jax.jit(lambda b: core.create(method, tx, jax.random.key(0), b))(made[0])]
    advance = jax.jit(lambda s, b: core.train_step(method, tx, s, b))
    for batch in made:
        states.append(advance(states[-1], batch)[0])
    return config, states, made


def keys_of(config, state, batch):
    """The keys by the definition: the teacher's projections of the second views, in training mode, unit length."""
    net = moco.Projected(parts.make_backbone(config), moco.Mlp(config.method.projector))
    return unit(train_network(net, state.teacher, state.extra["teacher_stats"], batch["views"][:, 1])[0])


@pytest.mark.seal(2, "moco")
def test_the_queue_holds_the_last_keys_oldest_overwritten_first(steps):
    config, states, batches = steps
    size, count = len(batches[0]["views"]), config.method.queue
    expected = np.array(states[0].extra["queue"])
    for number, (state, batch) in enumerate(zip(states, batches)):
        np.testing.assert_allclose(state.extra["queue"], expected, rtol=1e-5, atol=1e-6)
        expected[number * size % count :][:size] = keys_of(config, state, batch)  # a ring, as moco/builder.py
    assert count == 2 * size and len(batches) > count // size  # it went round


@pytest.mark.seal(2, "moco")
def test_the_teacher_is_the_average_that_the_official_order_gives(steps):
    """builder.py averages before each key forward: key_t uses m * key_(t-1) + (1 - m) * query_t."""
    _, states, _ = steps
    key = jax.tree.map(np.asarray, states[0].params)
    for state in states:
        key = jax.tree.map(lambda k, q: 0.9 * k + (1 - 0.9) * np.asarray(q), key, state.params)
        jax.tree.map(lambda k, t: np.testing.assert_allclose(t, k, rtol=1e-5, atol=1e-7), key, state.teacher)


@pytest.mark.seal(2, "moco")
def test_the_loss_is_info_nce_against_the_queue_before_this_batch(steps):
    config, states, batches = steps
    state, batch = states[3], batches[3]
    method, _, _ = train.build(config, 5000)
    loss, _ = jax.jit(method.loss)(state.params, state, batch, jax.random.key(0))
    net = moco.Projected(parts.make_backbone(config), moco.Mlp(config.method.projector))
    query = np.asarray(unit(train_network(net, state.params, state.extra["stats"], batch["views"][:, 0])[0]))
    key, queue = np.asarray(keys_of(config, state, batch)), np.asarray(state.extra["queue"])
    logits = np.concatenate([(query * key).sum(1, keepdims=True), query @ queue.T], 1) / config.method.temperature
    expected = np.mean(np.log(np.exp(logits).sum(1)) - logits[:, 0])
    np.testing.assert_allclose(loss, expected, rtol=1e-5)


def test_shuffling_gives_the_keys_back_in_order():
    """With one batch-norm group the order of encoding can not matter; with several it must."""
    results, data = {}, pipeline.open_data(small("moco"))
    batch = jax.jit(train.preparation(small("moco")))(next(data.batches(0)), data.resident)
    for groups in (1, 4):
        for shuffle in (False, True):
            config = small("moco", f"--config.model.norm_groups={groups}", f"--config.method.shuffle={shuffle}")
            method, tx, _ = train.build(config, data.source.count)
            state = jax.jit(lambda b, m=method, t=tx: core.create(m, t, jax.random.key(0), b))(batch)
            _, (extra, _) = jax.jit(method.loss)(state.params, state, batch, jax.random.key(1))
            results[groups, shuffle] = np.asarray(extra["queue"][: len(batch["views"])])
    np.testing.assert_array_equal(results[1, False], results[1, True])
    cosines = (results[4, False] * results[4, True]).sum(1)
    assert cosines.min() < 0.9999 and cosines.mean() > 0.5  # the same images, other statistics, the right order


def test_enqueue_wraps_around():
    queue = jnp.zeros((6, 1))
    for step in range(4):
        queue = moco.enqueue(queue, jnp.full((2, 1), step + 1.0), jnp.int32(step))
    assert queue[:, 0].tolist() == [4, 4, 2, 2, 3, 3]
