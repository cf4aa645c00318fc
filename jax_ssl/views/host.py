"""All operations after crop and flip, on the host, in TensorFlow: the same pixels as `device.py`, to within 1/255.

One view and one operation at a time, without tricks, so that each file is a check of the other. Images are float32
(h, w, 3) in [0, 1] unless said otherwise; factors are scalars of one view (`draws.py`).
"""

import numpy as np
import tensorflow as tf

LUMA = (0.299, 0.587, 0.114)


def luma(x):
    """The luminance of each pixel: (h, w, 1)."""
    return tf.reduce_sum(x * LUMA, axis=-1, keepdims=True)


def blend(x, factor, reference):
    """x moved away from a reference image (factor > 1) or towards it (factor < 1), clipped to [0, 1]."""
    return tf.clip_by_value(factor * x + (1.0 - factor) * reference, 0.0, 1.0)


def jitter(x, factors, order):
    """Brightness, contrast, saturation and hue by `factors` (4,), in the drawn `order` (4,), as torchvision does."""
    for turn in range(4):
        x = tf.switch_case(
            order[turn],
            [
                lambda x=x: blend(x, factors[0], 0.0),
                lambda x=x: blend(x, factors[1], tf.reduce_mean(luma(x))),
                lambda x=x: blend(x, factors[2], luma(x)),
                lambda x=x: tf.clip_by_value(tf.image.adjust_hue(x, factors[3]), 0.0, 1.0),
            ],
        )
    return x


def grey(x):
    """The image without colour, still with three channels."""
    return tf.repeat(luma(x), 3, axis=-1)


def blur(x, sigma):
    """Gaussian blur of a square image, sigma > 0 in pixels: a matmul with a banded matrix along each axis."""
    size = x.shape[0]
    radius = max(1, (size // 10) // 2)  # SimCLR: the kernel spans a tenth of the image
    offsets = np.arange(-radius, radius + 1)
    taps = tf.exp(-0.5 * tf.square(offsets.astype(np.float32) / sigma))
    taps = taps / tf.reduce_sum(taps)
    # Which tap reads which pixel; beyond the edge it reads the edge.
    places = np.eye(size, dtype=np.float32)[np.clip(np.arange(size) + offsets[:, None], 0, size - 1)]  # (2r+1, o, i)
    band = tf.tensordot(taps, places, axes=1)
    for _ in range(2):  # blur the first axis, then swap the axes; after two rounds both are blurred and in place
        x = tf.reshape(tf.matmul(band, tf.reshape(x, (size, size * 3))), (size, size, 3))
        x = tf.transpose(x, (1, 0, 2))
    return x


def solarize(x):
    """Inverts all values of at least 0.5: PIL's threshold 128 of 255, BYOL's 0.5."""
    return tf.where(x >= 0.5, 1.0 - x, x)


def normalise(x, mean, std):
    """Subtracts the mean and divides by the standard deviation of each channel."""
    return (x - tf.constant(mean, tf.float32)) / tf.constant(std, tf.float32)


def recolour(x, drawn, group, mean, std):
    """All operations after crop and flip, for one view; those that no recipe of the group uses are not in the graph."""
    if any(recipe["grey"] > 0 for recipe in group) and group[0]["grey_first"]:
        x = apply_if(drawn["grey"], grey, x)
    if any(recipe["jitter_probability"] > 0 and max(recipe["jitter"]) > 0 for recipe in group):
        jittered = tf.reduce_any(drawn["jitter"] != (1.0, 1.0, 1.0, 0.0))
        x = apply_if(jittered, lambda x: jitter(x, drawn["jitter"], drawn["order"]), x)
    if any(recipe["grey"] > 0 for recipe in group) and not group[0]["grey_first"]:
        x = apply_if(drawn["grey"], grey, x)
    if any(recipe["blur"] > 0 for recipe in group):
        x = apply_if(drawn["sigma"] > 0, lambda x: blur(x, drawn["sigma"]), x)
    if any(recipe["solarize"] > 0 for recipe in group):
        x = apply_if(drawn["solarize"], solarize, x)
    return normalise(x, mean, std)


def apply_if(on, operation, x):
    """operation(x) if `on`, a scalar bool, else x; only the branch taken is computed."""
    return tf.cond(on, lambda: operation(x), lambda: x)


def finish_views(views, drawn, recipe_group, mean, std):
    """All operations after crop and flip, for all views of an image: uint8 (V, h, w, 3) -> float32, normalised.

    drawn: the draws of this image, arrays (V, ...).
    """
    made = []
    for number in range(views.shape[0]):
        own = {name: drawn[name][number] for name in ("jitter", "order", "grey", "sigma", "solarize")}
        made.append(recolour(tf.cast(views[number], tf.float32) / 255.0, own, recipe_group, mean, std))
    return tf.stack(made)
