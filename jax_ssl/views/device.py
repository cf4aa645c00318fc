"""The view recipes on the device: crop as two matmuls, flip, jitter, grey, blur, solarize, normalise.

Nothing here is random: every factor was drawn on the host (`data/draws.py`) and arrives as an array. Every function
works on a flat leading axis M = (images views) of float32 images in [0, 1] and is the twin of one in `host.py`
(crop and flip: `data/cut.py`), to within 1/255. A TPU's default would round the weights of a matmul to bfloat16, which
is visible, up to two 1/255. So crops, which are rounded in between, are made at HIGHEST precision, and blur at HIGH,
half its cost: three passes of bfloat16 on a TPU (off by 0.004 of 1/255 at most), TF32 on a GPU (0.2).
"""

import jax
import jax.numpy as jnp
from jax.lax import Precision

LUMA = (0.299, 0.587, 0.114)  # ITU-R 601, as PIL's convert("L") and torchvision's rgb_to_grayscale
HUE = 3  # the place of hue in the four jitter factors


def triangle(distance):
    """The bilinear kernel."""
    return jnp.maximum(0.0, 1.0 - jnp.abs(distance))


def keys_cubic(distance):
    """The bicubic kernel with a = -0.5, as PIL and TensorFlow have it (PyTorch tensors: -0.75). Keys 1981, Eq. 15."""
    d = jnp.abs(distance)
    near = (1.5 * d - 2.5) * d * d + 1.0
    far = ((-0.5 * d + 2.5) * d - 4.0) * d + 2.0
    return jnp.where(d < 1.0, near, jnp.where(d < 2.0, far, 0.0))


KERNELS = {"bilinear": triangle, "bicubic": keys_cubic}


def resize_weights(start, length, flip, side: int, size: int, kernel):
    """How much each input pixel counts for each output pixel: (M, size, side), rows sum to one.

    start, length: int (M,), the part of the axis that is shown; flip: bool (M,). The kernel widens when the part is
    larger than the output (antialiasing) and sees no pixel outside the part, as if the crop had been cut out first.
    """
    start, length = start[:, None, None].astype(jnp.float32), length[:, None, None].astype(jnp.float32)
    output = jnp.arange(size, dtype=jnp.float32)[None, :, None]
    output = jnp.where(flip[:, None, None], size - 1 - output, output)
    pixel = jnp.arange(side, dtype=jnp.float32)[None, None, :] - start
    step = length / size
    weights = kernel((pixel + 0.5 - (output + 0.5) * step) / jnp.maximum(step, 1.0))
    weights = jnp.where((pixel >= 0) & (pixel < length), weights, 0.0)
    return weights / weights.sum(axis=-1, keepdims=True)


def crop(images, box, flip, size: int, interpolation: str):
    """Cut boxes out, resize them to (size, size) and mirror some: float32 (M, size, size, 3) in [0, 1].

    images: (M, H, W, 3), 0 to 255; box: int (M, 4) top, left, height, width; flip: bool (M,). Equals Pillow's resize of
    the cut (`data/cut.py`), along rows first and in whole 1/255, but for halves.
    """
    top, left, height, width = jnp.moveaxis(box, -1, 0)
    kernel = KERNELS[interpolation]
    rows = resize_weights(top, height, jnp.zeros_like(flip), images.shape[1], size, kernel)
    columns = resize_weights(left, width, flip, images.shape[2], size, kernel)
    whole = lambda pixels: jnp.clip(jnp.floor(pixels + 0.5), 0.0, 255.0)  # Pillow has bytes between the passes, too
    views = images.astype(jnp.float32)
    views = whole(jnp.einsum("mpw,mhwc->mhpc", columns, views, precision=Precision.HIGHEST))
    views = whole(jnp.einsum("moh,mhpc->mopc", rows, views, precision=Precision.HIGHEST))
    return views / 255.0


def luma(x):
    """The grey of each pixel: (M, h, w, 3) -> (M, h, w, 1). Written out: a matmul of width 3 would lose precision."""
    return LUMA[0] * x[..., :1] + LUMA[1] * x[..., 1:2] + LUMA[2] * x[..., 2:]


def blend(x, factor, operation):
    """One of the three jitter operations that move x from or towards a reference. factor: (M,), operation: int (M,).

    0 brightness: towards black; 1 contrast: towards the image's mean grey; 2 saturation: towards the pixel's grey.
    """
    factor, operation = factor[:, None, None, None], operation[:, None, None, None]
    pixel_grey = luma(x)
    mean_grey = pixel_grey.mean(axis=(1, 2), keepdims=True)
    reference = jnp.where(operation == 2, pixel_grey, jnp.where(operation == 1, mean_grey, 0.0))
    return jnp.clip(factor * x + (1.0 - factor) * reference, 0.0, 1.0)


def shift_hue(x, shift):
    """Turn the colour wheel by `shift` (M,), in turns: RGB to HSV, add, and back, without a branch."""
    red, green, blue = x[..., 0], x[..., 1], x[..., 2]
    value = jnp.maximum(jnp.maximum(red, green), blue)
    chroma = value - jnp.minimum(jnp.minimum(red, green), blue)
    safe = jnp.where(chroma > 0.0, chroma, 1.0)
    sixths = jnp.where(
        value == red,
        (green - blue) / safe,
        jnp.where(value == green, 2.0 + (blue - red) / safe, 4.0 + (red - green) / safe),
    )
    sixths = sixths + 6.0 * shift[:, None, None]
    position = sixths[..., None] + jnp.array([5.0, 3.0, 1.0])
    position = position - 6.0 * jnp.floor(position / 6.0)  # as jnp.mod, which is slow on the CPU
    descent = jnp.clip(jnp.minimum(position, 4.0 - position), 0.0, 1.0)
    return jnp.clip(value[..., None] - chroma[..., None] * descent, 0.0, 1.0)


def jitter(x, factors, order):
    """Brightness, contrast, saturation and hue, in each image's own order. factors: (M, 4); order: int (M, 4).

    Hue is the costly one, so it runs once: the blends that an image has before its hue run before, the others after,
    and a blend in the wrong half has factor 1. Six blends and one hue serve all 24 orders. torchvision's ColorJitter.
    """
    hue_at = jnp.argmax(order == HUE, axis=-1)
    turns = jnp.arange(4)[:, None]
    operations = order.T  # (4, M), in the order of application
    amounts = jnp.take_along_axis(factors, order, axis=-1).T

    def blends(x, which, wanted):
        # A scan: unrolled, XLA's CPU compiler fuses the whole chain into each of its readers (3 to 8 times slower).
        steps = jnp.where(wanted, amounts, 1.0)[which], operations[which]
        return jax.lax.scan(lambda x, step: (blend(x, *step), None), x, steps)[0]

    x = blends(x, slice(0, 3), turns < hue_at)
    x = shift_hue(x, factors[:, HUE])
    return blends(x, slice(1, 4), turns > hue_at)


def grey(x, on):
    """Grey where `on` (M,) says so, still with three channels."""
    return jnp.where(on[:, None, None, None], luma(x), x)


def blur_radius(size: int) -> int:
    """Half the width of SimCLR's blur kernel, which spans a tenth of the image: 23 taps at 224 pixels, 3 at 32."""
    return max(1, (size // 10) // 2)


def blur(x, sigma):
    """Gaussian blur of deviation sigma (M,) pixels; 0 leaves an image alone. x: (M, size, size, 3).

    Beyond the edge the edge goes on, as in PIL; the kernel is SimCLR's. Two matmuls with a banded matrix, which is made
    from the taps by a constant that says which pixel a tap reads.
    """
    size = x.shape[1]
    radius = blur_radius(size)
    offsets = jnp.arange(-radius, radius + 1)
    taps = jnp.exp(-0.5 * jnp.square(offsets / jnp.maximum(sigma, 1e-3)[:, None]))  # (M, 2r+1)
    taps = taps / taps.sum(axis=-1, keepdims=True)
    reads = jnp.clip(jnp.arange(size)[None, :] + offsets[:, None], 0, size - 1)  # (2r+1, size)
    band = jnp.einsum("mk,koi->moi", taps, jax.nn.one_hot(reads, size), precision=Precision.HIGH)
    soft = jnp.einsum("moh,mhwc->mowc", band, x, precision=Precision.HIGH)
    soft = jnp.einsum("mpw,mowc->mopc", band, soft, precision=Precision.HIGH)
    return jnp.where((sigma > 0.0)[:, None, None, None], soft, x)


def solarize(x, on):
    """Invert the bright half of the pixels where `on` (M,) says so: PIL's threshold 128 of 255, BYOL's 0.5."""
    return jnp.where(on[:, None, None, None] & (x >= 0.5), 1.0 - x, x)


def normalise(x, mean, std):
    """Subtract the mean and divide by the deviation of each channel."""
    return (x - jnp.asarray(mean, jnp.float32)) / jnp.asarray(std, jnp.float32)


def recolour(x, drawn, group, mean, std):
    """Everything after crop and flip, in the one fixed order; what no recipe of the group ever does is left out."""
    if any(recipe["grey"] > 0 for recipe in group) and group[0]["grey_first"]:
        x = grey(x, drawn["grey"])
    if any(recipe["jitter_probability"] > 0 and max(recipe["jitter"]) > 0 for recipe in group):
        x = jitter(x, drawn["jitter"], drawn["order"])
    if any(recipe["grey"] > 0 for recipe in group) and not group[0]["grey_first"]:
        x = grey(x, drawn["grey"])
    if any(recipe["blur"] > 0 for recipe in group):
        x = blur(x, drawn["sigma"])
    if any(recipe["solarize"] > 0 for recipe in group):
        x = solarize(x, drawn["solarize"])
    return normalise(x, mean, std)


def prepare(crops, mean, std):
    """-> function(raw, resident): what the host shipped becomes {group: float32 (B, V, h, w, 3)}, normalised.

    crops: {group: list of recipes}. raw: per group either boxes and factors (resident, uint8 (N, H, W, 3), and
    raw["index"] give the images), or cropped uint8 images and factors, or finished float32 images.
    """

    def views_of(group, drawn, index, resident):
        if "image" in drawn and drawn["image"].dtype != jnp.uint8:
            return drawn["image"]
        batch, views = drawn["image" if "image" in drawn else "box"].shape[:2]
        flat = {name: array.reshape(batch * views, *array.shape[2:]) for name, array in drawn.items()}  # (B V)
        if "image" in flat:
            x = flat["image"].astype(jnp.float32) / 255.0
        else:
            images = resident[jnp.repeat(index, views)]
            x = crop(images, flat["box"], flat["flip"], group[0]["size"], group[0]["interpolation"])
        x = recolour(x, flat, group, mean, std)
        return x.reshape(batch, views, *x.shape[1:])

    def prepared(raw, resident=None):
        return {name: views_of(group, raw[name], raw.get("index"), resident) for name, group in crops.items()}

    return prepared
