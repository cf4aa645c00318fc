"""Do features tell images of another kind from known ones? By the distance to the k-th nearest known image.

Protocol. Features are made unit length. An image scores minus its distance to its k-th nearest neighbour in the bank,
the training features; k is max(1, 0.001 N) and can be given. Known test images should score higher than the others.

auroc:  chance that a known image scores higher than one of another kind, ties half. 0.5 says nothing.
fpr95:  share of the others that pass where 95 % of the known ones do.
aupr_in, aupr_out: average precision by steps, with the known or the others as what is looked for.

Sun et al. 2022, https://arxiv.org/abs/2204.06507; https://github.com/deeplearning-wisc/knn-ood

Letters: N known features of the bank, K and O test features, known and others.
"""

import numpy as np
from scipy.stats import rankdata

from jax_ssl.errors import UserError
from jax_ssl.evaluate import knn, retrieval, rules

NEEDS = ("labels",)
SHOWN = ("auroc", "fpr95", "auroc_noise", "fpr95_noise")
PASS = 0.95


def measure(case, seed, *, k=0, noise=1000) -> tuple[dict, dict]:
    """Scores with a fifth of the classes held out, the near set, and with images of noise, the far one ("_noise").

    k: 0 = max(1, 0.001 N). noise: how many images of noise, 0 = none.
    """
    labels = case.train.labels
    held_out = split_classes(labels, seed)
    names = np.unique(labels[held_out])
    bank, others = case.train.features[~held_out], np.isin(case.test.labels, names)
    known = case.test.features[~others]
    numbers = scores(bank, known, case.test.features[others], k or None)
    if noise:
        random, shape = np.random.default_rng(rules.seed32(seed)), case.test.images.shape[1:]
        sizes = [min(256, noise - start) for start in range(0, noise, 256)]
        drawn = case.embed(random.integers(0, 256, (size, *shape), dtype=np.uint8) for size in sizes)
        far = scores(bank, known, drawn, k or None)
        numbers |= {f"{name}_noise": value for name, value in far.items()}
    protocol = {
        "name": "ood", "score": "minus the distance to the k-th neighbour", "features": "unit", "k": int(numbers["k"]),
        "bank": len(bank), "held_out_classes": names.tolist(), "noise": f"{noise} images, uniform",
    }  # fmt: skip
    return {name: value for name, value in numbers.items() if name not in ("k", "k_noise")}, protocol


def scores(bank, known, others, k: int | None = None) -> dict[str, float]:
    """{auroc, fpr95, aupr_in, aupr_out, k} of features: bank (N, D), known (K, D), others (O, D).

    Raises UserError for features that can't be measured, and for k above N.
    """
    for name, features in (("bank", bank), ("known test", known), ("other", others)):
        if not len(features):
            raise UserError(f"The detection of other images got no {name} images: give some.")
    k = max(1, len(bank) // 1000) if k is None else k
    if not 1 <= k <= len(bank):
        raise UserError(f"The detection of other images needs a k from 1 to the bank's {len(bank):,} images, not {k}.")
    # Others may be all the same, such as grey images: with one of the bank they differ.
    rules.check_features("The detection of other images", bank, known, np.concatenate([bank[:1], others]))
    return separation(closeness(bank, known, k), closeness(bank, others, k)) | {"k": float(k)}


def closeness(bank, features, k: int) -> np.ndarray:
    """Minus the distance of each feature (Q, D) to its k-th nearest of the bank (N, D): float64 (Q,)."""
    cosines = knn.nearest(bank, features, k)[0][:, -1].astype(np.float64)
    return -np.sqrt(np.maximum(2 - 2 * cosines, 0))


def separation(known, others) -> dict[str, float]:
    """How well scores (K,) of known images and (O,) of others are apart."""
    known, others = np.asarray(known, np.float64), np.asarray(others, np.float64)
    both = np.concatenate([known, others])
    is_known = np.arange(len(both)) < len(known)
    above = rankdata(both)[: len(known)].sum() - len(known) * (len(known) + 1) / 2
    # The largest threshold that 95 % of the known ones reach.
    threshold = np.sort(known)[len(known) - int(np.ceil(PASS * len(known)))]
    return {
        "auroc": float(above / (len(known) * len(others))),
        "fpr95": float(np.mean(others >= threshold)),
        "aupr_in": retrieval.micro_precision(both, is_known, len(known)),
        "aupr_out": retrieval.micro_precision(-both, ~is_known, len(others)),
    }


def split_classes(labels, seed: int = 0) -> np.ndarray:
    """A fifth of the classes (one at least), that are taken as not known: bool (N,), True for images of them.

    So the ruler needs no second set: near, since the same camera took both. Raises UserError below three classes.
    """
    labels = np.asarray(labels)
    classes = np.unique(labels)
    if len(classes) < 3:
        raise UserError(
            f"Classes to hold out need three classes, two of them to be known, and there are {len(classes)}: give a "
            "set of other images instead."
        )
    chosen = np.random.default_rng(rules.seed32(seed)).permutation(classes)[: max(1, len(classes) // 5)]
    return np.isin(labels, chosen)
