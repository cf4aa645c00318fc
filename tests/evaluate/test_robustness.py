"""Changes of images by hand, mCE by hand, and what a classifier that knows the answer loses."""

import numpy as np
import pytest

from jax_ssl.errors import UserError
from jax_ssl.evaluate import robustness, severities
from jax_ssl.evaluate.case import Case, Side


def pictures(count=12, side=32, seed=0):
    return np.random.RandomState(seed).randint(0, 256, (count, side, side, 3)).astype(np.uint8)


def test_mean_corruption_error_by_hand():
    kinds = severities.KINDS
    errors = {"clean": 0.1} | {kind: [0.2] * 5 for kind in kinds}
    baseline = {"clean": 0.3} | {kind: [0.4] * 5 for kind in kinds}
    errors["fog"] = [0.3, 0.4, 0.4, 0.5, 0.9]  # 2.5 where the baseline has 2
    found = robustness.summary(errors, baseline)
    assert found["mce"] == pytest.approx((14 * 0.5 + 1.25) / 15)
    assert found["mce_relative"] == pytest.approx((14 * 1.0 + (2.5 - 0.5) / (2 - 1.5)) / 15)
    assert found["error_corrupted"] == pytest.approx((14 * 0.2 + 0.5) / 15) and found["error_fog"] == pytest.approx(0.5)
    assert robustness.summary(baseline, baseline)["mce"] == pytest.approx(1)


def test_our_own_frost_does_not_count():
    errors = {"clean": 0.1} | {kind.replace("frost", "frost*"): [0.2] * 5 for kind in severities.KINDS}
    errors["frost*"] = [1.0] * 5
    found = robustness.summary(errors, errors | {"frost*": [0.1] * 5})
    assert found["mce_14"] == pytest.approx(1) and "mce" not in found and found["error_frost*"] == 1


def test_a_baseline_that_never_errs_gives_no_quotient():
    perfect = {"clean": 0.0} | {kind: [0.0] * 5 for kind in severities.KINDS}
    assert not {"mce", "mce_relative"} & set(robustness.summary(perfect, perfect))


def test_hidden_patches_are_of_the_colour_and_nested():
    images, before = pictures(), np.zeros((12, 8, 8), bool)
    for share in robustness.HIDDEN:
        hidden = (robustness.hide(images, share, (1, 2, 3), seed=4) == (1, 2, 3)).all(-1)
        patches = hidden.reshape(12, 8, 4, 8, 4).all((2, 4))
        assert (patches.sum((1, 2)) == round(64 * share)).all()
        assert (before <= patches).all() and (patches[0] != patches[1]).any() == (share > 0)
        before = patches
    order = np.broadcast_to(np.arange(64), (12, 64))
    assert (robustness.hide(images, 0.5, (1, 2, 3), order)[:, :16] == (1, 2, 3)).all()


def test_shuffled_cells_keep_their_pixels():
    images = pictures(side=33)
    found = robustness.shuffle(images, 4, seed=1)
    np.testing.assert_array_equal(found[:, 32:], images[:, 32:])
    cells = [x[:, :32, :32].reshape(12, 4, 8, 4, 8, 3).swapaxes(2, 3).reshape(12, 16, -1) for x in (images, found)]
    for before, after in zip(*cells, strict=True):
        assert {cell.tobytes() for cell in before} == {cell.tobytes() for cell in after}
        assert (before != after).any()
    np.testing.assert_array_equal(robustness.shuffle(images, 1), images)


def test_a_quarter_turn_is_rot90_within_the_disc():
    images = pictures()
    disc = (robustness.turn(images, 0, (9, 9, 9)) != robustness.turn(images, 0, (8, 8, 8))).any(-1)
    assert disc[0, 0, 0] and not disc[0, 16, 0] and not disc[:, 8:24, 8:24].any()
    for degrees, times in ((90, 1), (180, 2), (-90, 3)):
        found = robustness.turn(images, degrees, (9, 9, 9))
        np.testing.assert_array_equal(found[~disc], np.rot90(images, times, (1, 2))[~disc])
        assert (found[disc] == 9).all()


def test_areas():
    assert robustness.area({0.0: 1.0, 0.5: 0.5, 1.0: 0.0}) == pytest.approx(0.5)
    assert robustness.area(dict(zip(robustness.CELLS, [1.0, 0.5, 0.5, 0.0], strict=True))) == pytest.approx(0.5)


def corners(images):
    """Features that see the mean of the upper left quarter alone."""
    return images[:, :16, :16].mean((1, 2)).astype(np.float32) - 128


def case(images=24):
    """Two classes: red or blue in the upper left quarter, and noise elsewhere."""
    train, test = (pictures(images, seed=seed) // 2 for seed in (0, 1))
    labels = np.arange(images, dtype=np.int32) % 2
    for x in (train, test):
        x[labels == 0, :16, :16, 0] += 120
        x[labels == 1, :16, :16, 2] += 120
    sides = (Side(corners(x), labels, x) for x in (train, test))
    return Case("pixels", *sides, classes=2, pixels=corners)


def test_the_ruler_says_what_a_network_looks_at():
    found, protocol = robustness.measure(case(), 0, images=20, kinds=("contrast", "pixelate"))
    assert found["error_clean"] == 0 == found["error_pixelate"]
    assert found["hidden@0"] == found["turned@0"] == 1
    assert found["turned@180"] < 0.9  # the coloured quarter is elsewhere
    assert found["shuffled@1"] == 1 > found["shuffled@2"]
    assert all(np.isfinite(value) for value in found.values())
    assert protocol["images"] == 20 and protocol["constants"] == 32


def test_what_cannot_be_measured_is_a_sentence():
    with pytest.raises(UserError, match="labelled test images"):
        robustness.curves({}, pictures(2), [], (0, 0, 0))
    given = case()
    given.train.labels[:] = 0
    with pytest.raises(UserError, match="one class"):
        robustness.measure(given, 0)
