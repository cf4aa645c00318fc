"""Puts features on a plane, for the eye: t-SNE where a library for it is installed, else principal components.

openTSNE is taken first, then scikit-learn (`pip install "jax_ssl[rulers]"` brings both). Each starts from the principal
components with a fixed seed, so that the same features give the same picture.
"""

import importlib.metadata
import importlib.util
from typing import NamedTuple

import numpy as np

COMPONENTS = 50  # principal components that t-SNE gets
PERPLEXITY = 30
LEAST = 30  # points for a t-SNE
ALIKE = 1e-6  # deviation of components of features that only differ by rounding: t-SNE would show its own noise
NEAR = 10  # neighbours that `trustworthiness` looks at


class Plane(NamedTuple):
    """points: float64 (N, 2), both coordinates in [0, 1]. method: what made them. trust: `trustworthiness`, or NaN."""

    points: np.ndarray
    method: str
    trust: float


def plane(features: np.ndarray, seed: int = 0, library: str | None = None) -> Plane:
    """`points_of`, and how far they can be trusted; that needs memory for all pairs of images."""
    made = points_of(features, seed, library)
    return made._replace(trust=trustworthiness(to_unit(features), made.points))


def points_of(features: np.ndarray, seed: int = 0, library: str | None = None) -> Plane:
    """The Plane of features (N, D), compared by cosine. library: openTSNE, sklearn or "" for none; None = the best."""
    few = principal(to_unit(features), COMPONENTS)
    library = installed() if library is None else library
    if library and len(few) >= LEAST and few.std() > ALIKE:
        perplexity = min(PERPLEXITY, (len(few) - 1) // 3)
        points = (with_opentsne if library == "openTSNE" else with_sklearn)(few, perplexity, seed)
        name, parts = {"openTSNE": "openTSNE", "sklearn": "scikit-learn"}[library], few.shape[1]
        version = importlib.metadata.version(name)
        method = f"t-SNE ({name} {version}, perplexity {perplexity}, seed {seed}) of {parts} principal components"
        if np.isfinite(points).all():
            return Plane(to_square(points), method, float("nan"))
    points = np.pad(few, ((0, 0), (0, 2)))[:, :2]
    return Plane(to_square(points), "the first two principal components", float("nan"))


def to_unit(features: np.ndarray) -> np.ndarray:
    """Features as rows of length one, float64."""
    x = np.asarray(features, np.float64)
    return x / (np.linalg.norm(x, axis=1, keepdims=True) + 1e-12)


def installed() -> str:
    """The library for t-SNE that is installed, "" for none."""
    return next((name for name in ("openTSNE", "sklearn") if importlib.util.find_spec(name)), "")


def principal(x: np.ndarray, count: int) -> np.ndarray:
    """The first principal components of x (N, D): (N, at most `count`). Signs are fixed: the largest loading is > 0."""
    centred = x - x.mean(0)
    _, _, directions = np.linalg.svd(centred, full_matrices=False)
    directions = directions[:count]
    largest = np.take_along_axis(directions, np.abs(directions).argmax(1)[:, None], 1)
    return centred @ (directions * np.where(largest < 0, -1.0, 1.0)).T


def with_opentsne(x: np.ndarray, perplexity: int, seed: int) -> np.ndarray:
    from openTSNE import TSNE  # imported late: it takes a second

    return np.asarray(TSNE(perplexity=perplexity, random_state=seed, n_jobs=1, initialization="pca").fit(x))


def with_sklearn(x: np.ndarray, perplexity: int, seed: int) -> np.ndarray:
    from sklearn.manifold import TSNE  # imported late, as above
    from threadpoolctl import threadpool_limits

    with threadpool_limits(1):  # sums over threads are of no fixed order, and small sets wait more than they compute
        return TSNE(perplexity=perplexity, random_state=seed, init="pca", learning_rate="auto").fit_transform(x)


def to_square(points: np.ndarray) -> np.ndarray:
    """Points moved and scaled into [0, 1], with one scale for both axes."""
    low, high = points.min(0), points.max(0)
    scale = (high - low).max() or 1.0
    return (points - (low + high) / 2) / scale + 0.5


def trustworthiness(x: np.ndarray, points: np.ndarray, near: int = NEAR) -> float:
    """Whether neighbours on the plane are neighbours in x, 0 to 1: Venna and Kaski 2001, as scikit-learn has it.

    NaN for fewer than three times as many points as neighbours.
    """
    count = len(x)
    if count < 3 * near:
        return float("nan")
    away = lambda a: np.square(a).sum(1)[:, None] - 2 * a @ a.T + np.square(a).sum(1)[None] + np.diag([np.inf] * count)
    ranks = np.empty((count, count), np.int64)
    order = np.argsort(away(x), axis=1, kind="stable")
    np.put_along_axis(ranks, order, np.arange(1, count + 1)[None].repeat(count, 0), axis=1)
    close = np.argsort(away(points), axis=1, kind="stable")[:, :near]
    lost = np.maximum(np.take_along_axis(ranks, close, 1) - near, 0).sum()
    return float(1 - 2 * lost / (count * near * (2 * count - 3 * near - 1)))
