"""Do patches know what they show? Semantic segmentation by the nearest patches of training images, or one layer.

Protocol `segmentation-knn`, after CAPI: images are squashed to one size, not cropped; features of patches are
standardised by those of the training patches; each patch of a test image gets its pixels' classes by a vote of its k
most similar training patches, pixel for pixel. k is chosen on a tenth of the training images. Training patches whose
most frequent class does not count are left out. Other than in CAPI the similarity is the cosine alone, and pixels that
do not count have no vote.

Beside it two layers that learn the most frequent class of a patch, and give it to all of its pixels: the logistic
regression of logreg.py, which is CAPI's second classifier, its C chosen on the same tenth by mIoU, then fitted again to
all patches; and the linear layer of linear.py.

miou: intersection over union, each summed over all test images, mean over classes. A class that is neither in the truth
nor predicted is left out; one that is only predicted counts as 0. Size of images and patches changes it by points.

Darcet et al. 2025 (CAPI), https://arxiv.org/abs/2502.08769; https://github.com/facebookresearch/capi,
eval_segmentation.py. Letters: N images, H x W their sides, P patches of each, p pixels of a patch, D width, C classes.
"""

import numpy as np

from jax_ssl.errors import UserError
from jax_ssl.evaluate import correspondence, knn, linear, logreg, masks, rules
from jax_ssl.views.sizes import Size, grid_of, is_square, sides, size_of, written

NEEDS = ("network",)
SHOWN = ("miou", "miou_logreg", "miou_linear", "miou_pixels", "accuracy")
KS = (1, 3, 10, 30)
BLOCK = 32  # images that the network gets at a time


def measure(case, seed, *, folder="", side=0, images=500, iterations=200) -> tuple[dict, dict]:
    """{miou, accuracy, miou_logreg, miou_linear, miou_pixels} on a `folder` of images and masks, see masks.py.

    side: of the images, as squares; 0 = the network's size. images: of each split at most, drawn by the seed, 0 = all.
    iterations: of the logistic regression, at most.
    """
    if not folder:
        raise UserError("--task=segmentation needs --config.segmentation.folder=FOLDER, of images and their masks.")
    found, size = masks.find(folder), side or case.encode.size
    splits = [[pairs[row] for row in rules.some(len(pairs), images, seed)] for pairs in (found.train, found.test)]
    (train, truth_train, pixels), (test, truth, test_pixels) = (_read(case, pairs, size) for pairs in splits)
    rules.check_features("Segmentation", *(x.reshape(-1, x.shape[-1]) for x in (train, test)))
    classes = _classes(truth_train, truth, found.ignored)
    sets = train, truth_train, test, truth, classes, found.ignored, seed
    numbers, chosen = by_neighbours(*sets)
    numbers["miou_logreg"], of_logreg = by_regression(*sets, iterations)
    numbers["miou_linear"] = by_layer(*sets)
    of_pixels, _ = by_neighbours(pixels, truth_train, test_pixels, truth, classes, found.ignored, seed)
    numbers["miou_pixels"] = of_pixels["miou"]
    protocol = {
        "name": "segmentation-knn", "layout": found.layout, "side": size,
        "patches": size_of(*grid_of(train.shape[1], size)),
        "segmentation_images": [len(split) for split in splits], "classes": classes, "ignored": list(found.ignored),
        "features": "standardised", "similarity": "cosine", "k": chosen, "grid": list(KS), "votes": "pixel for pixel",
        "selection": "a tenth of the training images", "logreg": of_logreg | {"grid": list(logreg.GRID)},
        "folder": folder,
    }  # fmt: skip
    return numbers, protocol


def _read(case, pairs, size: Size) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Patches (N, P, D), their pixels' classes uint8 (N, P, p), and their colours (N, P, 3 p), of pairs of files."""
    patches, truth, colours = [], [], []
    for start in range(0, len(pairs), BLOCK):
        both = [masks.read(pair, size) for pair in pairs[start : start + BLOCK]]
        images, labels = (np.stack(part) for part in zip(*both, strict=True))
        (made,) = case.outputs([images], correspondence.patches_of)
        grid = correspondence.grid_of(made.shape[1], size, "Segmentation", 2)
        near = size_of(*(side // count * count for side, count in zip(sides(size), grid, strict=True)))
        if near != size_of(*sides(size)):
            flag = "config.segmentation.side" if is_square(size) else "size"
            raise UserError(
                f"Images of {written(size)} pixels are no multiple of their {grid[0]} x {grid[1]} patches: take "
                f"--{flag}={written(near)}."
            )
        patches.append(made.astype(np.float32))
        truth.append(correspondence.cut(labels, grid))
        colours.append(correspondence.pixel_patches(images, grid))
    return tuple(np.concatenate(part) for part in (patches, truth, colours))


def _classes(train, test, ignored) -> int:
    """The number of classes, from 0. Raises UserError where training pixels are of fewer than two."""
    names = np.setdiff1d(np.unique(train), ignored)
    if len(names) < 2:
        raise UserError(f"Segmentation needs two classes, and the training masks have {len(names)}: give other masks.")
    return int(max(names.max(), np.setdiff1d(np.unique(test), ignored).max(initial=0))) + 1


def most_frequent(labels: np.ndarray, classes: int, ignored) -> np.ndarray:
    """The most frequent class of each patch, of equals the lowest: (M, p) -> int (M,), -1 where that does not count."""
    counts = np.zeros((len(labels), 256), np.int32)
    rows = np.arange(len(labels))
    for pixel in labels.T:
        counts[rows, pixel] += 1
    found = counts.argmax(1)
    return np.where(np.isin(found, ignored) | (found >= classes), -1, found)


def by_neighbours(train, truth_train, test, truth, classes: int, ignored, seed: int) -> tuple[dict, int]:
    """{miou, accuracy} of the vote of the nearest patches, and the chosen k. Arrays (N, P, D) and (N, P, p)."""
    held_out, fitted = _split(len(train), seed)
    scores = [
        mean_iou(confusion(guess, truth_train[held_out], classes, ignored))
        for guess in vote(train[fitted], truth_train[fitted], train[held_out], KS, classes, ignored)
    ]
    k = KS[int(np.argmax(scores))]
    table = confusion(next(vote(train, truth_train, test, (k,), classes, ignored)), truth, classes, ignored)
    return {"miou": mean_iou(table), "accuracy": float(np.trace(table) / table.sum())}, k


def _split(count: int, seed: int) -> tuple[np.ndarray, np.ndarray]:
    """Training images by which is chosen, and the others; of fewer than ten images, all are both."""
    held_out, fitted = linear.split(count, seed)
    return (held_out, fitted) if len(held_out) else (fitted, fitted)


def vote(train, labels, test, ks, classes: int, ignored):
    """Yields the classes of the pixels of test patches, uint8 (N, P, p), for each k in `ks`."""
    labels = labels.reshape(-1, labels.shape[-1])
    kept = most_frequent(labels, classes, ignored) >= 0
    bank, queries = _standardised(train.reshape(-1, train.shape[-1])[kept], test.reshape(-1, test.shape[-1]))
    labels = labels[kept]
    _, rows = knn.nearest(bank, queries, min(max(ks), len(bank)))
    for k in ks:
        found = [_count(labels[rows[i : i + 512, :k]], classes, ignored) for i in range(0, len(rows), 512)]
        yield np.concatenate(found).reshape(*test.shape[:2], -1)


def _standardised(train, test):
    """Both, less the mean of `train` and over its deviation, as by scikit-learn's StandardScaler."""
    mean, deviation = train.mean(0, dtype=np.float64), train.std(0, dtype=np.float64)
    scale = np.where(deviation > 0, deviation, 1)
    return (((x - mean) / scale).astype(np.float32) for x in (train, test))


def _count(labels: np.ndarray, classes: int, ignored) -> np.ndarray:
    """The class with most votes for each pixel: (M, k, p) -> uint8 (M, p). Classes that do not count have no vote."""
    votes = np.zeros((len(labels), labels.shape[2], 256), np.uint8)
    rows, pixels = np.ogrid[: len(labels), : labels.shape[2]]
    for neighbour in labels.swapaxes(0, 1):
        votes[rows, pixels, neighbour] += 1
    votes[..., list(ignored)] = 0
    return votes[..., :classes].argmax(-1).astype(np.uint8)


def by_regression(
    train, truth_train, test, truth, classes: int, ignored, seed: int, iterations: int
) -> tuple[float, dict]:  # fmt: skip
    """miou of the logistic regression, and how its C was found."""
    held_out, fitted = _split(len(train), seed)
    names = most_frequent(truth_train.reshape(-1, truth_train.shape[-1]), classes, ignored)
    kept = names >= 0
    of_image = np.repeat(np.arange(len(train)), train.shape[1])[kept]

    def best_of(heads, data, regressions):
        there = train[held_out], truth_train[held_out], classes, ignored
        scores = [by_patch(regression.predict, *there) for regression in regressions]
        return int(np.argmax(scores)), max(scores)

    patches, hidden = train.reshape(-1, train.shape[-1])[kept], ~np.isin(of_image, fitted)
    found, chosen = logreg.fit_best(patches, names[kept], hidden, classes, logreg.GRID, iterations, best_of)
    chosen["held_out_miou"] = chosen.pop("held_out")
    return by_patch(found.predict, test, truth, classes, ignored), chosen


def by_layer(train, truth_train, test, truth, classes: int, ignored, seed: int) -> float:
    """miou of the linear layer."""
    names = most_frequent(truth_train.reshape(-1, truth_train.shape[-1]), classes, ignored)
    patches = train.reshape(-1, train.shape[-1])[names >= 0]
    layer = linear.fit(patches, names[names >= 0], classes, seed=seed)
    return by_patch(lambda patches: np.asarray(linear.predict(layer, patches)), test, truth, classes, ignored)


def by_patch(classify, patches, truth, classes: int, ignored) -> float:
    """miou where all pixels of a patch get its class: patches (N, P, D), truth (N, P, p); classify: (M, D) -> (M,)."""
    guess = classify(patches.reshape(-1, patches.shape[-1])).reshape(*patches.shape[:2], 1)
    return mean_iou(confusion(np.broadcast_to(guess, truth.shape), truth, classes, ignored))


def confusion(guess, truth, classes: int, ignored) -> np.ndarray:
    """How many pixels of each class are given each class: int64 (C, C), truth along rows. Others are left out."""
    counted = ~np.isin(truth, ignored)
    pairs = truth[counted].astype(np.int64) * classes + guess[counted]
    return np.bincount(pairs, minlength=classes**2).reshape(classes, classes)


def mean_iou(table) -> float:
    """Mean intersection over union of the classes that are in the truth or predicted."""
    union = table.sum(0) + table.sum(1) - np.diag(table)
    return float(np.mean(np.diag(table)[union > 0] / union[union > 0]))
