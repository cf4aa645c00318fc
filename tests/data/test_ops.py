"""TensorFlow's operations and the device's are twins: equal pixels, within 1/255, for equal drawn factors."""

import jax
import numpy as np
import pytest
import tensorflow as tf
from PIL import Image

from jax_ssl import augment
from jax_ssl.data import ops
from jax_ssl.data.draws import boxes, draws

STEP = 1 / 255
MEAN, STD = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)
RECIPE = dict(
    count=2,
    size=32,
    scale=(0.08, 1.0),
    ratio=(3 / 4, 4 / 3),
    interpolation="bicubic",
    flip=0.5,
    jitter=(0.8, 0.8, 0.8, 0.2),
    jitter_probability=0.8,
    grey=0.2,
    grey_first=False,
    blur=0.5,
    blur_sigma=(0.1, 2.0),
    solarize=0.3,
)
FACTORS = ("jitter", "order", "grey", "sigma", "solarize")


def some_image(height, width, seed=0):
    """A smooth uint8 picture with noise on it."""
    random = np.random.RandomState(seed)
    coarse = Image.fromarray(random.randint(0, 256, (5, 5, 3)).astype(np.uint8))
    noise = random.randint(-25, 26, (height, width, 3))
    return np.clip(np.asarray(coarse.resize((width, height), Image.BICUBIC)) + noise, 0, 255).astype(np.uint8)


def drawn_for(group, count, seed=0):
    return draws(group, seed, np.zeros(count, np.int64), np.arange(count), 0)


def of_image(drawn, number):
    """The draws of one image, as the host's pipeline sees them."""
    return {name: tf.constant(array[number]) for name, array in drawn.items()}


SIZES = [(32, 32), (375, 500), (500, 333), (96, 97), (1, 1), (3, 200), (400, 20), (480, 640), (2848, 4288)]


def test_boxes_are_numpys():
    drawn = drawn_for([RECIPE, dict(RECIPE, scale=(0.9, 1.0), ratio=(0.5, 0.6))], 40)
    compiled = tf.function(ops.boxes, reduce_retracing=True)
    for height, width in SIZES:
        expected = boxes(drawn, height, width)
        for number in range(40):
            ours = compiled(of_image(drawn, number), tf.constant(height), tf.constant(width))
            np.testing.assert_array_equal(ours, expected[number])


@pytest.mark.parametrize("interpolation", ["bilinear", "bicubic"])
@pytest.mark.parametrize(("height", "width", "size"), [(32, 32, 32), (40, 30, 96), (200, 300, 64), (230, 224, 224)])
def test_crop(interpolation, height, width, size):
    image = some_image(height, width)
    drawn = drawn_for([dict(RECIPE, count=6)], 1)
    box, flip = boxes(drawn, height, width)[0], drawn["flip"][0]
    assert flip.any() and not flip.all()
    device = jax.jit(augment.crop, static_argnums=(3, 4))(np.stack([image] * 6), box, flip, size, interpolation)
    host = np.stack([ops.crop(tf.constant(image), *pair, size, interpolation) for pair in zip(box, flip, strict=True)])
    assert host.dtype == np.uint8
    difference = np.abs(host / 255 - np.asarray(device))
    assert difference.max() < 1.01 * STEP  # a tie may be rounded either way
    assert (difference > 0.01 * STEP).mean() < 1e-2  # ties are common where a box is enlarged exactly twofold


@pytest.mark.parametrize("size", [32, 224])
def test_jitter_in_its_random_order(size):
    count = 24 if size == 32 else 4
    drawn = drawn_for([dict(RECIPE, count=1, jitter_probability=1.0)], count, seed=1)
    factors, order = drawn["jitter"][:, 0], drawn["order"][:, 0]
    images = np.stack([some_image(size, size, seed) for seed in range(count)]) / np.float32(255)
    device = jax.jit(augment.jitter)(images, factors, order)
    compiled = tf.function(ops.jitter)
    host = np.stack([compiled(*map(tf.constant, each)) for each in zip(images, factors, order, strict=True)])
    assert len({tuple(row) for row in order}) > min(3, count - 2)
    np.testing.assert_allclose(host, device, atol=0.2 * STEP)
    assert np.abs(host - images).mean() > 10 * STEP


@pytest.mark.parametrize("operation", range(4))
def test_each_jitter_operation(operation):
    factors = np.tile(np.float32([1, 1, 1, 0]), (4, 1))
    factors[:, operation] = (0.3, 0.8, 1.3, 1.7) if operation < 3 else (-0.5, -0.1, 0.2, 0.5)
    order = np.tile(np.arange(4, dtype=np.int32), (4, 1))
    images = np.stack([some_image(32, 32, seed) for seed in range(4)]) / np.float32(255)
    device = jax.jit(augment.jitter)(images, factors, order)
    for image, factor, turns, expected in zip(images, factors, order, device, strict=True):
        host = ops.jitter(tf.constant(image), tf.constant(factor), tf.constant(turns))
        np.testing.assert_allclose(host, expected, atol=0.1 * STEP)


@pytest.mark.parametrize("size", [32, 96, 224])
def test_blur(size):
    image = some_image(size, size) / np.float32(255)
    for sigma in (0.1, 0.5, 2.0):
        device = jax.jit(augment.blur)(image[None], np.float32([sigma]))[0]
        np.testing.assert_allclose(ops.blur(tf.constant(image), sigma), device, atol=0.1 * STEP)


def test_grey_solarize_and_normalise():
    image = some_image(32, 32) / np.float32(255)
    on = np.array([True])
    np.testing.assert_allclose(ops.grey(tf.constant(image)), augment.grey(image[None], on)[0], atol=1e-6)
    np.testing.assert_allclose(ops.solarize(tf.constant(image)), augment.solarize(image[None], on)[0], atol=1e-6)
    np.testing.assert_allclose(ops.normalise(image, MEAN, STD), augment.normalise(image, MEAN, STD), atol=1e-5)


GROUPS = {
    "simclr": [RECIPE],
    "moco_v1": [dict(RECIPE, interpolation="bilinear", grey=0.5, grey_first=True, blur=0.0, solarize=0.0)],
    "byol": [dict(RECIPE, count=1, blur=1.0, solarize=0.0), dict(RECIPE, count=1, blur=0.1, solarize=0.9)],
    "mae": [dict(RECIPE, count=1, jitter=(0.0,) * 4, jitter_probability=0.0, grey=0.0, blur=0.0, solarize=0.0)],
    "beit": [dict(RECIPE, jitter=(0.4, 0.4, 0.4, 0.0), jitter_probability=0.5, blur=0.0)],
    "large": [dict(RECIPE, size=224)],
}


@pytest.mark.parametrize("name", GROUPS)
def test_host_hybrid_and_device_make_the_same_views(name):
    group, count = GROUPS[name], 6
    drawn = drawn_for(group, count, seed=2)
    images = np.stack([some_image(60, 80, seed) for seed in range(count)])
    prepared = jax.jit(augment.prepare({"views": group}, MEAN, STD))
    kept = {factor: drawn[factor] for factor in FACTORS}

    def on_host(augmentation):
        compiled = tf.function(lambda image, own: ops.host_views(image, own, group, augmentation, MEAN, STD))
        return np.stack([compiled(tf.constant(images[number]), of_image(drawn, number)) for number in range(count)])

    shipped, finished = on_host("hybrid"), on_host("host")
    assert shipped.dtype == np.uint8 and finished.dtype == np.float32
    host = prepared({"views": {"image": finished}})["views"]
    hybrid = prepared({"views": dict(kept, image=shipped)})["views"]
    placed = dict(kept, box=boxes(drawn, 60, 80), flip=drawn["flip"])
    device = prepared({"index": np.arange(count), "views": placed}, images)["views"]
    assert host.shape == hybrid.shape == device.shape

    pixels = STEP / min(STD)
    np.testing.assert_array_equal(host, finished)
    np.testing.assert_allclose(host, hybrid, atol=0.2 * pixels)
    # The crop's ties may be rounded either way by the two; jitter can then amplify the one step of a rare pixel.
    difference = np.abs(np.asarray(device) - np.asarray(hybrid))
    assert (difference > 0.2 * pixels).mean() < 2e-3 and difference.max() < 8 * pixels


def test_images_of_unknown_size_run_in_tf_data():
    """As the pipeline has it: shapes known to nobody, one graph for all images."""
    sizes = [(33, 50), (300, 200), (64, 64)]
    drawn = drawn_for([RECIPE], len(sizes))

    def examples():
        for number, (height, width) in enumerate(sizes):
            yield some_image(height, width, number), {name: array[number] for name, array in drawn.items()}

    own = {name: tf.TensorSpec(array.shape[1:], array.dtype) for name, array in drawn.items()}
    signature = (tf.TensorSpec((None, None, 3), tf.uint8), own)
    data = tf.data.Dataset.from_generator(examples, output_signature=signature)
    data = data.map(lambda image, own: ops.host_views(image, own, [RECIPE], "host", MEAN, STD))
    assert data.element_spec == tf.TensorSpec((2, 32, 32, 3), tf.float32)
    views = np.stack(list(data.as_numpy_iterator()))
    for number, (image, _) in enumerate(examples()):
        expected = ops.host_views(tf.constant(image), of_image(drawn, number), [RECIPE], "host", MEAN, STD)
        np.testing.assert_allclose(views[number], expected, atol=1e-4)
