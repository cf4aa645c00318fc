"""Do patches find the object without any label? One box an image, by LOST and by TokenCut.

Protocol. Both take the patches of one image. LOST: the seed is the patch that is positively correlated with the fewest
others; to it come those of the 100 such patches that are like it; the object is where the sum of the correlations with
all of them is positive, as far as it is connected with the seed. TokenCut: patches with a cosine above 0.2 are joined;
the second eigenvector of the graph cuts it into two, and the side of its largest entry is the object, as far as it is
connected with that patch. As in the papers, a patch is its key in the last attention. Of a network without attention it
is the output of the last block, less its mean over the patches of the image: without that nearly all patches are
positively correlated, as all have a large part in common, and the object is the whole image.

corloc: share of images whose box has an intersection over union of 0.5 or more with one of the true boxes, which are
those of the connected parts of the masks. Images without an object are left out.

Simeoni et al. 2021 (LOST), https://arxiv.org/abs/2109.14279; Wang et al. 2022 (TokenCut),
https://arxiv.org/abs/2202.11539. Letters: P patches of an image, h x w, D their width.
"""

import dataclasses

import flax.linen as nn
import numpy as np
from scipy.linalg import eigh
from scipy.ndimage import find_objects, label

from jax_ssl import encoder
from jax_ssl.errors import UserError
from jax_ssl.evaluate import correspondence, masks, rules
from jax_ssl.views.sizes import size_of

NEEDS = ("network",)
DECIDES = "corloc_tokencut"
SEEDS = 100  # patches among which LOST looks for more of the object, at most
EDGE, NO_EDGE = 0.2, 1e-5  # TokenCut joins patches of a cosine above the first; others hang together by the second
RIGHT = 0.5
BLOCK = 32  # images that the network gets at a time


def measure(case, seed, *, folder="", side=0, images=200, keys=True, centre=True) -> tuple[dict, dict]:
    """{corloc_lost, corloc_tokencut} on the test images of a `folder` with masks, see masks.py, and of baselines.

    side: of the images, as squares; 0 = the network's size. images: at most, drawn by the seed, 0 = all. keys: whether
    keys are taken where there are any. centre: whether of outputs the mean over the patches of an image is taken off.
    """
    if not folder:
        raise UserError("--task=discovery needs --config.discovery.folder=FOLDER, of images and masks of objects.")
    found, size = masks.find(folder), side or case.encode.size
    pairs = [found.test[row] for row in rules.some(len(found.test), images, seed)]
    keys = keys and hasattr(case.encode.backbone, "keys")
    centre = centre and not keys
    right, random = [], np.random.default_rng(rules.seed32(seed))
    for start in range(0, len(pairs), BLOCK):
        both = [masks.read(pair, size) for pair in pairs[start : start + BLOCK]]
        patches = read_patches(case, np.stack([image for image, _ in both]), keys)
        rules.check_features("Discovery", patches.reshape(-1, patches.shape[-1]))
        grid = correspondence.grid_of(patches.shape[1], size, "Discovery", 2)
        patches = patches - patches.mean(1, keepdims=True) if centre else patches
        for features, (_, mask) in zip(patches, both, strict=True):
            truth = boxes(mask, found.ignored)
            if len(truth):
                guesses = guess(features, grid) | guess_blindly(features.shape, grid, random)
                right.append({way: overlap(box / (2 * grid), truth).max() >= RIGHT for way, box in guesses.items()})
    if not right:
        raise UserError(f"The masks of {folder} show no object: classes that count are above 0.")
    numbers = {f"corloc_{way}": float(np.mean([one[way] for one in right])) for way in right[0]}
    protocol = {
        "name": "discovery", "layout": found.layout, "discovery_images": len(right), "side": size,
        "patches": size_of(*grid), "centred": centre, "overlap": RIGHT, "folder": folder,
        "features": "keys of the last attention" if keys else "patches of the last block",
    }  # fmt: skip
    return numbers, protocol


@dataclasses.dataclass(frozen=True)
class Keys:
    """In the place of a backbone: images -> keys of their patches (B, P, D)."""

    backbone: nn.Module

    def apply(self, variables, images):
        return self.backbone.keys(variables, images)


def as_they_are(keys):
    return keys


def read_patches(case, images, keys: bool) -> np.ndarray:
    """Keys, or outputs of the last block, of the patches of images: (B, P, D)."""
    if not keys:
        (found,) = case.outputs([images], correspondence.patches_of)
    else:
        of_keys = dataclasses.replace(case.encode, backbone=Keys(case.encode.backbone))
        (found,) = encoder.outputs(of_keys, [images], as_they_are)
    return found


def guess(patches: np.ndarray, shape) -> dict[str, np.ndarray]:
    """The boxes of both ways. patches: (P, D), row by row of `shape` (h, w)."""
    return {"lost": lost(patches, shape), "tokencut": tokencut(patches, shape)}


def guess_blindly(size, shape, random) -> dict[str, np.ndarray]:
    """Baselines: half of the image around its middle, and LOST on noise."""
    half = np.array(shape, np.float64) / 2**0.5
    start = (np.array(shape) - half) / 2
    middle = np.concatenate([start, start + half])
    return {"middle": middle, "noise": lost(random.standard_normal(size), shape)}


def lost(patches, shape) -> np.ndarray:
    """LOST's box: (top, left, bottom, right) in patches, bottom and right beyond it. patches: (P, D)."""
    alike = _products(np.asarray(patches, np.float64))
    joined = alike > 0
    np.fill_diagonal(joined, False)
    order = np.argsort(joined.sum(1), kind="stable")
    seed = order[0]
    others = order[:SEEDS]
    more = others[alike[seed, others] > 0]
    return _box(alike[more].sum(0) > 0, seed, shape)


def tokencut(patches, shape) -> np.ndarray:
    """TokenCut's box, as of `lost`."""
    x = np.asarray(patches, np.float64)
    x = x / np.maximum(np.linalg.norm(x, axis=1, keepdims=True), 1e-12)
    weights = np.where(_products(x) > EDGE, 1.0, NO_EDGE)
    root = weights.sum(1) ** -0.5  # (D - W) y = l D y has y = D^-1/2 z, z of a symmetric matrix, which is quicker
    second = root * eigh(np.eye(len(x)) - root[:, None] * weights * root, subset_by_index=[1, 1])[1][:, 0]
    seed = np.argmax(np.abs(second))
    side = second > second.mean()
    return _box(side if side[seed] else ~side, seed, shape)


def _products(x):
    return x @ x.T


def _box(inside, seed: int, shape) -> np.ndarray:
    """The box around what is connected with the seed; the seed alone where it is not inside."""
    parts, _ = label(np.reshape(inside, shape))
    number = parts.ravel()[seed]
    rows, columns = np.nonzero(parts == number) if number else np.unravel_index([seed], shape)
    return np.array([rows.min(), columns.min(), rows.max() + 1, columns.max() + 1], np.float64)


def boxes(mask: np.ndarray, ignored=(255,)) -> np.ndarray:
    """Boxes around the connected parts of each class of a mask but 0: (n, 4), as of `lost`, as shares of the sides."""
    found = []
    for name in np.setdiff1d(np.unique(mask), (0, *ignored)):
        found += find_objects(label(mask == name)[0])
    corners = [(rows.start, columns.start, rows.stop, columns.stop) for rows, columns in found]
    return np.array(corners, np.float64).reshape(-1, 4) / np.tile(mask.shape, 2)


def overlap(box: np.ndarray, others: np.ndarray) -> np.ndarray:
    """Intersection over union of a box (4,) with each of others (n, 4): (n,)."""
    sides = np.minimum(box[2:], others[:, 2:]) - np.maximum(box[:2], others[:, :2])
    shared = np.prod(np.maximum(sides, 0), axis=1)
    area = lambda boxes: np.prod(boxes[..., 2:] - boxes[..., :2], axis=-1)
    return shared / (area(box) + area(others) - shared)
