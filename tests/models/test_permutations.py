import math

import numpy as np
import pytest

from jax_ssl.models.permutations import TILES, every_permutation, permutation_set


@pytest.fixture
def golden(request):
    return np.load(request.config.rootpath / "tests" / "golden" / "jigsaw.npz")


def distances(permutations):
    """The least and the mean Hamming distance of two different rows, pair by pair."""
    apart = [np.sum(a != b) for number, a in enumerate(permutations) for b in permutations[:number]]
    return min(apart), np.mean(apart)


@pytest.mark.seal(2, "jigsaw")
@pytest.mark.parametrize("seed", [0, 1])
@pytest.mark.parametrize("count, least, mean", [(24, 7, 8.32), (64, 7, 8.12), (100, 6, 8.08), (200, 6, 8.04)])
def test_the_least_distance_is_as_large_as_it_gets_and_the_mean_with_it(count, least, mean, seed):
    found = permutation_set(count, seed)
    assert found.rows.shape == (count, TILES) and len(np.unique(found.rows, axis=0)) == count
    np.testing.assert_array_equal(np.sort(found.rows, axis=1), np.tile(np.arange(TILES), (count, 1)))
    assert found.least == least and found.mean == pytest.approx(mean, abs=0.006)
    assert distances(found.rows) == (found.least, pytest.approx(found.mean))


@pytest.mark.seal(2, "jigsaw")
@pytest.mark.parametrize("count", [24, 100])
def test_no_set_of_the_official_script_is_farther_apart_in_either_way(golden, count):
    """Its rules are the largest mean, by default, or the largest minimum: here is the minimum, and nearly the mean."""
    _, least, mean = permutation_set(count)
    for rule in ("max_avg", "max_min"):
        assert distances(golden[f"{rule}_{count}"]) == (
            golden[f"{rule}_{count}_min"], pytest.approx(float(golden[f"{rule}_{count}_mean"]), rel=1e-6)
        )  # fmt: skip
    assert least == golden[f"max_min_{count}_min"] >= golden[f"max_avg_{count}_min"]
    assert mean >= golden[f"max_min_{count}_mean"] and mean >= golden[f"max_avg_{count}_mean"] - 0.01


def test_a_set_follows_from_its_seed_and_begins_with_every_smaller_one():
    np.testing.assert_array_equal(permutation_set(30, 3).rows[:10], permutation_set(10, 3).rows)
    assert np.any(permutation_set(10, 3).rows != permutation_set(10, 4).rows)


def test_there_are_nine_factorial_and_no_more():
    assert len(np.unique(every_permutation(), axis=0)) == math.factorial(TILES)
    for count in (1, math.factorial(TILES) + 1):
        with pytest.raises(ValueError, match="362880"):
            permutation_set(count)
