"""Puzzles of held-out images: the same for everybody, all images count alike, and a baseline learns from others."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jax_ssl.core import Task, TrainState
from jax_ssl.encoder import Encoder
from jax_ssl.errors import UserError
from jax_ssl.evaluate import pretext

ENCODE = Encoder(None, {}, mean=(0.5,) * 3, std=(0.25,) * 3)
IMAGES = np.random.default_rng(0).integers(0, 256, (520, 4, 4, 3)).astype(np.uint8)  # two batches and eight


def state(threshold=0.0):
    return TrainState(0, {"threshold": jnp.float32(threshold)}, (), {}, {}, jax.random.key(0), 0)


def set_puzzle(batch, rng):
    """A number for each image, and whether its mean colour is above it."""
    drawn = jax.random.normal(rng, (len(batch["views"]),))
    return drawn, batch["views"].mean((1, 2, 3, 4)) > drawn


def measure(params, state, batch, rng):
    drawn, above = set_puzzle(batch, rng)
    return {"accuracy": jnp.mean((drawn < params["threshold"]) == above), "draw": jnp.mean(drawn)}


def fit(batches, rng, linear):
    features, labels = zip(*(((d[:, None]), a) for d, a in (set_puzzle(batch, rng) for batch in batches)))
    predict = linear(jnp.concatenate(features), jnp.concatenate(labels).astype(int), 2)

    def solve(batch, rng):
        drawn, above = set_puzzle(batch, rng)
        return {"accuracy": jnp.mean(predict(drawn[:, None]) == above), "draw": jnp.mean(drawn)}

    return solve


def test_every_image_counts_alike_and_is_normalised():
    task = Task(lambda params, state, batch, rng: {"mean": batch["views"].mean(), "one": jnp.ones(())})
    found = pretext.of_state(task, state(), ENCODE, IMAGES)
    assert found == {"mean": pytest.approx((IMAGES.mean() / 255 - 0.5) / 0.25, abs=1e-4), "one": 1.0}
    shapes = [batch["views"].shape for batch in pretext.batches(ENCODE, IMAGES)]
    assert shapes == [(256, 1, 4, 4, 3), (256, 1, 4, 4, 3), (8, 1, 4, 4, 3)]


def test_puzzles_are_those_of_the_seed_and_the_same_for_all():
    task = Task(measure, baselines={"linear": fit}, chance={"accuracy": 0.5})
    one, other = (pretext.of_state(task, state(), ENCODE, IMAGES, seed) for seed in (0, 1))
    rows = dict(pretext.of_baselines(task, ENCODE, IMAGES[:300], IMAGES, seed=0))
    assert one == pretext.of_state(task, state(), ENCODE, IMAGES, 0) and one["draw"] != other["draw"]
    assert rows["linear"]["draw"] == pytest.approx(one["draw"], abs=1e-6) and rows["linear"]["accuracy"] > 0.9
    assert list(rows) == ["linear", "chance"] and rows["chance"] == {"accuracy": 0.5}
    wrong = pretext.of_state(task, state(-9.0), ENCODE, IMAGES, 0)
    assert wrong["draw"] == one["draw"] and wrong["accuracy"] < 0.6 < one["accuracy"]


def test_a_root_is_taken_of_the_mean_over_all_images():
    task = Task(lambda params, state, batch, rng: {"square": jnp.mean(jnp.square(batch["views"]))},
                summary=lambda means: {"root": means["square"] ** 0.5})  # fmt: skip
    expected = np.sqrt(np.mean(((IMAGES / 255 - 0.5) / 0.25) ** 2))
    assert pretext.of_state(task, state(), ENCODE, IMAGES) == {"root": pytest.approx(expected, rel=1e-5)}


def test_a_network_that_does_not_fit_the_images_is_told_and_compiles_nothing():
    task = Task(lambda params, state, batch, rng: {"one": jnp.zeros((5, 3)) @ batch["views"][0, 0, 0]})
    with pytest.raises(UserError, match="can't be set on images of 4 pixels"):
        pretext.of_state(task, state(), ENCODE, IMAGES)
    said = []
    assert pretext.scores(task, state(), ENCODE, IMAGES, note=said.append) == {} and "4 pixels" in said[0]


def test_too_few_images_are_told():
    with pytest.raises(UserError, match="give more"):
        pretext.of_state(Task(measure), state(), ENCODE, IMAGES[:3])
