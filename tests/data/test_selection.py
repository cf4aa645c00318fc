"""A few images to look at: spread over what there is, neighbours together, and honest about what can't be read."""

import numpy as np
import pytest
from PIL import Image

from jax_ssl import config
from jax_ssl.data import selection
from jax_ssl.data.cutouts import load_cutouts, noise
from jax_ssl.data.sources import open_source
from jax_ssl.errors import UserError


def fill(folder, count=5, size=(40, 30)):
    """Images that are one grey each, by their number."""
    folder.mkdir(exist_ok=True)
    for number in range(count):
        Image.new("RGB", size, (10 * number,) * 3).save(folder / f"{number}.png")
    return str(folder)


@pytest.mark.parametrize("total, count", [(1, 1), (1, 8), (2, 8), (5, 4), (9, 8), (100, 8), (1000, 7), (7, 1), (3, 2)])
def test_neighbours_from_evenly_spread_places(total, count):
    chosen = selection.spread_pairs(total, count)
    assert len(chosen) == min(total, count) and len(set(chosen)) == len(chosen)
    assert chosen.min() >= 0 and chosen.max() < total and (np.diff(chosen) > 0).all()
    if total >= 2 * count:
        assert (chosen[1::2] - chosen[: 2 * (count // 2) : 2] == 1).all()
        assert count < 4 or np.diff(chosen[::2]).min() >= total // count


def test_pairs_of_a_labelled_source_are_of_one_class():
    images = selection.from_source("embedded", "", 8, 32, 1.0)
    source = open_source("embedded", "test")
    record = {image.tobytes(): number for number, image in enumerate(source.images)}
    labels = source.labels[[record[image.tobytes()] for image in images]]
    assert (labels[::2] == labels[1::2]).all() and len(set(labels[::2])) == 4


def test_a_folder_gives_squares_of_the_size(tmp_path):
    images = selection.from_folder(fill(tmp_path / "images"), 8, 16)
    assert images.shape == (5, 16, 16, 3) and images.dtype == np.uint8
    np.testing.assert_array_equal(images[:, 0, 0, 0], [0, 10, 20, 30, 40])


def test_what_can_not_be_read_is_named(tmp_path):
    folder = fill(tmp_path / "images")
    (tmp_path / "images" / "2.png").write_bytes(b"no image")
    lines = []
    images = selection.from_folder(folder, 8, 16, lines.append)
    assert images[:, 0, 0, 0].tolist() == [0, 10, 30, 40] and len(lines) == 1 and "2.png: not a jpeg" in lines[0]
    with pytest.raises(UserError, match="There is no folder .*nowhere"):
        selection.from_folder(str(tmp_path / "nowhere"), 8, 16)
    (tmp_path / "empty").mkdir()
    with pytest.raises(UserError, match="holds no images"):
        selection.from_folder(str(tmp_path / "empty"), 8, 16)


def test_another_image_takes_the_place_of_one_that_can_not_be_read(tmp_path):
    folder, lines = fill(tmp_path / "images", 20), []
    chosen = selection.spread_pairs(20, 4)
    (tmp_path / "images" / "0.png").write_bytes(b"no image")
    broken = sorted(path.name for path in (tmp_path / "images").iterdir())[chosen[1]]
    (tmp_path / "images" / broken).write_bytes(b"no image")
    assert len(selection.from_folder(folder, 4, 16, lines.append)) == 4 and broken in lines[0]


def test_nothing_but_broken_images_is_told(tmp_path):
    folder = fill(tmp_path / "images", 3)
    for number in range(3):
        (tmp_path / "images" / f"{number}.png").write_bytes(b"no image")
    with pytest.raises(UserError, match="None of the 3 images can be read"):
        selection.from_folder(folder, 2, 16, lambda line: None)


def test_the_numbers_of_a_batch_of_views_are_in_the_order_of_the_images():
    settings = config.load("swav:tiny")
    images = selection.from_source("embedded", "", 6, 32, 1.0)
    raw = selection.raw_batch(settings, images)
    np.testing.assert_array_equal(raw["index"], np.arange(6))
    assert set(raw) == {"index", *settings.data.crops} and len(raw["views"]["box"]) == 6


def test_cut_outs_come_with_their_outline(tmp_path):
    fill(tmp_path / "cuts", 2)  # opaque ones, left out
    cut = np.zeros((60, 60, 4), np.uint8)
    cut[10:50, 20:30] = (255, 0, 0, 255)
    Image.fromarray(cut).save(tmp_path / "cuts" / "red.png")
    images, outlines = load_cutouts(str(tmp_path / "cuts"), 10, 64)
    assert images.shape == (1, 64, 64, 3) and outlines.shape == (1, 64, 64) and outlines.dtype == bool
    rows, columns = np.nonzero(outlines[0])
    assert np.ptp(rows) + 1 == round(0.85 * 64) and abs(np.ptp(columns) + 1 - 0.85 * 16) <= 1
    np.testing.assert_array_equal(images[0][outlines[0]].mean(0).round(), (255, 0, 0))
    assert (images[0][~outlines[0]] != (255, 0, 0)).any(-1).all()
    again, _ = load_cutouts(str(tmp_path / "cuts"), 10, 64)
    np.testing.assert_array_equal(images, again)


def test_a_broken_cut_out_is_left_out(tmp_path):
    cut = np.zeros((60, 60, 4), np.uint8)
    cut[10:50, 20:30] = (255, 0, 0, 255)
    Image.fromarray(cut).save(tmp_path / "red.png")
    (tmp_path / "blue.png").write_bytes(b"no image")
    lines = []
    assert len(load_cutouts(str(tmp_path), 10, 32, lines.append)[0]) == 1
    assert len(lines) == 1 and "blue.png: not a jpeg" in lines[0]


def test_a_folder_without_cut_outs_is_told(tmp_path):
    with pytest.raises(UserError, match="no image with transparency"):
        load_cutouts(fill(tmp_path / "images"), 10, 32)


def test_a_page_of_noise_has_more_contrast_at_large_scales():
    page = noise(64, np.random.default_rng(0)).astype(float)
    coarse = page.reshape(16, 4, 16, 4, 3).mean((1, 3))
    white = np.random.default_rng(0).permutation(page.ravel()).reshape(16, 4, 16, 4, 3).mean((1, 3))
    assert coarse.std() > 2 * white.std()
