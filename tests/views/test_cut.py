"""Crop and flip on the host: Pillow's, and what the device makes of the same boxes."""

import jax
import numpy as np
import pytest
from PIL import Image

from jax_ssl.views import device as on_device
from jax_ssl.views.cut import crop, cut_views
from jax_ssl.views.draws import boxes
from tests.pictures import STRONG, drawn_for, some_image

STEP = 1 / 255


@pytest.mark.parametrize("interpolation", ["bilinear", "bicubic"])
@pytest.mark.parametrize(("height", "width", "size"), [(32, 32, 32), (40, 30, 96), (200, 300, 64), (230, 224, 224)])
def test_the_device_crops_as_pillow_does(interpolation, height, width, size):
    image = some_image(height, width)
    drawn = drawn_for([dict(STRONG, count=6)], 1)
    box, flip = boxes(drawn, height, width)[0], drawn["flip"][0]
    assert flip.any() and not flip.all()
    device = jax.jit(on_device.crop, static_argnums=(3, 4))(np.stack([image] * 6), box, flip, size, interpolation)
    picture = Image.fromarray(image)
    host = np.stack([crop(picture, *pair, size, interpolation) for pair in zip(box.tolist(), flip, strict=True)])
    assert host.dtype == np.uint8
    difference = np.abs(host / 255 - np.asarray(device))
    assert difference.max() < 1.01 * STEP  # a tie may be rounded either way
    assert (difference > 0.01 * STEP).mean() < 2e-2  # and ties are common: bilinear weights are simple fractions


def test_crop_is_pillows_resize_of_the_cut():
    """In one call, where Pillow takes the rows first as well: a box that is wider than high."""
    picture = Image.fromarray(some_image(60, 200))
    expected = picture.crop((10, 5, 190, 55)).resize((40, 40), Image.Resampling.BICUBIC)
    for flip in (False, True):
        ours = crop(picture, (5, 10, 50, 180), flip, 40, "bicubic")
        np.testing.assert_array_equal(ours, np.asarray(expected)[:, :: -1 if flip else 1])


def test_nothing_beyond_the_box_is_seen():
    image = some_image(40, 40)
    spoiled = np.full_like(image, 255)
    spoiled[10:25, 5:30] = image[10:25, 5:30]
    for size in (8, 60):
        each = (Image.fromarray(pixels) for pixels in (image, spoiled))
        clean, dirty = (crop(picture, (10, 5, 15, 25), False, size, "bicubic") for picture in each)
        np.testing.assert_array_equal(clean, dirty)


def test_cut_makes_every_view_of_its_own_box():
    group, image = [STRONG, dict(STRONG, count=1, scale=(0.05, 0.1))], Image.fromarray(some_image(48, 64))
    drawn = {name: array[3] for name, array in drawn_for(group, 4).items()}
    views = cut_views(image, drawn, group)
    assert views.shape == (3, 32, 32, 3) and views.dtype == np.uint8
    (places,) = boxes({name: array[None] for name, array in drawn.items()}, 48, 64)
    for view, box, flip in zip(views, places.tolist(), drawn["flip"], strict=True):
        np.testing.assert_array_equal(view, crop(image, box, flip, 32, "bicubic"))
