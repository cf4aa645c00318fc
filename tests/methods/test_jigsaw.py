"""Jigsaw as a whole: what it is asked, what it is told of its puzzles, and what it shows."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax_ssl.configs import jigsaw as presets

from jax_ssl import config, core, parts, train
from jax_ssl.errors import UserError
from jax_ssl.models.permutations import permutation_set
from jax_ssl.run import checks
from tests.small import small


def method_of(*more):
    settings = small("jigsaw", *more)
    return train.build(settings, examples=320)[:2]


@pytest.fixture(scope="module")
def started():
    """(method, first state, a batch of held-out images)."""
    method, tx = method_of()
    batch = {"views": jax.random.uniform(jax.random.key(0), (16, 1, 32, 32, 3))}
    return method, jax.jit(lambda b: core.create(method, tx, jax.random.key(0), b))(batch), batch


def test_both_distances_of_the_permutations_are_written_down(started):
    method, state, batch = started
    _, (_, metrics) = jax.eval_shape(method.loss, state.params, state, batch, jax.random.key(0))
    assert {"permutations_least_distance", "permutations_mean_distance", "puzzles_right"} <= set(metrics)
    _, (_, metrics) = jax.jit(method.loss)(state.params, state, batch, jax.random.key(0))
    found = permutation_set(len(state.params["answer"]["bias"]))
    assert metrics["permutations_least_distance"] == found.least
    np.testing.assert_allclose(metrics["permutations_mean_distance"], found.mean, rtol=1e-6)


def test_puzzles_are_set_by_the_key_and_a_baseline_gets_the_same(started):
    method, state, batch = started
    measure = jax.jit(method.task.measure)
    first, again = (measure(state.params, state, batch, jax.random.key(3))["accuracy"] for _ in range(2))
    assert first == again and 0 <= first < 0.7
    assert method.task.protocol == {"permutations": 6, "permutation_seed": 0, "cell": 10}
    seen = []

    def linear(features, labels, classes):
        seen.append((features, labels))
        return lambda features: seen.append((features, None)) or jnp.zeros(len(features), int)

    solve = method.task.baselines["linear on tile means"]([batch], jax.random.key(7), linear)
    key = jax.random.fold_in(jax.random.key(7), 0)
    assert set(solve(batch, key)) == {"accuracy"}
    (means, labels), (same, _) = seen
    np.testing.assert_array_equal(means, same)  # of one key, one set of puzzles
    assert means.shape == (labels.size, 27) and np.all((means > 0.3) & (means < 0.7)), "the means of noise"


def test_a_person_sees_the_puzzle_the_answer_and_the_truth(started):
    method, state, batch = started
    shown = jax.jit(method.show)(state.params, state, batch, jax.random.key(0))
    puzzle, back, truth = np.moveaxis(np.asarray(shown["puzzles"]), 1, 0)
    assert puzzle.shape == (8, 26, 26, 3)  # three tiles of 8 pixels and two lines between them
    np.testing.assert_allclose(np.sort(puzzle.reshape(8, -1)), np.sort(truth.reshape(8, -1)))
    same = (back == truth).all((1, 2, 3))
    np.testing.assert_array_equal(same, shown["right"])
    assert np.any(puzzle != truth)


def test_features_are_the_mean_over_standardised_tiles():
    settings = small("jigsaw")
    network = parts.network_of(settings)
    images = jax.random.uniform(jax.random.key(0), (2, 32, 32, 3))
    variables, read = jax.jit(network.init)(jax.random.key(1), images), jax.jit(network.apply)
    features = read(variables, images)
    assert features.patches.shape[1] == 9 and network.protocol["tiles"] == 9
    np.testing.assert_allclose(features.pooled, features.patches.mean(1), rtol=1e-5)
    np.testing.assert_allclose(read(variables, images * 0.5 + 0.1).pooled, features.pooled, rtol=1e-3)
    plain = jax.jit(parts.network_of(small("jigsaw", "--config.method.standardised=none")).apply)
    assert not np.allclose(plain(variables, images * 0.5 + 0.1).pooled, plain(variables, images).pooled)


@pytest.mark.parametrize("flags, words", [
    (["permutations=1"], "method.permutations=1 must be a whole number of at least 2"),
    (["permutations=362881"], "nine tiles have 362880 permutations"),
    (["tile=10"], "10 pixels are no multiple of model.patch=4"),
    (["cell=11"], "3 x 3 cells of 11 pixels"),
    (["tile=12"], "tiles of 12"), (["standardised=image"], "choose one of channel, tile, none"),
])  # fmt: skip
def test_puzzles_that_can_not_be_made_are_told(flags, words):
    with pytest.raises(UserError, match=words):
        checks.check(small("jigsaw", *(f"--config.method.{flag}" for flag in flags)), 1)


def test_presets_are_the_official_recipes():
    paper, resnet = presets.get_config(), presets.get_config("resnet50")
    assert (paper.method.cell, paper.method.tile, paper.method.channel_offset) == (85, 64, 2)
    steps = paper.epochs * 1_281_167 / paper.batch_size
    assert abs(steps - 350_000) < 1000 and (paper.optim.base_lr, paper.optim.weight_decay) == (0.01, 5e-4)
    assert (resnet.method.permutations, resnet.method.permutations_per_image, resnet.epochs) == (100, 8, 35)
    small_one = config.load("jigsaw:cifar").method
    assert (small_one.cell, small_one.tile, small_one.permutations) == (10, 8, 24)
