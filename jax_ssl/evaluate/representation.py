"""What shape do features have? Measures without labels, and the similarity of two networks' features.

rankme: effective rank, of losses/diagnostics.py. It is at most min(N, D), and compares runs of one method, not methods.
participation: (sum of eigenvalues)^2 / sum of their squares, of the covariance: how many directions have the variance.
alpha: how fast the eigenvalues of the covariance fall, as a power of their rank; near 1 is good (alpha-ReQ), with the
    quality of the fit, `alpha_r2`, beside it.
lidar: effective rank of what differs between images as against between views of one image.
alignment, uniformity: of losses/diagnostics.py.
cka: similarity of two sets of features of the same images, 0 to 1, whatever their rotation and scale.

Letters: N images, V views of each, D width of a feature.
"""

import jax
import jax.numpy as jnp
import numpy as np

from jax_ssl.encoder import at_depths, depths_of, in_batches, outputs
from jax_ssl.errors import UserError
from jax_ssl.evaluate import rules
from jax_ssl.evaluate.augmented import crops, recipe
from jax_ssl.losses.diagnostics import alignment, rankme, uniformity

NEEDS = ("squares",)
SHOWN = ("rankme", "participation", "alpha", "lidar", "alignment", "uniformity")
SCALE = (0.2, 1.0)  # of the crops of LiDAR and alignment
RANKS = (4, 100)  # between which alpha is fitted: the first few follow another law, the last are noise
PAIRS = 2048  # of features of which all pairs are compared, at most
HIGHEST = jax.lax.Precision.HIGHEST


def measure(case, seed, *, rows=2048, images=500, views=10, layer_images=1024) -> tuple[dict, dict]:
    """The measures of at most `rows` training features; LiDAR and alignment of `views` crops of each of `images`.

    Where the network can be read behind its layers, "cka@3" is the similarity of what is behind the third with what
    is behind the last, on `layer_images` test images. 0 images = not measured.
    """
    numbers = shape(case.train.features[rules.some(len(case.train), rows, seed)])
    if images:
        rows, made_by = rules.some(len(case.train), images, seed), recipe(case.train.images.shape[1], views, SCALE)
        of_views = crops(case.train.images, ((0, part) for part in rules.blocks(rows, 32)), made_by, seed)
        numbers |= scores_of_views(case.embed(of_views).reshape(-1, views, int(numbers["width"])))
    depths = depths_of(case.encode.backbone) if case.encode and layer_images else ()
    if len(depths) > 1:
        each, chosen = at_depths(case.encode, depths), rules.some(len(case.test), layer_images, seed)
        made = outputs(each, in_batches(each, case.test.images, chosen), tuple)
        layers = [np.concatenate(features) for features in zip(*made, strict=True)]
        similar = cka_table(layers[:-1], layers[-1:])[:, 0]
        numbers |= {f"cka@{depth}": float(value) for depth, value in enumerate(similar, 1)}
    protocol = {
        "name": "representation", "rows": int(numbers.pop("rows")), "width": int(numbers.pop("width")),
        "alpha_ranks": list(RANKS), "lidar_images": images, "lidar_views": views, "views": "crops of 20-100 %, flips",
        "cka": "linear, unbiased, with the last layer", "cka_images": layer_images if len(depths) > 1 else 0,
    }  # fmt: skip
    return {name: value for name, value in numbers.items() if np.isfinite(value)}, protocol


def shape(features) -> dict[str, float]:
    """{rankme, participation, alpha, alpha_r2, uniformity, rows, width} of features (N, D). Raises UserError."""
    features = np.asarray(features, np.float32)
    if len(features) < 2:
        raise UserError(f"The shape of features needs two images at least, not {len(features)}.")
    rules.check_features("The shape of features", features)
    values = spectrum(features)
    slope, quality = decay(values)
    return {
        "rankme": float(rankme(features)),
        "participation": participation(values),
        "alpha": slope,
        "alpha_r2": quality,
        "uniformity": float(uniformity(features[:PAIRS])),
        "rows": float(len(features)),
        "width": float(features.shape[1]),
    }


def scores_of_views(views) -> dict[str, float]:
    """{lidar, alignment} of features of several views of each image, (N, V, D). alignment is of the first two."""
    views = np.asarray(views, np.float32)
    rules.check_features("LiDAR", views.reshape(-1, views.shape[-1]))
    return {"lidar": lidar(views), "alignment": float(alignment(views[:, 0], views[:, 1]))}


def spectrum(features) -> np.ndarray:
    """Eigenvalues of the covariance of features (N, D), largest first: float64 (min(N, D),)."""
    return np.asarray(_spectrum(jnp.asarray(features, jnp.float32)), np.float64)


@jax.jit
def _spectrum(features):
    with jax.default_matmul_precision("highest"):
        x = features - jnp.mean(features, axis=0)
        # Of R of QR and not of the covariance: squared singular values would lose the small ones to rounding.
        triangle = jnp.linalg.qr(x if len(x) >= x.shape[1] else x.T, mode="r")
        return jnp.square(jnp.linalg.svd(triangle, compute_uv=False)) / (len(x) - 1)


def participation(values) -> float:
    """Participation ratio of eigenvalues: from 1, all variance in one direction, to their number, all equal."""
    values = np.asarray(values, np.float64)
    return float(values.sum() ** 2 / np.maximum(np.sum(values**2), 1e-300))


def decay(values, ranks=RANKS) -> tuple[float, float]:
    """alpha of eigenvalues that fall as rank^-alpha, and R^2 of the fit. NaN where there are fewer than three.

    A line through log eigenvalue over log rank, from the first of `ranks` to the last or to half of all.
    Agrawal et al. 2022, https://arxiv.org/abs/2202.05808
    """
    values = np.asarray(values, np.float64)
    first, last = ranks[0], min(ranks[1], len(values) // 2)
    x, y = np.log(np.arange(first, last + 1)), np.log(np.maximum(values[first - 1 : last], 1e-300))
    if len(x) < 3:
        return float("nan"), float("nan")
    slope, offset = np.polyfit(x, y, 1)
    spread = np.sum((y - y.mean()) ** 2)
    return float(-slope), float(1 - np.sum((y - slope * x - offset) ** 2) / spread) if spread else float("nan")


def lidar(views, epsilon: float = 1e-4) -> float:
    """LiDAR: in how many directions images differ, counted against how much the views of one do. views: (N, V, D).

    exp of the entropy of the eigenvalues of W^-1/2 B W^-1/2: B the covariance of the means of images, W that of views
    around their image's mean, plus epsilon. At most N - 1. Take many views: the paper's numbers are of 1,000 images
    and 50 views. Thilak et al. 2023, https://arxiv.org/abs/2312.04000, Eq. 1 to 4. Raises UserError for one view.
    """
    count, each, width = np.shape(views)
    if each < 2 or count < 2:
        raise UserError(f"LiDAR needs two views of two images at least, not {each} of {count}.")
    views = np.asarray(views, np.float64)
    means = views.mean(1)
    within, between = (views - means[:, None]).reshape(-1, width), means - means.mean(0)
    inner = within.T @ within / (count * (each - 1)) + epsilon * np.eye(width)
    # With W = L L', the values are those of (L^-1 b)' (L^-1 b): of the smaller of its two products.
    whitened = np.linalg.solve(np.linalg.cholesky(inner), between.T)
    values = np.linalg.svd(whitened, compute_uv=False) ** 2 / (count - 1)
    share = values / max(np.sum(np.abs(values)), 1e-300) + 1e-8
    return float(np.exp(-np.sum(share * np.log(share))))


def cka_table(first, second, block: int = PAIRS) -> np.ndarray:
    """Similarity of each of `first` with each of `second`, features (N, D) of the same images: unbiased linear CKA.

    first, second: lists, such as the layers of a network; D may differ. Returns float64 (len(first), len(second)). 1:
    equal up to rotation and scale. 0: unrelated, also where D is near N, where the biased one is far from 0; it may be
    a little below. Kornblith et al. 2019, https://arxiv.org/abs/1905.00414; unbiased HSIC: Song et al. 2012, Eq. 5.
    Of more than `block` images, equal parts are compared, and their HSIC averaged before the division (Nguyen et al.
    2021, https://arxiv.org/abs/2010.15327, Eq. 3). Raises UserError for fewer than four images, or not equally many.
    """
    counts = {len(features) for features in (*first, *second)}
    if len(counts) != 1 or min(counts) < 4:
        raise UserError(f"CKA compares features of the same images, four at least, not of {sorted(counts)} images.")
    rules.check_features("CKA", *first, *second)
    first, second = ([_scaled(features) for features in side] for side in (first, second))
    parts = np.array_split(np.arange(counts.pop()), max(1, -(-len(first[0]) // block)))
    cross, own_first, own_second = 0.0, 0.0, 0.0
    for rows in parts:
        a, b = ([_gram(x[rows]) for x in side] for side in (first, second))
        cross = cross + np.array([[float(_hsic(x, y)) for y in b] for x in a])
        own_first, own_second = (own + np.array([float(_hsic(x, x)) for x in side])
                                 for own, side in ((own_first, a), (own_second, b)))  # fmt: skip
    if min(*own_first, *own_second) <= 0:
        raise UserError(f"CKA of {len(first[0])} images is not defined, as they hardly vary: take more.")
    return cross / np.sqrt(np.outer(own_first, own_second))


def _scaled(features) -> np.ndarray:
    """Features centred and of mean length one: CKA does not change, but with a large mean its sums would cancel."""
    x = np.asarray(features, np.float32) - np.mean(features, axis=0, dtype=np.float64).astype(np.float32)
    return x / np.sqrt(np.mean(np.sum(x * x, axis=1, dtype=np.float64))).astype(np.float32)


@jax.jit
def _gram(x):
    """Products of all pairs of rows, with zeros on the diagonal."""
    return jnp.matmul(x, x.T, precision=HIGHEST) * (1 - jnp.eye(len(x)))


@jax.jit
def _hsic(a, b):
    """Unbiased HSIC of Gram matrices (n, n) with zeros on the diagonal."""
    n, rows, columns = len(a), jnp.sum(a, axis=0), jnp.sum(b, axis=0)
    product = jnp.sum(a * b) + jnp.sum(rows) * jnp.sum(columns) / ((n - 1) * (n - 2)) - 2 / (n - 2) * (rows @ columns)
    return product / (n * (n - 3))
