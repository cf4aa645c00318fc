"""Lines between the patches of two images that find each other: the same parts of different objects, in time.

Paper: Oquab et al. 2023, DINOv2, https://arxiv.org/abs/2304.07193, Sec. 7.5 and Fig. 10 ("patch matching")
"""

import colorsys

import numpy as np
from PIL import Image, ImageDraw

from jax_ssl.encoder import Encoder
from jax_ssl.visualize import pictures
from jax_ssl.visualize.pca import foreground, patch_features, without_position

SIDE = 320  # pixels of an image
BETWEEN = 8  # pixels between the two
FINE = 3  # lines are drawn so many times larger and shrunk, so that they are smooth


def matches(first, second, inside_first, inside_second, count: int) -> tuple[np.ndarray, np.ndarray]:
    """The pairs of patches that are each other's nearest by cosine, the most similar first.

    first, second: features (h, w, D); inside: bool (h, w), which patches may be matched. Returns int (K, 2, 2), the
    (row, column) in the first and in the second image, and their cosines (K,); K is at most `count`.
    """
    places = [np.argwhere(inside) for inside in (inside_first, inside_second)]
    if not all(map(len, places)):
        return np.zeros((0, 2, 2), int), np.zeros(0)
    a, b = (unit(features[inside]) for features, inside in ((first, inside_first), (second, inside_second)))
    cosine = a @ b.T
    there, back = cosine.argmax(1), cosine.argmax(0)
    mutual = np.flatnonzero(back[there] == np.arange(len(a)))
    similarity = cosine[mutual, there[mutual]]
    best = np.argsort(-similarity, kind="stable")[:count]
    mutual = mutual[best]
    return np.stack([places[0][mutual], places[1][there[mutual]]], axis=1), similarity[best]


def unit(features: np.ndarray) -> np.ndarray:
    """Rows (N, D) of length one."""
    return features / np.maximum(np.linalg.norm(features, axis=-1, keepdims=True), 1e-12)


def draw(encode: Encoder, images: np.ndarray, count: int = 16) -> tuple[Image.Image, float]:
    """Neighbouring images as pairs, two pairs to a row, with the `count` best matches between the objects in each.

    images: uint8 (B, S, S, 3), two at least; an odd last one is left out. The objects are those of `pca`, and like
    there, also returns how much of the features was position.
    """
    features, share = without_position(patch_features(encode, images))
    inside, _ = foreground(features)
    drawn, titles = [], []
    for left in range(0, len(images) - 1, 2):
        found, cosine = matches(*features[left : left + 2], *inside[left : left + 2], count)
        drawn.append(pair(images[left : left + 2], (found + 0.5) / features.shape[1])[None])
        titles.append(f"{len(found)} matches, cosine {cosine[-1]:.2f} to {cosine[0]:.2f}" if len(found) else "no match")
    rows = [pictures.sheet(drawn[i : i + 2], titles[i : i + 2]) for i in range(0, len(drawn), 2)]
    return pictures.stack(rows), share


def pair(images: np.ndarray, places: np.ndarray) -> np.ndarray:
    """Two images uint8 (2, S, S, 3) beside each other with lines from place to place: float32 (SIDE, width, 3).

    places: (K, 2, 2), the (row, column) in the first and in the second image as parts of the side. Their colours follow
    the direction from the middle of the places in the first image.
    """
    left, right = np.clip(pictures.fit(images / 255, SIDE), 0, 1)
    page = np.concatenate([left, np.ones((SIDE, BETWEEN, 3)), right], axis=1)
    page = Image.fromarray(np.round(page * 255).astype(np.uint8))
    page = page.resize((FINE * page.width, FINE * page.height), Image.Resampling.NEAREST)
    pen = ImageDraw.Draw(page)
    points = FINE * (places[..., ::-1] * SIDE + np.array([[0, 0], [SIDE + BETWEEN, 0]]))  # x before y
    for ends, colour in zip(points, directions(places[:, 0])):
        pen.line([tuple(end) for end in ends], fill=colour, width=2 * FINE)
        for x, y in ends:
            radius = 4 * FINE
            pen.ellipse((x - radius, y - radius, x + radius, y + radius), fill=colour, outline="white", width=FINE)
    page = page.resize((page.width // FINE, page.height // FINE), Image.Resampling.BOX)
    return np.asarray(page, np.float32) / 255


def directions(places: np.ndarray) -> list[tuple[int, int, int]]:
    """A colour of the rainbow for the direction in which each place (K, 2) lies from their middle."""
    down, right = (places - places.mean(0)).T if len(places) else ([], [])
    hues = np.arctan2(down, right) / (2 * np.pi) + 0.5
    return [tuple(round(255 * part) for part in colorsys.hsv_to_rgb(hue, 0.85, 1.0)) for hue in hues]
