"""Each operation on the device against a plain NumPy, colorsys or PIL version of the definition, image by image."""

import colorsys
import itertools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from ml_collections import ConfigDict
from PIL import Image

from jax_ssl import sharding
from jax_ssl.views import device as on_device
from tests.pictures import RECIPE

crop = jax.jit(on_device.crop, static_argnums=(3, 4))
jitter, blur = jax.jit(on_device.jitter), jax.jit(on_device.blur)
ORDERS = np.array(list(itertools.permutations(range(4))), np.int32)


def some_images(count, height, width=None, seed=0):
    """Smooth pictures with noise on them, in uint8: gradients show a wrong place, noise a wrong filter."""
    random = np.random.RandomState(seed)
    coarse = random.randint(0, 256, (count, 5, 5, 3)).astype(np.uint8)
    size = (width or height, height)
    smooth = np.stack([np.asarray(Image.fromarray(image).resize(size, Image.BICUBIC)) for image in coarse])
    noise = random.randint(-25, 26, smooth.shape)
    return np.clip(smooth + noise, 0, 255).astype(np.uint8)


def some_factors(count, seed=0):
    """Jitter factors of SimCLR at full strength."""
    random = np.random.RandomState(seed)
    low, high = np.float32([0.2, 0.2, 0.2, -0.2]), np.float32([1.8, 1.8, 1.8, 0.2])
    return (low + (high - low) * random.rand(count, 4)).astype(np.float32)


def grey_of(image):
    return image @ np.array([0.299, 0.587, 0.114])


def reference_jitter(image, factors, order):
    """torchvision's adjust_brightness, _contrast, _saturation and _hue one after the other; image: float (h, w, 3)."""
    for operation in order:
        factor = float(factors[operation])
        if operation == 0:
            image = factor * image
        elif operation == 1:
            image = factor * image + (1 - factor) * grey_of(image).mean()
        elif operation == 2:
            image = factor * image + (1 - factor) * grey_of(image)[..., None]
        else:
            hsv = [colorsys.rgb_to_hsv(*pixel) for pixel in image.reshape(-1, 3).tolist()]
            image = np.array([colorsys.hsv_to_rgb((h + factor) % 1.0, s, v) for h, s, v in hsv]).reshape(image.shape)
        image = np.clip(image, 0, 1)
    return image


def float_resize(x, sides, interpolation):
    """PIL's on float channels, which it never rounds. x: float32 (h, w, 3); sides: (width, height)."""
    kernel = getattr(Image, interpolation.upper())
    return np.stack([Image.fromarray(x[..., channel]).resize(sides, kernel) for channel in range(3)], axis=-1)


@pytest.mark.parametrize("interpolation", ["bilinear", "bicubic"])
@pytest.mark.parametrize(("side", "size"), [(32, 32), (24, 64), (150, 40)])
def test_crop_is_pils_resize_of_the_cut(interpolation, side, size):
    images = some_images(6, side, side + 7)
    box = np.array([(3, 5, side - 9, side - 4), (0, 0, side, side + 7), (2, 1, 7, 15), (side - 5, side, 5, 7)])
    box = np.concatenate([box, box[1:3]]).astype(np.int32)
    flip = np.array([False, False, True, True, True, False])
    ours = np.asarray(crop(images, jnp.asarray(box), jnp.asarray(flip), size, interpolation))
    assert ours.dtype == np.float32
    np.testing.assert_allclose(ours * 255, np.round(ours * 255), atol=1e-4)
    for image, (top, left, height, width), flipped, view in zip(images, box, flip, ours, strict=True):
        cut = image[top : top + height, left : left + width].astype(np.float32)
        rows = np.clip(np.floor(float_resize(cut, (size, height), interpolation) + 0.5), 0, 255)
        resized = float_resize(rows, (size, size), interpolation)
        resized = resized[:, ::-1] if flipped else resized
        difference = np.abs(view * 255 - np.clip(resized, 0, 255))
        # Half a step: the rounding. A half between the passes may go either way.
        assert (difference > 0.501).mean() < 1e-3 and difference.max() < 1.7


def test_crop_of_the_whole_image_is_the_image():
    images = some_images(2, 32)
    box = jnp.tile(jnp.array([0, 0, 32, 32]), (2, 1))
    ours = crop(images, box, jnp.array([False, True]), 32, "bicubic")
    np.testing.assert_array_equal(np.round(ours[0] * 255), images[0])
    np.testing.assert_array_equal(np.round(ours[1] * 255), images[1, :, ::-1])


def test_crop_sees_nothing_beyond_its_box():
    """Pixels next to the box must not bleed in through the kernel's tails."""
    images = some_images(1, 40)
    spoiled = np.full_like(images, 255)
    spoiled[:, 10:25, 5:30] = images[:, 10:25, 5:30]
    box, flip = jnp.array([[10, 5, 15, 25]]), jnp.array([False])
    for size in (8, 60):
        clean, dirty = (crop(pixels, box, flip, size, "bicubic") for pixels in (images, spoiled))
        np.testing.assert_array_equal(clean, dirty)


def test_jitter_is_the_sequential_reference_in_every_order():
    images = some_images(24, 12) / np.float32(255)
    factors = some_factors(24)
    ours = jitter(images, factors, ORDERS)
    for image, factor, order, jittered in zip(images, factors, ORDERS, ours, strict=True):
        np.testing.assert_allclose(jittered, reference_jitter(image.astype(np.float64), factor, order), atol=2e-5)


@pytest.mark.parametrize("operation", range(4))
def test_each_jitter_operation_alone(operation):
    images = some_images(4, 12) / np.float32(255)
    factors = np.tile(np.float32([1, 1, 1, 0]), (4, 1))
    factors[:, operation] = some_factors(4)[:, operation]
    ours = jitter(images, factors, np.tile(np.arange(4, dtype=np.int32), (4, 1)))
    for image, factor, jittered in zip(images, factors, ours, strict=True):
        np.testing.assert_allclose(jittered, reference_jitter(image.astype(np.float64), factor, [operation]), atol=2e-5)


def test_identity_factors_change_nothing():
    images = some_images(24, 12) / np.float32(255)
    factors = np.tile(np.float32([1, 1, 1, 0]), (24, 1))
    np.testing.assert_allclose(jitter(images, factors, ORDERS), images, atol=1e-6)


def test_hue_of_grey_and_pure_colours():
    colours = np.float32([(0.5, 0.5, 0.5), (0, 0, 0), (1, 1, 1), (1, 0, 0), (0, 1, 0), (1, 1, 0)])
    third = on_device.shift_hue(colours[:, None, None], jnp.full(6, 1 / 3))[:, 0, 0]
    expected = [(0.5, 0.5, 0.5), (0, 0, 0), (1, 1, 1), (0, 1, 0), (0, 0, 1), (0, 1, 1)]
    np.testing.assert_allclose(third, expected, atol=1e-5)


def test_grey():
    images = some_images(2, 8) / np.float32(255)
    ours = on_device.grey(images, np.array([True, False]))
    np.testing.assert_allclose(ours[0], np.repeat(grey_of(images[0])[..., None], 3, axis=-1), atol=1e-6)
    np.testing.assert_array_equal(ours[1], images[1])


@pytest.mark.parametrize(("size", "radius"), [(32, 1), (96, 4), (224, 11)])
def test_blur_is_a_gaussian_with_the_edge_extended(size, radius):
    sigma = np.float32([0.1, 0.7, 2.0, 0.0])
    images = some_images(4, size) / np.float32(255)
    ours = np.asarray(blur(images, sigma))
    np.testing.assert_array_equal(ours[3], images[3])
    for image, deviation, blurred in zip(images[:3], sigma[:3], ours[:3], strict=True):
        taps = np.exp(-(np.arange(-radius, radius + 1) ** 2) / (2 * float(deviation) ** 2))
        padded = np.pad(image.astype(np.float64), ((radius, radius), (radius, radius), (0, 0)), mode="edge")
        rows = sum(tap * padded[k : k + size] for k, tap in enumerate(taps / taps.sum()))
        both = sum(tap * rows[:, k : k + size] for k, tap in enumerate(taps / taps.sum()))
        np.testing.assert_allclose(blurred, both, atol=1e-5)


def test_solarize_inverts_as_pil_does():
    levels = np.tile(np.arange(256, dtype=np.uint8)[None, :, None, None], (2, 1, 1, 3))
    ours = on_device.solarize(levels / np.float32(255), np.array([True, False]))
    expected = np.where(levels[0] < 128, levels[0], 255 - levels[0])
    np.testing.assert_allclose(ours[0] * 255, expected, atol=1e-4)
    np.testing.assert_allclose(ours[1] * 255, levels[1], atol=1e-4)


def test_normalise():
    images = some_images(2, 4) / np.float32(255)
    mean, std = (0.4, 0.5, 0.6), (0.2, 0.25, 0.3)
    np.testing.assert_allclose(on_device.normalise(images, mean, std), (images - mean) / std, atol=1e-5)


def raw_batch(batch, views, size, seed=0):
    """A device-mode batch and the images it points to; every operation is on somewhere."""
    random = np.random.RandomState(seed)
    resident = some_images(20, 32, 40, seed)
    box = np.stack([random.randint(0, 8, (batch, views)) for _ in range(2)], axis=-1)
    box = np.concatenate([box, random.randint(10, 24, (batch, views, 2))], axis=-1)
    drawn = dict(
        box=box.astype(np.int32),
        flip=random.rand(batch, views) < 0.5,
        jitter=some_factors(batch * views, seed).reshape(batch, views, 4),
        order=ORDERS[random.randint(0, 24, (batch, views))],
        grey=random.rand(batch, views) < 0.3,
        sigma=np.where(random.rand(batch, views) < 0.5, random.rand(batch, views), 0).astype(np.float32),
        solarize=random.rand(batch, views) < 0.5,
    )
    return dict(index=random.randint(0, 20, batch).astype(np.int32), views=drawn), resident


def one_view(recipe, raw, resident, image, view, mean, std):
    """The pipeline by hand: the public operations one after the other, on one view."""
    drawn = {name: jnp.asarray(array[image, view])[None] for name, array in raw["views"].items()}
    source = resident[raw["index"][image]][None]
    x = crop(source, drawn["box"], drawn["flip"], recipe["size"], recipe["interpolation"])
    x = on_device.grey(x, drawn["grey"]) if recipe["grey_first"] else x
    x = jitter(x, drawn["jitter"], drawn["order"])
    x = x if recipe["grey_first"] else on_device.grey(x, drawn["grey"])
    x = on_device.solarize(blur(x, drawn["sigma"]), drawn["solarize"])
    return on_device.normalise(x, mean, std)[0]


@pytest.mark.parametrize("grey_first", [False, True])
def test_prepare_makes_each_view_in_the_fixed_order(grey_first):
    recipe = dict(RECIPE, grey_first=grey_first)
    raw, resident = raw_batch(4, 2, 32)
    mean, std = (0.4, 0.5, 0.6), (0.2, 0.25, 0.3)
    views = jax.jit(on_device.prepare(dict(views=[recipe]), mean, std))(raw, resident)["views"]
    assert views.shape == (4, 2, 32, 32, 3) and views.dtype == jnp.float32
    for image, view in itertools.product(range(4), range(2)):
        expected = one_view(recipe, raw, resident, image, view, mean, std)
        np.testing.assert_allclose(views[image, view], expected, atol=1e-3)


def test_prepare_starts_where_the_host_stopped():
    """uint8 images are recoloured, float images are passed on, and both agree with the device doing everything."""
    prepared = jax.jit(on_device.prepare(dict(views=[RECIPE]), (0.5,) * 3, (0.25,) * 3))
    raw, resident = raw_batch(4, 2, 32)
    device = prepared(raw, resident)["views"]
    flat = {name: array.reshape(8, *array.shape[2:]) for name, array in raw["views"].items()}
    cut = crop(resident[np.repeat(raw["index"], 2)], flat["box"], flat["flip"], 32, "bicubic")
    image = np.round(np.asarray(cut) * 255).astype(np.uint8).reshape(4, 2, 32, 32, 3)
    kept = {name: raw["views"][name] for name in ("jitter", "order", "grey", "sigma", "solarize")}
    hybrid = prepared(dict(views=dict(kept, image=image)))["views"]
    np.testing.assert_allclose(hybrid, device, atol=1e-4)
    host = prepared(dict(views=dict(image=hybrid)))["views"]
    np.testing.assert_array_equal(host, hybrid)


def test_prepare_leaves_out_what_never_happens():
    """A probability of zero in every recipe takes the operation out of the program, whatever the factors say."""
    raw, resident = raw_batch(4, 2, 32)
    nothing = dict(RECIPE, jitter_probability=0.0, grey=0.0, blur=0.0, solarize=0.0)
    views = jax.jit(on_device.prepare(dict(views=[nothing]), (0.0,) * 3, (1.0,) * 3))(raw, resident)["views"]
    flat = {name: array.reshape(8, *array.shape[2:]) for name, array in raw["views"].items()}
    cut = crop(resident[np.repeat(raw["index"], 2)], flat["box"], flat["flip"], 32, "bicubic")
    np.testing.assert_allclose(views.reshape(cut.shape), cut, atol=1e-6)
    sizes = []
    for change in ({}, dict(jitter_probability=0.8), dict(grey=0.2), dict(blur=0.5), dict(solarize=0.2)):
        once = dict(nothing, count=1)
        prepared = on_device.prepare(dict(views=[once, dict(once, **change)]), (0.0,) * 3, (1.0,) * 3)
        sizes.append(str(jax.make_jaxpr(prepared)(raw, resident)).count("\n"))
    assert min(sizes[1:]) > sizes[0]


def test_prepare_makes_every_group_and_takes_config_dicts():
    raw, resident = raw_batch(4, 2, 32)
    local, _ = raw_batch(4, 3, 16, seed=1)
    raw["local"] = local["views"]
    crops = dict(views=[RECIPE], local=[dict(RECIPE, size=16, count=3)])
    config = ConfigDict(dict(views=[ConfigDict(RECIPE)], local=[ConfigDict(dict(RECIPE, size=16, count=3))]))
    plain, configured = (
        jax.jit(on_device.prepare(given, (0.5,) * 3, (0.25,) * 3))(raw, resident) for given in (crops, config)
    )
    assert plain["local"].shape == (4, 3, 16, 16, 3) and set(plain) == {"views", "local"}
    for name, array in plain.items():
        np.testing.assert_array_equal(array, configured[name])


@pytest.mark.parametrize("fsdp", [1, 2])
def test_prepare_is_the_same_on_any_mesh(fsdp):
    raw, resident = raw_batch(16, 2, 32)
    raw["local"] = raw_batch(16, 3, 16, seed=1)[0]["views"]
    crops = dict(views=[RECIPE], local=[dict(RECIPE, size=16, count=3)])
    prepared = jax.jit(on_device.prepare(crops, (0.5,) * 3, (0.25,) * 3))
    alone = prepared(raw, resident)
    mesh = sharding.make_mesh(fsdp)
    placed = jax.device_put(raw, sharding.batched(mesh)), jax.device_put(resident, sharding.replicated(mesh))
    with jax.set_mesh(mesh):
        together = prepared(*placed)
    for name, views in together.items():
        assert views.sharding.is_equivalent_to(sharding.batched(mesh), views.ndim)
        np.testing.assert_allclose(views, alone[name], atol=1e-4)
