"""Does a strong copy of an image find its original among distractors? Copies are made here, fixed by the seed.

A copy shows 20 to 60 % of its original, mirrored half of the time, with other brightness, contrast and colours,
blurred, with a grey box over a part, as a JPEG of quality 30. This set is our own: its numbers are not those of
Copydays or DISC.

map: mean over copies of 1 / the rank of the original. recall_at_1. micro_ap: average precision of all pairs in one
ranking, by steps, so that one threshold has to serve all copies.

Pizzi et al. 2022 (SSCD), https://arxiv.org/abs/2202.10261, for the two kinds of average precision.
"""

import numpy as np
from PIL import Image, ImageEnhance, ImageFilter, ImageOps

from jax_ssl.errors import UserError
from jax_ssl.evaluate import knn, retrieval, rules
from jax_ssl.evaluate.resampling import jpeg

NEEDS = ("squares",)
DECIDES = "micro_ap"
CANDIDATES = 20  # of each copy that enter the one ranking, as for Copydays


def copies(images: np.ndarray, seed: int = 0, first: int = 0) -> np.ndarray:
    """A strong copy of each image: uint8 (N, S, S, 3) -> the same shape. It depends on the seed and its number.

    first: the number of the first image.
    """
    return np.stack([
        _copy(Image.fromarray(image), np.random.default_rng((rules.seed32(seed), number)))
        for number, image in enumerate(images, first)
    ])  # fmt: skip


def _copy(image: Image.Image, rng) -> np.ndarray:
    side, area, aspect = image.width, rng.uniform(0.2, 0.6), np.exp(rng.uniform(-0.3, 0.3))
    width, height = (min(max(2, round(side * (area * ratio) ** 0.5)), side) for ratio in (aspect, 1 / aspect))
    left, top = (int(rng.integers(0, side - size + 1)) for size in (width, height))
    image = image.crop((left, top, left + width, top + height)).resize((side, side), Image.Resampling.BICUBIC)
    image = ImageOps.mirror(image) if rng.random() < 0.5 else image
    for enhance in (ImageEnhance.Brightness, ImageEnhance.Contrast, ImageEnhance.Color):
        image = enhance(image).enhance(rng.uniform(0.6, 1.4))
    image = image.filter(ImageFilter.GaussianBlur(side / 224 * rng.uniform(0.5, 3)))
    box = max(1, round(side * rng.uniform(0.15, 0.35)))
    place = tuple(int(rng.integers(0, side - box + 1)) for _ in range(2))
    image.paste((int(rng.integers(0, 256)),) * 3, (*place, place[0] + box, place[1] + box))
    return jpeg(image, 30)


def measure(case, seed, *, originals=500) -> tuple[dict, dict]:
    """Scores of copies of at most `originals` test images; the other test images and the training images distract."""
    if len(case.test) < 2 or originals < 1:
        raise UserError(f"Copy detection needs two test images and an original, not {len(case.test)} and {originals}.")
    rows = rules.some(len(case.test), originals, seed)
    changed = case.embed(copies(block, seed, start) for start, block in _numbered(case.test.images, rows))
    others = np.delete(np.arange(len(case.test)), rows)
    distractors = np.concatenate([case.train.features, case.test.features[others]])
    protocol = {
        "name": "copies", "similarity": "cosine", "originals": len(rows), "distractors": len(distractors),
        "candidates": CANDIDATES, "copies": "crop 20-60 %, mirror, colours, blur, grey box, JPEG 30",
    }  # fmt: skip
    return scores(case.test.features[rows], distractors, changed), protocol


def _numbered(images, rows, size: int = 256):
    """Blocks of the images at `rows`, each with the number of its first."""
    return ((start, images[rows[start : start + size]]) for start in range(0, len(rows), size))


def scores(originals, distractors, changed) -> dict[str, float]:
    """{map, recall_at_1, micro_ap} of features: originals (N, D), distractors (M, D) and the copies `changed` (N, D).

    Copy i is of original i. Raises UserError for features that can't be measured.
    """
    if len(originals) != len(changed) or not len(originals):
        raise UserError(f"{len(changed):,} copies of {len(originals):,} originals: each original needs one copy.")
    bank = np.concatenate([originals, distractors])
    rules.check_features("Copy detection", bank, changed)
    ranks = _ranks(bank, changed)
    candidates = min(CANDIDATES, len(bank))
    cosines, places = knn.nearest(bank, changed, candidates)
    right = places == np.arange(len(changed))[:, None]
    return {
        "map": float(np.mean(1 / ranks)),
        "recall_at_1": float(np.mean(ranks == 1)),
        "micro_ap": retrieval.micro_precision(cosines.ravel(), right.ravel(), len(changed)),
    }


def _ranks(bank, changed) -> np.ndarray:
    """The rank of each copy's original, from 1: int (N,)."""
    block = retrieval.BLOCK
    order = [retrieval.ranking(bank, changed[start : start + block]) for start in range(0, len(changed), block)]
    order = np.concatenate(order)
    return 1 + np.argmax(order == np.arange(len(changed))[:, None], axis=1)
