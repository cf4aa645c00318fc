"""Sheets: where a cell lies, how it is enlarged, what stands above it."""

import numpy as np

from jax_ssl.visualize import pictures, reconstruct, views
from jax_ssl.visualize.attention import spotlight


def test_small_images_keep_their_pixels_and_large_ones_are_resampled():
    images = np.random.default_rng(0).uniform(size=(2, 8, 8, 3)).astype(np.float32)
    np.testing.assert_array_equal(pictures.fit(images, 32), images.repeat(4, 1).repeat(4, 2))
    flat = np.full((1, 64, 64, 3), 0.3, np.float32)
    np.testing.assert_allclose(pictures.fit(flat, 48), np.full((1, 48, 48, 3), 0.3), atol=1e-6)
    smooth = pictures.fit(images[..., 0], 32, smooth=True)
    assert smooth.shape == (2, 32, 32) and not np.allclose(smooth, pictures.fit(images[..., 0], 32))


def test_a_sheet_puts_each_column_under_its_title():
    colours = np.eye(3, dtype=np.float32)
    columns = [np.broadcast_to(colour, (3, 50, 50, 3)) for colour in colours]
    sheet = np.asarray(pictures.sheet(columns, ["a", "b", "c"]))
    assert sheet.shape == (pictures.TITLE + 3 * 50 + 2 * pictures.GAP, 3 * 50 + 2 * pictures.GAP, 3)
    for column, colour in enumerate(colours):
        left = column * (50 + pictures.GAP)
        np.testing.assert_array_equal(sheet[pictures.TITLE + 120, left + 25], 255 * colour)
        assert (sheet[: pictures.TITLE, left : left + 50] < 128).any()  # the title


def test_few_columns_of_many_rows_are_folded():
    column = np.arange(8, dtype=np.float32)[:, None, None, None] / 8 * np.ones((8, 20, 20, 3), np.float32)
    sheet = np.asarray(pictures.sheet([column, column], ["a", "b"]))
    step = 20 + pictures.GAP
    middles = sheet[pictures.TITLE + 10 :: step, 10::step, 0]
    expected = [[0, 0, 2, 2, 1, 1, 3, 3], [4, 4, 6, 6, 5, 5, 7, 7]]
    np.testing.assert_array_equal(np.sort(middles), np.sort(np.round(np.array(expected) / 8 * 255)))


def test_outside_of_a_mask_it_is_dark_and_grey():
    image = np.full((1, 4, 4, 3), (0.9, 0.3, 0.0), np.float32)
    mask = np.zeros((1, 4, 4))
    mask[0, :2] = 1
    lit = spotlight(image, mask)
    np.testing.assert_allclose(lit[0, 0, 0], (0.9, 0.3, 0.0), atol=1e-6)
    np.testing.assert_allclose(lit[0, 3, 3], np.full(3, 0.12), atol=1e-6)


def test_reconstructions_at_three_ratios_and_views_of_two_sizes():
    shown = {ratio: np.random.default_rng(0).uniform(size=(2, 3, 16, 16, 3)) for ratio in (0.5, 0.75, 0.9)}
    assert reconstruct.draw(shown).width == 7 * (pictures.cell(7) + pictures.GAP) - pictures.GAP
    groups = {"views": np.zeros((2, 2, 32, 32, 3)), "local": np.zeros((2, 6, 16, 16, 3))}
    drawn = views.draw(np.zeros((2, 32, 32, 3), np.uint8), groups)
    assert drawn.width == 9 * (pictures.cell(9) + pictures.GAP) - pictures.GAP
