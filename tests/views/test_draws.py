"""The draws are a pure function of (seed, epoch, sample, stream), have the right laws, and lead to the right boxes."""

import inspect
import math
import runpy
from pathlib import Path

import numpy as np
import pytest
from ml_collections import ConfigDict

from jax_ssl.errors import UserError
from jax_ssl.views.draws import ORDERS, SLOTS, boxes, check_crops, draws, uniforms
from tests.pictures import RECIPE

MANY = 20_000


def drawn_many(recipe=RECIPE, count=MANY, seed=3):
    return draws([recipe], seed, np.zeros(count, np.int64), np.arange(count), 0)


def splitmix(words, slot):
    """The hash with Python's own whole numbers: -> the uniform in a slot, as `uniforms` documents it."""

    def mix(number):
        number = ((number ^ (number >> 30)) * 0xBF58476D1CE4E5B9) % 2**64
        number = ((number ^ (number >> 27)) * 0x94D049BB133111EB) % 2**64
        return number ^ (number >> 31)

    golden = 0x9E3779B97F4A7C15
    state, *rest = words
    for word in rest:
        state = mix((state + golden) % 2**64) ^ word
    start = mix((state + golden) % 2**64)
    return (mix((start + (slot + 1) * golden) % 2**64) >> 40) / 2**24


def test_uniforms_are_the_documented_hash():
    ours = uniforms(7, np.array([2, 2**40]), np.array([5, 6]), 1, 3)
    for row, (epoch, sample) in enumerate(((2, 5), (2**40, 6))):
        expected = [splitmix((7, epoch, sample, 1), slot) for slot in range(3 * SLOTS)]
        np.testing.assert_array_equal(ours[row].ravel(), np.float32(expected))


def test_draws_do_not_depend_on_the_batch():
    epoch, sample = np.repeat(np.arange(3), 10), np.tile(np.arange(10), 3)
    whole = draws([RECIPE, RECIPE], 5, epoch, sample, 1)
    picked = np.random.RandomState(0).permutation(30)[:7]
    part = draws([RECIPE, RECIPE], 5, epoch[picked], sample[picked], 1)
    alone = draws([RECIPE, RECIPE], 5, epoch[4:5], sample[4:5], 1)
    for name, array in whole.items():
        assert array.shape[:2] == (30, 4)
        np.testing.assert_array_equal(part[name], array[picked])
        np.testing.assert_array_equal(alone[name], array[4:5])


@pytest.mark.parametrize("changed", [dict(seed=1), dict(seed=2**33), dict(epoch=1), dict(sample=1), dict(stream=1)])
def test_every_argument_matters(changed):
    def area(seed=0, epoch=0, sample=0, stream=0):
        return draws([RECIPE], seed, np.array([epoch]), np.array([sample]), stream)["area"]

    assert not np.intersect1d(area(), area(**changed)).size


def test_views_and_slots_are_independent():
    unit = uniforms(0, np.zeros(MANY, np.int64), np.arange(MANY), 0, 2).reshape(MANY, -1)
    correlation = np.corrcoef(unit.T) - np.eye(unit.shape[1])
    assert np.abs(correlation).max() < 5 / math.sqrt(MANY)
    assert len(np.unique(unit[:, 0])) > 0.99 * MANY


def test_uniforms_are_uniform():
    unit = uniforms(0, np.zeros(MANY, np.int64), np.arange(MANY), 0, 1)[:, 0]
    assert unit.dtype == np.float32 and unit.min() >= 0 and unit.max() < 1
    for slot in unit.T:
        counts = np.histogram(slot, bins=50, range=(0, 1))[0]
        chi_square = ((counts - MANY / 50) ** 2 / (MANY / 50)).sum()
        assert chi_square < 49 + 6 * math.sqrt(2 * 49)


def close_to(mean, expected, deviation, count):
    """Within five standard errors."""
    assert abs(mean - expected) < 5 * deviation / math.sqrt(count)


def test_probabilities():
    drawn = drawn_many()
    happened = {
        "flip": drawn["flip"],
        "grey": drawn["grey"],
        "blur": drawn["sigma"] > 0,
        "solarize": drawn["solarize"],
        "jitter_probability": (drawn["jitter"] != np.float32([1, 1, 1, 0])).any(-1),
    }
    for name, event in happened.items():
        p = RECIPE[name]
        close_to(event.mean(), p, math.sqrt(p * (1 - p)), event.size)


@pytest.mark.parametrize("probability", [0.0, 1.0])
def test_certain_events_are_certain(probability):
    names = ("flip", "grey", "blur", "solarize", "jitter_probability")
    drawn = drawn_many(dict(RECIPE, **dict.fromkeys(names, probability)))
    for event in (drawn["flip"], drawn["grey"], drawn["sigma"] > 0, drawn["solarize"], drawn["jitter"][..., 0] != 1):
        assert event.mean() == pytest.approx(probability, abs=1e-3)


def test_laws_of_the_factors():
    drawn = drawn_many()
    on = (drawn["jitter"] != np.float32([1, 1, 1, 0])).any(-1)
    limits = ((0.6, 1.4), (0.2, 1.8), (0.0, 2.2), (-0.1, 0.1))  # torchvision: max(0, 1 - s), 1 + s; -h, h
    for factor, (low, high) in zip(drawn["jitter"][on].T, limits, strict=True):
        assert low <= factor.min() < low + 0.01 * (high - low) and high - 0.01 * (high - low) < factor.max() <= high
        close_to(factor.mean(), (low + high) / 2, (high - low) / math.sqrt(12), factor.size)
    sigma = drawn["sigma"][drawn["sigma"] > 0]
    assert sigma.min() >= 0.1 and sigma.max() <= 2.0
    close_to(sigma.mean(), 1.05, 1.9 / math.sqrt(12), sigma.size)
    assert drawn["area"].min() >= 0.2 and drawn["area"].max() <= 0.9
    close_to(np.log(drawn["aspect"]).mean(), 0.0, 2 * math.log(4 / 3) / math.sqrt(12), drawn["aspect"].size)


def test_all_orders_are_equally_likely():
    order = drawn_many()["order"].reshape(-1, 4)
    np.testing.assert_array_equal(np.sort(order), np.broadcast_to(np.arange(4), order.shape))
    counts = np.unique(order, axis=0, return_counts=True)[1]
    assert len(counts) == len(ORDERS) == 24
    assert np.abs(counts - len(order) / 24).max() < 5 * math.sqrt(len(order) / 24)


def test_what_happens_to_a_view_is_independent():
    """No two of its numbers come from the same uniform, nor those of its neighbour view."""
    drawn = drawn_many(dict(RECIPE, jitter_probability=1.0, blur=1.0, solarize=0.5, grey=0.5))
    numbers = [
        np.log(drawn[name]) if name == "aspect" else drawn[name] for name in sorted(set(drawn) - {"ratio", "order"})
    ]
    columns = np.concatenate([np.asarray(each, np.float32).reshape(MANY, -1) for each in numbers], axis=1)
    columns = np.concatenate([columns, drawn["order"][..., 0]], axis=1)
    correlation = np.corrcoef(columns.T) - np.eye(columns.shape[1])
    assert np.abs(correlation).max() < 5 / math.sqrt(MANY)


def test_recipes_of_a_group_keep_to_their_views():
    group = [dict(RECIPE, count=1, blur=1.0, solarize=0.0), dict(RECIPE, count=2, blur=0.0, solarize=1.0)]
    drawn = draws(group, 0, np.zeros(50, np.int64), np.arange(50), 0)
    np.testing.assert_array_equal(drawn["sigma"] > 0, np.tile([True, False, False], (50, 1)))
    np.testing.assert_array_equal(drawn["solarize"], np.tile([False, True, True], (50, 1)))


def torchvision_box(drawn, image, view, height, width):
    """RandomResizedCrop.get_params, image by image, with the drawn numbers in place of torch's."""
    low, high_ratio = drawn["ratio"][image, view].tolist()
    for area, aspect in zip(drawn["area"][image, view].tolist(), drawn["aspect"][image, view].tolist(), strict=True):
        w = round(math.sqrt(area * (height * width) * aspect))
        h = round(math.sqrt(area * (height * width) / aspect))
        if 0 < w <= width and 0 < h <= height:
            down, right = drawn["place"][image, view].tolist()
            return int(down * (height - h + 1)), int(right * (width - w + 1)), h, w
    h, w = height, width
    if width / height < low:
        h = round(width / low)
    elif width / height > high_ratio:
        w = round(height * high_ratio)
    return (height - h) // 2, (width - w) // 2, h, w


SIZES = [(32, 32), (375, 500), (500, 333), (96, 97), (1, 1), (3, 200), (400, 20), (480, 640)]


@pytest.mark.parametrize(("height", "width"), SIZES)
def test_boxes_are_torchvisions_and_inside(height, width):
    drawn = drawn_many(dict(RECIPE, scale=(0.08, 1.0)), count=200)
    ours = boxes(drawn, height, width)
    assert ours.dtype == np.int32 and ours.shape == (200, 2, 4)
    expected = [[torchvision_box(drawn, image, view, height, width) for view in range(2)] for image in range(200)]
    np.testing.assert_array_equal(ours, expected)
    top, left, high, wide = np.moveaxis(ours, -1, 0)
    assert (top >= 0).all() and (left >= 0).all() and (high > 0).all() and (wide > 0).all()
    assert (top + high <= height).all() and (left + wide <= width).all()


def test_boxes_of_images_of_different_size():
    drawn = drawn_many(count=8)
    heights, widths = np.array(SIZES).T
    together = boxes(drawn, heights, widths)
    for row, (height, width) in enumerate(SIZES):
        np.testing.assert_array_equal(together[row], boxes(drawn, height, width)[row])


def test_boxes_cover_the_area_they_should():
    box = boxes(drawn_many(dict(RECIPE, scale=(0.1, 0.5))), 400, 400)
    share = (box[..., 2] * box[..., 3] / 400**2).ravel()
    close_to(share.mean(), 0.3, 0.4 / math.sqrt(12), share.size)
    centre = box[..., 0] + box[..., 2] / 2
    close_to(centre.mean() / 400, 0.5, 0.2, centre.size)


WRONG = [
    (dict(flip=1.5), "flip is 1.5: a probability"),
    (dict(grey=-0.1), "a probability"),
    (dict(scale=(0.5, 0.2)), "scale"),
    (dict(scale=(0.0, 1.0)), "scale"),
    (dict(scale=(0.5, 1.2)), "scale"),
    (dict(ratio=(0.0, 1.0)), "ratio"),
    (dict(blur_sigma=(2.0, 0.1)), "blur_sigma"),
    (dict(jitter=(0.4, 0.4, 0.4, 0.6)), "hue"),
    (dict(jitter=(0.4, 0.4, 0.4)), "four strengths"),
    (dict(interpolation="nearest"), "interpolation"),
    (dict(count=0), "count"),
    (dict(size=22.5), "size"),
    (dict(blurr=0.1), "blurr"),
]


@pytest.mark.parametrize(("change", "message"), WRONG)
def test_check_crops_names_the_mistake(change, message):
    check_crops(dict(views=[RECIPE]))
    with pytest.raises(UserError, match=rf"data\.crops\.views\[0\].*{message}"):
        check_crops(dict(views=[dict(RECIPE, **change)]))


@pytest.mark.parametrize("change", [dict(size=24), dict(interpolation="bilinear"), dict(grey_first=True)])
def test_check_crops_refuses_a_mixed_group(change):
    with pytest.raises(UserError, match=f"data.crops.local mixes {next(iter(change))}"):
        check_crops(dict(views=[RECIPE], local=[RECIPE, dict(RECIPE, **change)]))
    check_crops(dict(views=[RECIPE], local=[dict(RECIPE, **change)]))


def test_check_crops_refuses_an_empty_group():
    with pytest.raises(UserError, match=r"data\.crops\.local has no recipe"):
        check_crops(dict(views=[RECIPE], local=[]))


def test_config_dicts_are_recipes_too():
    config = ConfigDict(dict(views=[ConfigDict(RECIPE)]))
    check_crops(config)
    theirs = draws(config.views, 0, np.array([0]), np.array([1]), 0)
    ours = draws([RECIPE], 0, np.array([0]), np.array([1]), 0)
    for name, array in ours.items():
        np.testing.assert_array_equal(theirs[name], array)


NAMED = runpy.run_path(str(Path(__file__).parents[2] / "configs" / "crops.py"))
TABLE = [  # methods spec, table 0.7: name, scale, interpolation, jitter, jitter p, grey, blur, solarize
    ("simclr", (0.08, 1.0), "bicubic", (0.8, 0.8, 0.8, 0.2), 0.8, 0.2, 0.5, 0.0),
    ("moco_v1", (0.2, 1.0), "bilinear", (0.4, 0.4, 0.4, 0.4), 1.0, 0.2, 0.0, 0.0),
    ("moco_v2", (0.2, 1.0), "bilinear", (0.4, 0.4, 0.4, 0.1), 0.8, 0.2, 0.5, 0.0),
    ("moco_v3_a", (0.08, 1.0), "bilinear", (0.4, 0.4, 0.2, 0.1), 0.8, 0.2, 1.0, 0.0),
    ("moco_v3_b", (0.08, 1.0), "bilinear", (0.4, 0.4, 0.2, 0.1), 0.8, 0.2, 0.1, 0.2),
    ("byol_a", (0.08, 1.0), "bicubic", (0.4, 0.4, 0.2, 0.1), 0.8, 0.2, 1.0, 0.0),
    ("byol_b", (0.08, 1.0), "bicubic", (0.4, 0.4, 0.2, 0.1), 0.8, 0.2, 0.1, 0.2),
    ("swav_global", (0.14, 1.0), "bilinear", (0.8, 0.8, 0.8, 0.2), 0.8, 0.2, 0.5, 0.0),
    ("swav_local", (0.05, 0.14), "bilinear", (0.8, 0.8, 0.8, 0.2), 0.8, 0.2, 0.5, 0.0),
    ("dino_global_1", (0.4, 1.0), "bicubic", (0.4, 0.4, 0.2, 0.1), 0.8, 0.2, 1.0, 0.0),
    ("dino_global_2", (0.4, 1.0), "bicubic", (0.4, 0.4, 0.2, 0.1), 0.8, 0.2, 0.1, 0.2),
    ("dino_local", (0.05, 0.4), "bicubic", (0.4, 0.4, 0.2, 0.1), 0.8, 0.2, 0.5, 0.0),
    ("dinov2_global_1", (0.32, 1.0), "bicubic", (0.4, 0.4, 0.2, 0.1), 0.8, 0.2, 0.0, 0.0),
    ("dinov2_global_2", (0.32, 1.0), "bicubic", (0.4, 0.4, 0.2, 0.1), 0.8, 0.2, 0.9, 0.2),
    ("dinov2_local", (0.05, 0.32), "bicubic", (0.4, 0.4, 0.2, 0.1), 0.8, 0.2, 0.5, 0.0),
]


@pytest.mark.parametrize("row", TABLE, ids=[row[0] for row in TABLE])
def test_named_recipes_are_those_of_the_table(row):
    name, *numbers = row
    recipe = NAMED[name]()
    keys = ("scale", "interpolation", "jitter", "jitter_probability", "grey", "blur", "solarize")
    assert [recipe[key] for key in keys] == numbers
    assert recipe["flip"] == 0.5 and recipe["grey_first"] == (name == "moco_v1")


def test_every_named_recipe_can_be_made():
    for name, make in NAMED.items():
        if inspect.isfunction(make) and name != "coloured":  # which wants a crop to colour
            assert make(size=48)["size"] == 48
            check_crops({"views": [make()]})
