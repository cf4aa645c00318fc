"""Warps carry pixels where they say, and features that know a place find it, while those of position alone do not."""

import jax
import numpy as np
import pytest

from jax_ssl.errors import UserError
from jax_ssl.evaluate import correspondence
from jax_ssl.evaluate.case import Side
from tests.evaluate.patched import Patched

SIDE, GRID = 64, 16


def maps(count=20, shift=4):
    return correspondence.warps(count, SIDE, shift * SIDE / GRID, np.random.default_rng(0))


def sense_of_place(points):
    """Features by which near points are similar and others are not: (..., 2) pixels -> (..., 256)."""
    waves = np.random.RandomState(0).randn(2, 128) / 4
    return np.concatenate([np.cos(points @ waves), np.sin(points @ waves)], -1).astype(np.float32)


def test_warps_move_and_stay_invertible():
    found = maps()
    middle = correspondence.carried(np.array([[SIDE / 2, SIDE / 2]]), found)[:, 0] - SIDE / 2
    moved = np.linalg.norm(middle, axis=1) / (SIDE / GRID)
    assert (moved > 4 - 1e-9).all() and (moved < 6 + 1e-9).all()
    points = correspondence.centres(GRID, SIDE)
    there = correspondence.carried(points, found[:1])[0]
    np.testing.assert_allclose(correspondence.carried(there, np.linalg.inv(found[:1]))[0], points, atol=1e-9)


def test_a_warped_picture_is_what_moved():
    images = np.random.RandomState(0).randint(0, 256, (1, 8, 8, 3)).astype(np.uint8)
    shift = np.array([[[1, 0, 2], [0, 1, 3], [0, 0, 1.0]]])  # 2 to the right, 3 down
    found = correspondence.warp(images, shift)
    np.testing.assert_array_equal(found[:, 3:, 2:], images[:, :-3, :-2])
    np.testing.assert_array_equal(found[:, 2, 2:], images[:, 1, :-2])  # mirrored above the edge


def test_features_that_know_the_place_find_it_and_position_does_not():
    found, points = maps(), correspondence.centres(GRID, SIDE)
    first = np.broadcast_to(sense_of_place(points), (20, GRID * GRID, 256))
    second = sense_of_place(correspondence.carried(points, np.linalg.inv(found)))
    right = correspondence.errors(correspondence.match(first, second), found, SIDE)
    assert (right <= 0.9).all() and right.mean() > 0.2  # the middle of the nearest patch is up to 0.71 away
    position = correspondence.errors(correspondence.match(first, first), found, SIDE)
    assert (position <= 1).mean() < 0.1


def test_errors_by_hand():
    shift = np.array([[[1, 0, 16], [0, 1, 0], [0, 0, 1.0]]])  # four of 16 patches to the right
    places = np.arange(256)[None] + 4
    places[0, 0] += 2
    found = correspondence.errors(np.minimum(places, 255), shift, SIDE)
    assert len(found) == 16 * 12  # the last four columns leave the frame
    assert found[0] == pytest.approx(2) and found[1:].max() < 1e-9


def test_pixels_of_patches_row_by_row():
    images = np.arange(2 * 4 * 4 * 3).reshape(2, 4, 4, 3).astype(np.uint8)
    found = correspondence.pixel_patches(images, (2, 2))
    assert found.shape == (2, 4, 12)
    np.testing.assert_allclose(found[1, 2], (images[1, 2:, :2] - images.mean((0, 1, 2))).ravel())
    labels = np.arange(2 * 6 * 9).reshape(2, 6, 9)  # patches of 2 x 4; a column is over
    found = correspondence.cut(labels, (3, 2))
    assert found.shape == (2, 6, 8)
    np.testing.assert_array_equal(found[1, 3], labels[1, 2:4, 4:8].ravel())


def test_a_map_has_the_shape_of_its_image():
    assert correspondence.grid_of(24, (32, 48), "It", 2) == (4, 6)
    assert correspondence.grid_of(16, 32, "It", 2) == (4, 4)
    for patches, size in ((25, (32, 48)), (24, 32), (17, 32), (6, (32, 48))):
        with pytest.raises(UserError, match=f"It needs a map in the shape .* gives {patches} patches"):
            correspondence.grid_of(patches, size, "It", 3)


def test_the_ruler_measures_a_network_beside_baselines():
    images = np.random.RandomState(0).randint(0, 256, (6, 24, 24, 3)).astype(np.uint8)
    found, protocol = correspondence.measure(Patched(test=Side(np.zeros((6, 1)), None, images)), 0, images=5)
    assert protocol["images"] == 5 and protocol["patches"] == 6
    assert abs(found["pck_patch"] - found["pck_patch_pixels"]) < 0.2  # its patches are pixels, with their mean
    assert found["pck_patch_position"] < 0.3 and found["error"] > 0
    with pytest.raises(UserError, match="5 x 5 patches at least, and this network gives 16"):
        correspondence.measure(Patched(test=Side(np.zeros((6, 1)), None, images[:, :16, :16])), 0)


def test_matches_are_multiplied_at_highest_precision():
    x = np.zeros((1, 4, 3), np.float32)
    text = str(jax.make_jaxpr(correspondence._match)(x, x))
    assert text.count("dot_general[") == text.count("precision=(Precision.HIGHEST, Precision.HIGHEST)") == 1
