"""What a network costs, counted by hand, and when a run had reached a kNN, read off a line."""

import flax.linen as nn
import jax
import numpy as np
import pytest

from jax_ssl.encoder import Encoder, outputs, pooled_of
from jax_ssl.errors import UserError
from jax_ssl.evaluate import cost
from jax_ssl.evaluate.case import Case, Side
from jax_ssl.models.features import Features
from jax_ssl.study.cost import flops_of_image

PROBES = [(10, 2.0, 0.2), (20, 4.0, 0.3), (30, 10.0, 0.25), (40, 12.0, 0.4)]


def training(probes=PROBES, flops=2e12):
    return cost.Training(probes, batch=8, flops=lambda: flops, parameters=7, repeated=1.5)


@pytest.mark.parametrize("target, expected", [
    (0.1, (10, 2.0)), (0.2, (10, 2.0)), (0.25, (15, 3.0)), (0.3, (20, 4.0)), (0.35, (30 + 10 * 2 / 3, 10 + 2 * 2 / 3)),
    (0.41, None),
])  # fmt: skip
def test_a_knn_is_reached_on_the_line_between_two_probes(target, expected):
    found = cost.reach(PROBES, target)
    assert found == (expected and pytest.approx(expected))


def test_what_a_run_spent_until_its_knn():
    numbers, said = cost.until(training(), 0.25)
    assert numbers == {"to_knn": 0.25, "to_knn_seconds": 3.0, "to_knn_images": 120.0, "to_knn_tflop": 30.0}
    assert said["repeated_seconds"] == 1.5 and "0.25, at step 15." in said["note"]
    assert cost.until(training(), 0.0)[0]["to_knn"] == 0.4  # the best
    assert "to_knn_tflop" not in cost.until(training(flops=None), 0.25)[0]
    numbers, said = cost.until(training(), 0.5)
    assert not numbers and said["note"] == (
        "A kNN of 0.5 was never reached: the best of 4 probes is 0.4, at step 40, after 12.0 s."
    )
    numbers, said = cost.until(training([]), 0.5)
    assert not numbers and "had no probe" in said["note"]


class Small(nn.Module):
    @nn.compact
    def __call__(self, images):
        patches = nn.Dense(6)(images.reshape(len(images), 4, -1))
        return Features(patches.mean(1), patches, patches[:, :0])


def case():
    variables = jax.jit(Small().init)(jax.random.key(0), np.zeros((1, 4, 4, 3)))
    images = np.random.RandomState(0).randint(0, 256, (20, 4, 4, 3)).astype(np.uint8)
    encode = Encoder(Small(), variables, size=4)
    sides = (Side(None, None, images) for _ in range(2))
    return Case("student", *sides, encode=encode, flops=lambda: flops_of_image(encode, 4), training=training)


def test_a_network_is_counted_by_hand(monkeypatch):
    monkeypatch.setattr(cost, "SECONDS", 0.01)
    found, protocol = cost.measure(case(), 0, batch=9, rounds=2, knn=0.3)
    assert found["gflops"] == pytest.approx(2 * 4 * 12 * 6 / 1e9) and found["mparameters"] == 78 / 1e6
    assert found["images_per_second"] > 0 and found["end_to_end_per_second"] > 0 and found["to_knn_seconds"] == 4.0
    assert protocol["batch"] == 16 and protocol["devices"] == 8  # two images on each
    assert found["memory_mib"] * 2**20 >= 78 * 4 + 2 * (48 + 6) * 4  # weights, and images and features of a device
    assert set(cost.SHOWN) <= set(found)


def test_the_program_that_is_timed_makes_the_features():
    own = case()
    program, (variables, images) = cost.compiled(own.encode, 4, 16)
    pixels = np.round(np.asarray(images) * 255).astype(np.uint8)
    (expected,) = outputs(own.encode, [pixels], pooled_of)
    np.testing.assert_allclose(program(variables, images), expected, rtol=1e-5, atol=1e-6)


def test_a_round_ends_after_its_seconds(monkeypatch):
    now = iter([0.0, 0.2, 0.3, 0.5, 9.0])
    monkeypatch.setattr(cost.time, "perf_counter", lambda: next(now))
    assert cost.per_second([5] * 9, lambda number: None) == 15 / 0.5


def test_options_without_a_meaning_are_a_sentence():
    for options, words in (({"knn": 40}, "0.4 for 40 %"), ({"rounds": 0}, "a round at least")):
        with pytest.raises(UserError, match=words):
            cost.measure(case(), 0, **options)
