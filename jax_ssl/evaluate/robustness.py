"""How much worse is a classifier on changed images? It is fitted on clean features, and never sees a change before.

Corruptions: the errors of the fifteen of corruptions.py at five levels, and mCE, which divides those of each corruption
by those of a baseline. Hendrycks & Dietterich divide by AlexNet's errors on ImageNet-C, which are for no other set:
here the baseline has a name, and the plain mean error is always given.

Curves (the first two after Naseer et al. 2021, https://arxiv.org/abs/2105.10497): accuracy while more and more of the
image is hidden, while it is cut into more and more cells that change places, and while it turns. The area below each
is one number; it is the mean accuracy where points are evenly spaced.
"""

from collections.abc import Callable

import numpy as np

from jax_ssl.errors import UserError
from jax_ssl.evaluate import corruptions, knn, offline, rules, severities, weather
from jax_ssl.evaluate.resampling import sample

NEEDS = ("labels", "squares")
DECIDES = "error_corrupted"
SHOWN = ("error_clean", "error_corrupted", "mce", "mce_14", "hidden", "shuffled", "turned")
K = 20  # nearest neighbours that classify
HIDDEN = tuple(share / 10 for share in range(10))
CELLS = (1, 2, 4, 8)
DEGREES = tuple(range(-180, 181, 15))
BLOCK = 256  # images that the network gets at a time
GRID = 8  # patches a side, of which some are hidden


def measure(case, seed, *, images=500, kinds=severities.KINDS, baseline_images=2000) -> tuple[dict, dict]:
    """Errors on corrupted images and areas below the curves, of weighted kNN on at most `images` test images.

    The baseline of mCE is kNN of raw pixels, with at most `baseline_images` training images as its bank.
    """
    rules.check("Robustness", case.train.features, case.train.labels, case.test.features)
    rows = rules.some(len(case.test), images, seed)
    pictures, labels = case.test.images[rows], case.test.labels[rows]
    predict = {"it": classifier(case.train.features, case.train.labels, case.classes, _embedding(case))}
    flat = _embedding(case) if case.encode is None else _pixels(case.encode)
    few = rules.some(len(case.train), baseline_images, seed)
    bank = np.concatenate([flat(case.train.images[few[i : i + BLOCK]]) for i in range(0, len(few), BLOCK)])
    predict["baseline"] = classifier(bank, case.train.labels[few], case.classes, flat)
    errors = corruption_errors(predict, pictures, labels, seed, kinds)
    along = curves({"it": predict["it"]}, pictures, labels, pictures.mean((0, 1, 2)), seed)["it"]
    numbers = summary(errors["it"], errors["baseline"])
    numbers |= {f"{name}@{place}": value for name, curve in along.items() for place, value in _whole(curve).items()}
    numbers |= {name: area(curve) for name, curve in along.items()}
    protocol = {
        "name": "robustness", "classifier": f"kNN, k {min(K, len(case.train))}, on clean features",
        "images": len(rows), "corruptions": list(kinds), "levels": list(severities.LEVELS),
        "constants": severities.setting(pictures.shape[1]),
        "frost": "official" if weather.frost_folder() else "own", "baseline": f"kNN of raw pixels, bank of {len(few)}",
        "hidden_grid": GRID, "hidden_order": "random", "turned_as": "discs",
    }  # fmt: skip
    return numbers, protocol


def _whole(curve: dict) -> dict[int, float]:
    """A curve with places that are whole numbers: shares in per cent."""
    return {round(100 * place) if isinstance(place, float) else place: value for place, value in curve.items()}


def _embedding(case) -> Callable:
    return lambda images: case.embed(rules.blocks(images, BLOCK))


def _pixels(encode) -> Callable:
    return lambda images: offline.flat_pixels(images, encode.mean, encode.std)


def classifier(bank, labels, classes: int, features_of: Callable) -> Callable:
    """Weighted kNN of clean features: images -> classes int (N,).

    bank: (N, D); labels: (N,) from 0 to classes - 1. features_of: uint8 images (Q, S, S, 3) -> (Q, D).
    """
    k = min(K, len(bank))
    return lambda images: np.asarray(knn.classify(bank, labels, features_of(images), k, knn.TEMPERATURE, classes))


def corruption_errors(predict: dict[str, Callable], images, labels, seed=0, kinds=severities.KINDS) -> dict:
    """Share of wrong answers of each classifier: {name: {"clean": error, corruption: [five errors]}}.

    predict: {name: function(images) -> classes}. Each image is corrupted once for all of them. Frost without its
    official pictures is called "frost*".
    """
    labels = np.asarray(labels)
    _check(images, labels)
    for kind in kinds:
        corruptions.check(kind, 1)
    found = {name: {"clean": _error(one, images, labels)} for name, one in predict.items()}
    for kind in kinds:
        shown = "frost*" if kind == "frost" and weather.frost_folder() is None else kind
        for level in severities.LEVELS:
            changed = corruptions.corrupt(images, kind, level, seed)
            for name, one in predict.items():
                found[name].setdefault(shown, []).append(_error(one, changed, labels))
    return found


def _error(predict: Callable, images, labels) -> float:
    return float(np.mean(predict(images) != labels))


def _check(images, labels) -> None:
    if not len(images) or len(images) != len(labels):
        raise UserError(f"Robustness needs labelled test images; there are {len(images):,} and {len(labels):,} labels.")


def summary(errors: dict, baseline: dict) -> dict[str, float]:
    """{error_clean, error_corrupted, mce, mce_relative, error_KIND ...} of a classifier, given its baseline's errors.

    mce: mean over corruptions of the sum of errors over the baseline's; 1 is as bad as it. mce_relative: the same of
    what errors rise above those on clean images; left out where the baseline's do not rise. Both are called mce_14
    where our own frost stands for the official one, which is left out, and accordingly where other kinds are.
    """
    kinds = [kind for kind in errors if kind != "clean"]
    counted = [kind for kind in kinds if kind in severities.KINDS]
    rises = [[np.sum(one[kind]) - len(one[kind]) * one["clean"] for kind in counted] for one in (errors, baseline)]
    sums = [[np.sum(one[kind]) for kind in counted] for one in (errors, baseline)]
    name = "mce" if len(counted) == len(severities.KINDS) else f"mce_{len(counted)}"
    found = {"error_clean": errors["clean"], "error_corrupted": float(np.mean([np.mean(errors[k]) for k in kinds]))}
    if counted and min(sums[1]) > 0:
        found[name] = float(np.mean(np.divide(*sums)))
    if counted and min(rises[1]) > 0:
        found[f"{name}_relative"] = float(np.mean(np.divide(*rises)))
    return found | {f"error_{kind}": float(np.mean(errors[kind])) for kind in kinds}


def _rngs(count: int, seed: int):
    """A generator of random numbers for each image."""
    return (np.random.default_rng((rules.seed32(seed), number)) for number in range(count))


def hide(images, share: float, colour, order=None, seed: int = 0, grid: int = GRID) -> np.ndarray:
    """Images with a share of their grid x grid patches painted over, uint8 (N, S, S, 3) -> the same.

    colour: (3,), 0 to 255. order: int (N, grid * grid), patches in the order in which they are hidden, such as by a
    class token's attention; at random by default, and then what is hidden at a share is so at a larger one too.
    """
    if order is None:
        order = np.stack([rng.permutation(grid * grid) for rng in _rngs(len(images), seed)])
    hidden = np.zeros((len(images), grid * grid), bool)
    np.put_along_axis(hidden, order[:, : round(share * grid * grid)], True, axis=1)
    rows = np.arange(images.shape[1]) * grid // images.shape[1]
    mask = hidden.reshape(-1, grid, grid)[:, rows][:, :, rows]
    return np.where(mask[..., None], np.asarray(colour, np.uint8), images)


def shuffle(images, cells: int, seed: int = 0) -> np.ndarray:
    """Images cut into cells x cells that change places, for each image at random: uint8 (N, S, S, 3) -> the same.

    Pixels at the right and lower edge that fill no cell stay.
    """
    count, side = len(images), images.shape[1] // cells
    whole = side * cells
    parts = images[:, :whole, :whole].reshape(count, cells, side, cells, side, 3).swapaxes(2, 3)
    parts = parts.reshape(count, cells * cells, side, side, 3)
    each = zip(parts, _rngs(count, seed), strict=True)
    moved = np.stack([part[rng.permutation(cells * cells)] for part, rng in each])
    found = np.array(images)
    moved = moved.reshape(count, cells, cells, side, side, 3).swapaxes(2, 3)
    found[:, :whole, :whole] = moved.reshape(count, whole, whole, 3)
    return found


def turn(images, degrees: float, colour) -> np.ndarray:
    """Images turned counter-clockwise about their middle, as discs: uint8 (N, S, S, 3) -> the same.

    Outside of the disc there is `colour`, also at 0 degrees, so that corners do not tell how far it was turned.
    """
    middle = (images.shape[1] - 1) / 2
    y, x = np.mgrid[: images.shape[1], : images.shape[1]] - middle
    cosine, sine = np.cos(np.deg2rad(degrees)), np.sin(np.deg2rad(degrees))
    ys, xs = cosine * y + sine * x + middle, cosine * x - sine * y + middle
    found, outside = np.array(images), (x**2 + y**2 > (middle + 0.5) ** 2)[..., None]
    for start in range(0, len(images), 64):
        turned = np.round(sample(images[start : start + 64], ys[None], xs[None], np.clip)).astype(np.uint8)
        found[start : start + 64] = np.where(outside, np.asarray(colour, np.uint8), turned)
    return found


def curves(predict: dict[str, Callable], images, labels, colour, seed: int = 0) -> dict:
    """Accuracy along the three curves: {name of a classifier: {"hidden": {share: accuracy}, "shuffled", "turned"}}."""
    labels = np.asarray(labels)
    _check(images, labels)
    changes = {
        "hidden": {share: lambda x, share=share: hide(x, share, colour, seed=seed) for share in HIDDEN},
        "shuffled": {cells: lambda x, cells=cells: shuffle(x, cells, seed) for cells in CELLS},
        "turned": {degrees: lambda x, degrees=degrees: turn(x, degrees, colour) for degrees in DEGREES},
    }
    found = {name: {curve: {} for curve in changes} for name in predict}
    for curve, points in changes.items():
        for place, change in points.items():
            changed = change(images)
            for name, one in predict.items():
                found[name][curve][place] = 1 - _error(one, changed, labels)
    return found


def area(curve: dict[float, float]) -> float:
    """Area below a curve {place: accuracy}, over its length: 0 to 1. The cells of `shuffled` count as powers of two."""
    places = np.array(list(curve), np.float64)
    places = np.log2(places) if tuple(curve) == CELLS else places
    return float(np.trapezoid(list(curve.values()), places) / (places[-1] - places[0]))
