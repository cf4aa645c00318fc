"""Patch features as colours: the first principal component parts object from background, the next three colour it.

Paper: Oquab et al. 2023, DINOv2, https://arxiv.org/abs/2304.07193, Fig. 1 and Sec. 7.5
The threshold, which the paper sets by hand, is Otsu's here; the side that keeps away from the border is the object.
"""

import numpy as np
from PIL import Image

from jax_ssl.encoder import Encoder
from jax_ssl.errors import UserError
from jax_ssl.visualize import pictures

MOSTLY = 0.5  # of the variance of features: so much position is taken out
DARKEST = 0.15  # of an object's colours, so that nothing of it is as black as what surrounds it
ENOUGH = 4  # images whose mean tells what is position


def patch_features(encode: Encoder, images: np.ndarray) -> np.ndarray:
    """uint8 images (B, S, S, 3) -> the features of their patches, float64 (B, h, h, D)."""
    # One image at a time: attention at a high resolution is what fills the memory.
    found = [np.asarray(encode(image[None]).patches, np.float64) for image in encode.normalise(images)]
    if not all(np.isfinite(features).all() for features in found):
        raise UserError("The network's features are not finite: its weights are ruined, take those from before.")
    rows = round(found[0].shape[1] ** 0.5)
    return np.concatenate(found).reshape(len(images), rows, rows, -1)


def without_position(features: np.ndarray) -> tuple[np.ndarray, float]:
    """Features (B, h, w, D) without what only says where a patch is, where that is most of them; and how much it is.

    How much: the part of the variance, from 0 to 1, that the mean over images at each place explains beyond chance.
    Networks that fill in holes need to know where they are, and would be drawn as the same rainbow for every image.
    """
    centred = features - features.mean((0, 1, 2))
    position = centred.mean(0)
    explained = np.square(position).mean() / max(np.square(centred).mean(), 1e-12)
    count = len(features)
    share = max(0.0, (explained - 1 / count) / (1 - 1 / count)) if count > 1 else 0.0
    return (centred - position if share > MOSTLY and count >= ENOUGH else features), share


def components(features: np.ndarray, count: int) -> np.ndarray:
    """Features (N, D) along their first principal components: float64 (N, count), the same for any rotation of D.

    Each component has the sign that makes its third moment positive. Missing ones (N or D too small) are zero.
    """
    centred = features - features.mean(0)
    vectors, values, _ = np.linalg.svd(centred, full_matrices=False)
    scores = vectors[:, :count] * values[:count]
    scores = scores * np.where((scores**3).sum(0) < 0, -1, 1)
    return np.pad(scores, ((0, 0), (0, count - scores.shape[1])))


def threshold(values: np.ndarray) -> float:
    """Otsu's: the value that parts numbers (N,) into the two groups with the largest distance between their means."""
    ordered = np.sort(values)
    below = np.arange(1, len(ordered))
    total = np.cumsum(ordered)
    means = total[:-1] / below, (total[-1] - total[:-1]) / (len(ordered) - below)
    cut = int(np.argmax(below * (len(ordered) - below) * (means[1] - means[0]) ** 2))
    return (ordered[cut] + ordered[cut + 1]) / 2


def foreground(features: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Which patches (B, h, w, D) of several images, taken together, are of objects: bool (B, h, w).

    Also returns the first component, float64 (B, h, w), larger in objects. Which of its two sides is the object: the
    one with fewer of its patches at the border of the images.
    """
    first = components(features.reshape(-1, features.shape[-1]), 1).reshape(features.shape[:-1])
    high = first > threshold(first.ravel())
    border = np.ones(high.shape[1:], bool)
    border[1:-1, 1:-1] = False
    if not border.all() and high[:, border].mean() > high[:, ~border].mean():
        return ~high, -first
    return high, first


def colours(features: np.ndarray, inside: np.ndarray) -> np.ndarray:
    """The first three components of the patches that are inside, as red, green and blue: float (B, h, w, 3).

    features (B, h, w, D), inside bool (B, h, w); the others are black. Each colour spans the middle 96 % of its values.
    """
    painted = np.zeros((*inside.shape, 3))
    if inside.sum() > 1:
        scores = components(features[inside], 3)
        low, high = np.percentile(scores, (2, 98), axis=0)
        painted[inside] = DARKEST + (1 - DARKEST) * np.clip((scores - low) / np.maximum(high - low, 1e-12), 0, 1)
    return painted


def draw(encode: Encoder, images: np.ndarray) -> tuple[Image.Image, float]:
    """A row for each image: itself, the first component, and the object in the colours of its components.

    images: uint8 (B, S, S, 3). Equal colours in different images are equal features: all are taken together. Also
    returns how much of the features was position.
    """
    features, share = without_position(patch_features(encode, images))
    inside, first = foreground(features)
    side = pictures.cell(3)
    first = (first - first.min()) / max(np.ptp(first), 1e-12)
    shown = [pictures.fit(images / 255, side), pictures.heat(pictures.fit(first, side)),
             pictures.fit(colours(features, inside), side)]  # fmt: skip
    return pictures.sheet(shown, ["image", "first component", "components of the object"]), share
