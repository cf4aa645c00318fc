"""Patch features as colours: the first principal component separates object and background, the next three colour it.

Paper: Oquab et al. 2023, DINOv2, https://arxiv.org/abs/2304.07193, Fig. 1 and Sec. 7.5
The threshold, which the paper sets by hand, is Otsu's here. The side with fewer patches at the border is the object.
"""

import numpy as np
from PIL import Image

from jax_ssl.encoder import Encoder
from jax_ssl.errors import UserError
from jax_ssl.views.sizes import grid_of, scaled_to
from jax_ssl.visualize import pictures

MAX_POSITION = 0.5  # share of the features' variance; a larger share of position is subtracted
MIN_COLOUR = 0.15  # of an object's colours, so that it is nowhere as black as the background
MIN_IMAGES = 4  # to estimate the position part of the features by a mean over images


def patch_features(encode: Encoder, images: np.ndarray) -> np.ndarray:
    """uint8 images (B, H, W, 3) -> features of their patches, float64 (B, h, w, D). UserError if not finite."""
    # One image at a time: at a high resolution, attention fills the memory.
    found = [np.asarray(encode(image[None]).patches, np.float64) for image in encode.normalise(images)]
    if not all(np.isfinite(features).all() for features in found):
        raise UserError("The network's features are not finite: its weights are damaged, take an earlier checkpoint.")
    rows, columns = grid_of(found[0].shape[1], images.shape[1:3])
    return np.concatenate(found).reshape(len(images), rows, columns, -1)


def subtract_position(features: np.ndarray) -> tuple[np.ndarray, float]:
    """Features (B, h, w, D), minus their mean at each position if that explains most of the variance; and its share.

    The share, from 0 to 1, is the part of the variance that the mean over images at each position explains beyond
    chance. It is subtracted above MAX_POSITION and for at least MIN_IMAGES images. Networks that predict hidden patches
    encode positions, and without this every image would get the same rainbow.
    """
    centred = features - features.mean((0, 1, 2))
    position = centred.mean(0)
    explained = np.square(position).mean() / max(np.square(centred).mean(), 1e-12)
    count = len(features)
    share = max(0.0, (explained - 1 / count) / (1 - 1 / count)) if count > 1 else 0.0
    return (centred - position if share > MAX_POSITION and count >= MIN_IMAGES else features), share


def components(features: np.ndarray, count: int) -> np.ndarray:
    """The first principal components of features (N, D): float64 (N, count), the same for any rotation of the features.

    The sign of each component makes its third moment positive. Missing ones (N or D too small) are zero.
    """
    centred = features - features.mean(0)
    vectors, values, _ = np.linalg.svd(centred, full_matrices=False)
    scores = vectors[:, :count] * values[:count]
    scores = scores * np.where((scores**3).sum(0) < 0, -1, 1)
    return np.pad(scores, ((0, 0), (0, count - scores.shape[1])))


def threshold(values: np.ndarray) -> float:
    """Otsu's threshold: it splits numbers (N,) into the two groups with the largest variance between them."""
    ordered = np.sort(values)
    below = np.arange(1, len(ordered))
    total = np.cumsum(ordered)
    means = total[:-1] / below, (total[-1] - total[:-1]) / (len(ordered) - below)
    cut = int(np.argmax(below * (len(ordered) - below) * (means[1] - means[0]) ** 2))
    return (ordered[cut] + ordered[cut + 1]) / 2


def foreground(features: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Which patches (B, h, w, D) show objects, by the first component of all images: bool (B, h, w).

    Also returns that component, float64 (B, h, w), larger in objects. Of its two sides, the object is the one with the
    smaller share of the patches at the border of the images.
    """
    first = components(features.reshape(-1, features.shape[-1]), 1).reshape(features.shape[:-1])
    high = first > threshold(first.ravel())
    border = np.ones(high.shape[1:], bool)
    border[1:-1, 1:-1] = False
    if not border.all() and high[:, border].mean() > high[:, ~border].mean():
        return ~high, -first
    return high, first


def colours(features: np.ndarray, inside: np.ndarray) -> np.ndarray:
    """The first three components of the patches in `inside` as red, green and blue: float64 (B, h, w, 3), 0 to 1.

    features (B, h, w, D), inside bool (B, h, w); other patches are black. Each colour spans the middle 96 % of its
    values.
    """
    coloured = np.zeros((*inside.shape, 3))
    if inside.sum() > 1:
        scores = components(features[inside], 3)
        low, high = np.percentile(scores, (2, 98), axis=0)
        coloured[inside] = MIN_COLOUR + (1 - MIN_COLOUR) * np.clip((scores - low) / np.maximum(high - low, 1e-12), 0, 1)
    return coloured


def draw(encode: Encoder, images: np.ndarray) -> tuple[Image.Image, float]:
    """A row for each image: itself, the first component, and the object in the colours of its components.

    images: uint8 (B, H, W, 3). The components are those of all images, so equal colours mean equal features. Also
    returns the share of position in the features, see `subtract_position`.
    """
    features, share = subtract_position(patch_features(encode, images))
    inside, first = foreground(features)
    cell = scaled_to(pictures.cell(3), images.shape[1:3])
    first = (first - first.min()) / max(np.ptp(first), 1e-12)
    columns = [pictures.fit(images / 255, cell), pictures.heat(pictures.fit(first, cell)),
             pictures.fit(colours(features, inside), cell)]  # fmt: skip
    return pictures.sheet(columns, ["image", "first component", "components of the object"]), share
