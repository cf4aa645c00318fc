"""Lines between patches of two images that are each other's nearest: the same parts of different objects.

Paper: Oquab et al. 2023, DINOv2, https://arxiv.org/abs/2304.07193, Sec. 7.5 and Fig. 10 ("patch matching")
"""

import colorsys

import numpy as np
from PIL import Image, ImageDraw

from jax_ssl.encoder import Encoder
from jax_ssl.views.sizes import scaled_to
from jax_ssl.visualize import pictures
from jax_ssl.visualize.pca import foreground, patch_features, subtract_position

SIDE = 320  # pixels of an image's longer side
BETWEEN = 8  # pixels between the two images
FINE = 3  # lines are drawn this many times larger and then shrunk, so that they are smooth


def matches(first, second, inside_first, inside_second, count: int) -> tuple[np.ndarray, np.ndarray]:
    """Pairs of patches that are each other's nearest neighbours by cosine, the most similar first.

    first, second: features (h, w, D); inside: bool (h, w), which patches may be matched. Returns int (K, 2, 2), the
    (row, column) in the first and in the second image, and the cosines (K,); K is at most `count`.
    """
    places = [np.argwhere(inside) for inside in (inside_first, inside_second)]
    if not all(map(len, places)):
        return np.zeros((0, 2, 2), int), np.zeros(0)
    a, b = (unit(features[inside]) for features, inside in ((first, inside_first), (second, inside_second)))
    cosine = a @ b.T
    forward, backward = cosine.argmax(1), cosine.argmax(0)
    mutual = np.flatnonzero(backward[forward] == np.arange(len(a)))
    similarity = cosine[mutual, forward[mutual]]
    best = np.argsort(-similarity, kind="stable")[:count]
    mutual = mutual[best]
    return np.stack([places[0][mutual], places[1][forward[mutual]]], axis=1), similarity[best]


def unit(features: np.ndarray) -> np.ndarray:
    """Features (N, D) with rows of length one."""
    return features / np.maximum(np.linalg.norm(features, axis=-1, keepdims=True), 1e-12)


def draw(encode: Encoder, images: np.ndarray, count: int = 16) -> tuple[Image.Image, float]:
    """Pairs of images, two pairs in a row, with lines between the `count` best matches of their objects.

    images: uint8 (B, H, W, 3), B of at least 2; the last one of an odd number is left out. The objects are those of
    `pca.foreground`. Also returns the share of position in the features, see `pca.subtract_position`.
    """
    features, share = subtract_position(patch_features(encode, images))
    inside, _ = foreground(features)
    drawn, titles = [], []
    for left in range(0, len(images) - 1, 2):
        found, cosine = matches(*features[left : left + 2], *inside[left : left + 2], count)
        drawn.append(pair(images[left : left + 2], (found + 0.5) / features.shape[1:3])[None])
        titles.append(f"{len(found)} matches, cosine {cosine[-1]:.2f} to {cosine[0]:.2f}" if len(found) else "no match")
    rows = [pictures.sheet(drawn[i : i + 2], titles[i : i + 2]) for i in range(0, len(drawn), 2)]
    return pictures.stack(rows), share


def pair(images: np.ndarray, places: np.ndarray) -> np.ndarray:
    """Two images uint8 (2, H, W, 3) beside each other, with a line for each match: float32 (height, width, 3).

    places: (K, 2, 2), the (row, column) in the first and in the second image as fractions of the sides. Colours depend
    on the direction in which a place lies from the mean of the places in the first image.
    """
    height, width = scaled_to(SIDE, images.shape[1:3])
    left, right = np.clip(pictures.fit(images / 255, (height, width)), 0, 1)
    page = np.concatenate([left, np.ones((height, BETWEEN, 3)), right], axis=1)
    page = Image.fromarray(np.round(page * 255).astype(np.uint8))
    page = page.resize((FINE * page.width, FINE * page.height), Image.Resampling.NEAREST)
    pen = ImageDraw.Draw(page)
    points = FINE * (places[..., ::-1] * (width, height) + np.array([[0, 0], [width + BETWEEN, 0]]))  # x before y
    for ends, colour in zip(points, direction_colours(places[:, 0])):
        pen.line([tuple(end) for end in ends], fill=colour, width=2 * FINE)
        for x, y in ends:
            radius = 4 * FINE
            pen.ellipse((x - radius, y - radius, x + radius, y + radius), fill=colour, outline="white", width=FINE)
    page = page.resize((page.width // FINE, page.height // FINE), Image.Resampling.BOX)
    return np.asarray(page, np.float32) / 255


def direction_colours(places: np.ndarray) -> list[tuple[int, int, int]]:
    """A rainbow colour (red, green, blue) for the direction of each place (K, 2) from the mean of all."""
    down, right = (places - places.mean(0)).T if len(places) else ([], [])
    hues = np.arctan2(down, right) / (2 * np.pi) + 0.5
    return [tuple(round(255 * part) for part in colorsys.hsv_to_rgb(hue, 0.85, 1.0)) for hue in hues]
