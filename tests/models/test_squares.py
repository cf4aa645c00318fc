import jax
import jax.numpy as jnp
import numpy as np

from jax_ssl.models import squares

KEY = jax.random.key(0)


def picture(shape=(4, 12, 12, 3)):
    return np.random.default_rng(0).random(shape, np.float32)


def test_squares_are_cut_where_they_are_asked_for():
    images, random = picture(), np.random.default_rng(1)
    top, left = random.integers(0, 8, (2, 4, 5))
    found = squares.cut_at(images, top, left, 5)
    for image, number in np.ndindex(4, 5):
        y, x = top[image, number], left[image, number]
        np.testing.assert_array_equal(found[image, number], images[image, y : y + 5, x : x + 5])


def test_a_jittered_square_is_a_part_of_its_own_place_and_padding():
    images = 1 + picture()
    found = np.asarray(squares.cut_jittered(KEY, images, (0, 4), (0, 4), 8, 4))
    for image, number in np.ndindex(4, 4):
        y, x = 4 * (number // 2), 4 * (number % 2)
        place, inner = images[image, y : y + 8, x : x + 8], found[image, number, 2:6, 2:6]
        assert any((place[a : a + 4, b : b + 4] == inner).all() for a, b in np.ndindex(5, 5))
        assert (found[image, number] > 0).sum() == inner.size


def test_green_against_magenta_goes_and_grey_stays():
    images = picture((200, 2, 2, 3))
    changed = np.asarray(squares.without_green_magenta(KEY, images, 0.5))
    along = np.abs(changed @ np.array([1, -2, 1])).max((1, 2))
    touched = along < 1e-6
    assert 70 < touched.sum() < 130
    np.testing.assert_array_equal(changed[~touched], images[~touched])
    across = np.array([[1, 1, 1], [1, 0, -1]]).T  # the two other axes
    np.testing.assert_allclose(changed @ across, images @ across, atol=1e-5)
    grey = np.repeat(images[..., :1], 3, axis=-1)
    np.testing.assert_allclose(squares.without_green_magenta(KEY, grey, 1.0), grey, atol=1e-6)


def test_each_square_keeps_one_channel_of_its_own():
    tiles = 1 + picture((20, 9, 2, 2, 3))
    changed = np.asarray(squares.one_channel(KEY, tiles, 0.8))
    kept = (changed != 0).all((2, 3))
    assert set(kept.sum(-1).ravel()) == {1, 3}  # one channel, or as it was
    np.testing.assert_array_equal(changed[changed != 0], tiles[changed != 0])
    assert 0.7 < np.mean(kept.sum(-1) == 1) < 0.9 and np.all(kept[kept.sum(-1) == 1].sum(0) > 20)
    assert len(np.unique(kept, axis=1)[0]) > 1, "squares of an image differ"


def test_mirrored_relit_and_warped_squares():
    tiles = picture((20, 9, 6, 6, 3))
    turned = np.asarray(squares.mirrored(KEY, tiles, 0.5))
    same = (turned == tiles).all((2, 3, 4))
    np.testing.assert_array_equal(turned[~same], tiles[~same][:, :, ::-1])
    assert 0.35 < same.mean() < 0.65

    lit = np.asarray(squares.relit(KEY, tiles, 0.3))
    gain, shift = np.polyfit(tiles[0, 0].ravel(), lit[0, 0].ravel(), 1)
    np.testing.assert_allclose(lit[0, 0], gain * tiles[0, 0] + shift, atol=1e-5)
    assert 0.7 <= gain <= 1.3 and abs(shift) <= 0.3

    flat = jnp.ones((2, 3, 6, 6, 3)) * jnp.arange(1, 4)
    np.testing.assert_allclose(squares.warped(KEY, flat, 30.0), flat, rtol=1e-5)  # edges are repeated
    bent = squares.warped(KEY, tiles, 20.0)
    assert not np.allclose(bent, tiles, atol=0.05)
    np.testing.assert_allclose(squares.warped(KEY, tiles, 1e-3), tiles, atol=1e-3)


def test_nothing_is_done_at_zero():
    tiles = picture((2, 3, 4, 4, 3))
    for function in (squares.one_channel, squares.mirrored, squares.relit, squares.warped):
        assert function(KEY, tiles, 0.0) is tiles
    assert squares.without_green_magenta(KEY, tiles[0], 0.0).shape == tiles[0].shape
