"""The view recipes on the host, in TensorFlow: the twins of `augment.py`, to within 1/255 for the same drawn factors.

Written the plain way, one view after the other and one operation after the other, so that the two check each other.
Images are float32 (h, w, 3) in [0, 1] unless said otherwise; factors are scalars of one view (`data/draws.py`).
"""

import numpy as np
import tensorflow as tf

LUMA = (0.299, 0.587, 0.114)
METHODS = {"bilinear": tf.image.ResizeMethod.BILINEAR, "bicubic": tf.image.ResizeMethod.BICUBIC}


def boxes(drawn, height, width):
    """Which part of an image its views show: int32 (V, 4). The rule and the arithmetic of `draws.boxes`, in float64.

    drawn: the draws of one image, (V, ...). height, width: int32 scalars, known only once the image is decoded.
    """
    height, width = tf.cast(height, tf.float64), tf.cast(width, tf.float64)
    area, aspect, place, ratio = (tf.cast(drawn[name], tf.float64) for name in ("area", "aspect", "place", "ratio"))
    area = area * (height * width)
    wide, high = tf.round(tf.sqrt(area * aspect)), tf.round(tf.sqrt(area / aspect))
    fits = (wide > 0) & (wide <= width) & (high > 0) & (high <= height)  # (V, 10)
    first = tf.argmax(tf.cast(fits, tf.int32), axis=-1)
    wide, high = (tf.gather(side, first, batch_dims=1) for side in (wide, high))  # (V,)
    top, left = tf.floor(place[:, 0] * (height - high + 1)), tf.floor(place[:, 1] * (width - wide + 1))

    central_high = tf.minimum(height, tf.maximum(tf.ones_like(high), tf.round(width / ratio[:, 0])))
    central_wide = tf.minimum(width, tf.maximum(tf.ones_like(wide), tf.round(height * ratio[:, 1])))
    central = (height - central_high) // 2, (width - central_wide) // 2, central_high, central_wide
    tried = tf.stack((top, left, high, wide), axis=-1)
    chosen = tf.where(tf.reduce_any(fits, axis=-1)[:, None], tried, tf.stack(central, axis=-1))
    return tf.cast(chosen, tf.int32)


def crop(image, box, flip, size: int, interpolation: str):
    """Cut a box out of a uint8 (H, W, 3) image, resize it with antialiasing, maybe mirror it: uint8 (size, size, 3)."""
    view = tf.slice(image, (box[0], box[1], 0), (box[2], box[3], 3))
    view = tf.image.resize(view, (size, size), METHODS[interpolation], antialias=True)
    view = tf.round(tf.clip_by_value(tf.cast(view, tf.float32), 0.0, 255.0))
    view = tf.ensure_shape(tf.cast(view, tf.uint8), (size, size, 3))
    return tf.cond(flip, lambda: tf.reverse(view, axis=[1]), lambda: view)


def luma(x):
    """The grey of each pixel: (h, w, 1)."""
    return tf.reduce_sum(x * LUMA, axis=-1, keepdims=True)


def blend(x, factor, reference):
    """Away from the reference (factor > 1) or towards it (factor < 1), clipped."""
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
    """Gaussian blur of a square image by sigma > 0 pixels: a banded matrix along the rows, then along the columns."""
    size = x.shape[0]
    radius = max(1, (size // 10) // 2)  # SimCLR: the kernel spans a tenth of the image
    offsets = np.arange(-radius, radius + 1)
    taps = tf.exp(-0.5 * tf.square(offsets.astype(np.float32) / sigma))
    taps = taps / tf.reduce_sum(taps)
    # Which tap reads which pixel; beyond the edge the edge goes on.
    places = np.eye(size, dtype=np.float32)[np.clip(np.arange(size) + offsets[:, None], 0, size - 1)]  # (2r+1, o, i)
    band = tf.tensordot(taps, places, axes=1)
    for _ in range(2):  # blur the first axis, then swap the two: twice, and both are blurred and back in place
        x = tf.reshape(tf.matmul(band, tf.reshape(x, (size, size * 3))), (size, size, 3))
        x = tf.transpose(x, (1, 0, 2))
    return x


def solarize(x):
    """Invert the bright half of the pixels: PIL's threshold 128 of 255, BYOL's 0.5."""
    return tf.where(x >= 0.5, 1.0 - x, x)


def normalise(x, mean, std):
    """Subtract the mean and divide by the deviation of each channel."""
    return (x - tf.constant(mean, tf.float32)) / tf.constant(std, tf.float32)


def recolour(x, drawn, group, mean, std):
    """Everything after crop and flip, for one view; what no recipe of the group ever does is left out of the graph."""
    if any(recipe["grey"] > 0 for recipe in group) and group[0]["grey_first"]:
        x = when(drawn["grey"], grey, x)
    if any(recipe["jitter_probability"] > 0 and max(recipe["jitter"]) > 0 for recipe in group):
        jittered = tf.reduce_any(drawn["jitter"] != (1.0, 1.0, 1.0, 0.0))
        x = when(jittered, lambda x: jitter(x, drawn["jitter"], drawn["order"]), x)
    if any(recipe["grey"] > 0 for recipe in group) and not group[0]["grey_first"]:
        x = when(drawn["grey"], grey, x)
    if any(recipe["blur"] > 0 for recipe in group):
        x = when(drawn["sigma"] > 0, lambda x: blur(x, drawn["sigma"]), x)
    if any(recipe["solarize"] > 0 for recipe in group):
        x = when(drawn["solarize"], solarize, x)
    return normalise(x, mean, std)


def when(on, operation, x):
    """The operation's result where `on`, else x; only the branch taken is computed."""
    return tf.cond(on, lambda: operation(x), lambda: x)


def host_views(image, drawn, recipe_group, augment: str, mean, std):
    """The views of one decoded image. image: uint8 (H, W, 3) of any size; drawn: its draws (V, ...).

    augment "hybrid": crop and flip only, uint8 (V, h, w, 3), the device does the rest. "host": everything, float32.
    """
    size, interpolation = recipe_group[0]["size"], recipe_group[0]["interpolation"]
    height, width = tf.unstack(tf.shape(image)[:2])
    box = boxes(drawn, height, width)
    views = []
    for number in range(sum(recipe["count"] for recipe in recipe_group)):
        view = crop(image, box[number], drawn["flip"][number], size, interpolation)
        if augment == "host":
            own = {name: drawn[name][number] for name in ("jitter", "order", "grey", "sigma", "solarize")}
            view = recolour(tf.cast(view, tf.float32) / 255.0, own, recipe_group, mean, std)
        views.append(view)
    return tf.stack(views)
