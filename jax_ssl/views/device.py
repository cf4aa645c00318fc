"""The view recipes on the device: crop as two matmuls, flip, jitter, grey, blur, solarize, normalise.

Nothing here is random: every factor was drawn on the host (`draws.py`) and arrives as an array. Every function works
on float32 images in [0, 1] with one leading axis M = (images views), and gives the same pixels as its counterpart in
`host.py` (crop and flip: `cut.py`), to within 1/255.

By default a TPU rounds the inputs of a matmul to bfloat16, which changes pixels by up to 2/255. So crops, which are
rounded between their two matmuls, use HIGHEST precision. Blur uses HIGH, at half the cost: three passes of bfloat16 on
a TPU (error at most 0.004/255), TF32 on a GPU (0.2/255).
"""

import jax
import jax.numpy as jnp
from jax.lax import Precision

LUMA = (0.299, 0.587, 0.114)  # ITU-R 601, as PIL's convert("L") and torchvision's rgb_to_grayscale
HUE = 3  # index of hue among the four jitter factors


def triangle(distance):
    """The bilinear kernel. distance: in pixels, of any shape."""
    return jnp.maximum(0.0, 1.0 - jnp.abs(distance))


def keys_cubic(distance):
    """The bicubic kernel with a = -0.5, as PIL and TensorFlow have it (PyTorch tensors: -0.75). Keys 1981, Eq. 15."""
    d = jnp.abs(distance)
    near = (1.5 * d - 2.5) * d * d + 1.0
    far = ((-0.5 * d + 2.5) * d - 4.0) * d + 2.0
    return jnp.where(d < 1.0, near, jnp.where(d < 2.0, far, 0.0))


KERNELS = {"bilinear": triangle, "bicubic": keys_cubic}


def resize_weights(start, length, flip, side: int, size: int, kernel):
    """The weight of each input pixel for each output pixel along one axis: (M, size, side), rows sum to one.

    start, length: int (M,), the part of the axis that the view shows; flip: bool (M,); side, size: pixels of input and
    output. The kernel is wider where the part is larger than the output (antialiasing), and has weight 0 outside the
    part, as if the image had been cropped first.
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
    """Crops boxes, resizes them to (size, size) and mirrors those with `flip`: float32 (M, size, size, 3) in [0, 1].

    images: (M, H, W, 3), 0 to 255; box: int (M, 4) top, left, height, width; flip: bool (M,). The same pixels as
    `cut.crop`, in multiples of 1/255, except where a value to be rounded lies halfway.
    """
    top, left, height, width = jnp.moveaxis(box, -1, 0)
    kernel = KERNELS[interpolation]
    rows = resize_weights(top, height, jnp.zeros_like(flip), images.shape[1], size, kernel)
    columns = resize_weights(left, width, flip, images.shape[2], size, kernel)
    whole = lambda pixels: jnp.clip(jnp.floor(pixels + 0.5), 0.0, 255.0)  # Pillow, too, rounds between the passes
    views = images.astype(jnp.float32)
    views = whole(jnp.einsum("mpw,mhwc->mhpc", columns, views, precision=Precision.HIGHEST))
    views = whole(jnp.einsum("moh,mhpc->mopc", rows, views, precision=Precision.HIGHEST))
    return views / 255.0


def luma(x):
    """The luminance of each pixel: (M, h, w, 3) -> (M, h, w, 1). Not a matmul, which would lose precision on a TPU."""
    return LUMA[0] * x[..., :1] + LUMA[1] * x[..., 1:2] + LUMA[2] * x[..., 2:]


def blend(x, factor, operation):
    """Brightness, contrast or saturation: mixes x with a reference image. factor: (M,), operation: int (M,).

    References: 0 brightness, black; 1 contrast, the mean luminance of the image; 2 saturation, the luminance of each
    pixel. Factor 1 changes nothing, 0 gives the reference.
    """
    factor, operation = factor[:, None, None, None], operation[:, None, None, None]
    pixel_grey = luma(x)
    mean_grey = pixel_grey.mean(axis=(1, 2), keepdims=True)
    reference = jnp.where(operation == 2, pixel_grey, jnp.where(operation == 1, mean_grey, 0.0))
    return jnp.clip(factor * x + (1.0 - factor) * reference, 0.0, 1.0)


def shift_hue(x, shift):
    """Adds `shift` (M,), in turns of the colour circle, to the hue in HSV. Computed without branches."""
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
    """Brightness, contrast, saturation and hue, in an own order for each image. factors: (M, 4); order: int (M, 4).

    The same result as torchvision's ColorJitter. Hue is expensive, so it runs only once, between two rounds of three
    blends. In a round where an image does not need a blend, its factor is 1. So all 24 orders are covered.
    """
    hue_at = jnp.argmax(order == HUE, axis=-1)
    turns = jnp.arange(4)[:, None]
    operations = order.T  # (4, M), in the order of application
    amounts = jnp.take_along_axis(factors, order, axis=-1).T

    def blends(x, which, is_active):
        # A scan: unrolled, XLA's CPU compiler repeats the whole chain for each use of its result (3 to 8 times slower).
        steps = jnp.where(is_active, amounts, 1.0)[which], operations[which]
        return jax.lax.scan(lambda x, step: (blend(x, *step), None), x, steps)[0]

    x = blends(x, slice(0, 3), turns < hue_at)
    x = shift_hue(x, factors[:, HUE])
    return blends(x, slice(1, 4), turns > hue_at)


def grey(x, on):
    """Replaces colours by their luminance where `on`, bool (M,); still with three channels."""
    return jnp.where(on[:, None, None, None], luma(x), x)


def blur_radius(size: int) -> int:
    """The radius, in pixels, of SimCLR's blur kernel of a tenth of the image: 23 taps at 224 pixels, 3 at 32."""
    return max(1, (size // 10) // 2)


def blur(x, sigma):
    """Gaussian blur with standard deviation sigma (M,), in pixels; 0 changes nothing. x: (M, size, size, 3).

    The kernel is SimCLR's; pixels beyond the edge are those of the edge, as in PIL. Two matmuls with a banded matrix,
    which is made from the taps by a constant array that says which pixel each tap reads.
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
    """Inverts all values of at least 0.5 where `on`, bool (M,). The threshold is PIL's 128 of 255, and BYOL's 0.5."""
    return jnp.where(on[:, None, None, None] & (x >= 0.5), 1.0 - x, x)


def normalise(x, mean, std):
    """Subtracts the mean and divides by the standard deviation of each channel."""
    return (x - jnp.asarray(mean, jnp.float32)) / jnp.asarray(std, jnp.float32)


def recolour(x, drawn, group, mean, std):
    """All operations after crop and flip, in their fixed order; those that no recipe of the group uses are skipped.

    x: (M, h, w, 3) in [0, 1]. drawn: the draws of these views, arrays (M, ...). group: list of recipes.
    """
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
    """-> function(raw, resident): a raw batch from the host -> {group: float32 (B, V, h, w, 3)}, normalised.

    crops: {group: list of recipes}. raw has for each group, depending on `data.augment`: boxes and factors in `device`
    (the images are resident[raw["index"]]; resident: uint8 (N, H, W, 3)); cropped uint8 images and factors in `hybrid`;
    finished float32 images in `host`.
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
