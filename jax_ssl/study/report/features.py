"""What a run's network sees in held-out images: their map, their neighbours, and which classes a probe confuses."""

from typing import NamedTuple

import numpy as np

from jax_ssl.data import pipeline
from jax_ssl.data.split import open_splits
from jax_ssl.errors import UserError
from jax_ssl.evaluate import agreement, cluster, knn, linear, offline
from jax_ssl.evaluate.case import Case
from jax_ssl.study import cases, frozen, measure
from jax_ssl.study.neighbours import nearest_others
from jax_ssl.study.report import project

MAPPED = 1000  # images of the map, at most
NEAREST = 8
K = 20  # of the kNN classifier, where a linear probe would take too long
COSTLY = 2e12  # multiplications of a linear probe, about ten seconds of two CPU cores
THUMBNAIL = 48  # pixels of an image on the page, at most
CLUSTERS = 10  # where there are no classes
MOST_CLUSTERS = 20


class Confusion(NamedTuple):
    """counts: int (C, C), rows are true classes. probe: what classified. accuracy: a fraction."""

    counts: np.ndarray
    probe: str
    accuracy: float


class Seen(NamedTuple):
    """N held-out images through one network. Letters: s pixels."""

    network: str  # student or teacher
    images: np.ndarray  # uint8 (N, s, s, 3)
    files: list[str]  # what each is called, "" where that is not known
    labels: np.ndarray | None  # int (N,)
    clusters: np.ndarray  # int (N,), of k-means
    plane: project.Plane
    neighbours: np.ndarray  # int (N, NEAREST), the nearest first
    similarities: np.ndarray  # cosines, float (N, NEAREST)
    same: float  # share of the neighbours that have the class of their image; NaN without labels
    confusion: Confusion | None
    about: str  # which images these are


def see(folder, facts, table: frozen.Table | None = None, say=print) -> Seen:
    """The Seen of a run's newest good checkpoint. Raises UserError if there is none, or no images.

    table: what was measured of the run already; without it, features that `evaluate` has kept are used.
    """
    network, measured = best_network(facts.results), {}
    if table is None:
        networks = measure.choose(measure.open_run(folder, say=lambda line: None), [network], say)
        splits = open_splits(networks.settings, say)
        (row,) = cases.rows_of(networks, splits, say)
    else:
        networks, splits, lines = table
        row, measured = next((line.row, line.measured.linear) for line in lines if line.row.label == network)
    test, labels = row.case.test.features, row.case.test.labels
    if labels is None:
        chosen = np.unique(np.linspace(0, len(test) - 1, min(len(test), MAPPED)).astype(int))
        confusion = None
    else:
        chosen = pipeline.balanced_records(labels, MAPPED)
        probe, predicted = "linear probe", measured.get("predicted")
        if predicted is None:
            probe, predicted = classify(row.case, networks.settings.seed)
        counts = agreement.contingency(labels, predicted, (splits.classes, splits.classes))
        confusion = Confusion(counts, probe, float((predicted == labels).mean()))
        labels = labels[chosen]
    files = [splits.test.source.describe(int(record)) for record in splits.test.records[chosen]]
    part = f"the {splits.split} split" if labels is not None else "every tenth image"
    about = f"{len(chosen):,} images of {part} of {measure.name_of(networks.settings)}"
    return of_features(network, test[chosen], splits.test[chosen], files, labels, confusion, about)


def best_network(results: list[dict]) -> str:
    """The student or the teacher: of the newest records of kNN, the one that is better."""
    own = [r for r in results if r.get("task") == "knn" and r.get("weights") in ("student", "teacher")]
    found = {r["weights"]: r["value"] for r in own if r.get("value") is not None}
    return max(sorted(found), key=found.get) if found else "student"


def of_features(network, features, images, files, labels, confusion, about) -> Seen:
    """The Seen of features (N, D) of these images."""
    if len(features) < 2 or not np.isfinite(features).all():
        raise UserError("There are no two images with finite features, so there is no map of them.")
    near, cosines = nearest_others(np.asarray(features, np.float32), min(NEAREST, len(features) - 1))
    same = float("nan") if labels is None else float((labels[near] == labels[:, None]).mean())
    groups = CLUSTERS if labels is None else max(2, len(np.unique(labels)))
    clusters = clusters_of(features, min(groups, MOST_CLUSTERS, len(features)))
    small = offline.shrink(images, THUMBNAIL)
    return Seen(network, small, files, labels, clusters, project.plane(features), near, cosines, same, confusion, about)


def clusters_of(features: np.ndarray, count: int) -> np.ndarray:
    """The cluster of each feature (N, D) by k-means, the largest first: int (N,). One cluster if all are the same."""
    if (features == features[:1]).all():
        return np.zeros(len(features), int)
    found = np.asarray(cluster.assign(features, cluster.fit(features, count, starts=1)[0]))
    order = np.argsort(-np.bincount(found, minlength=count), kind="stable")
    return np.argsort(order)[found]


def classify(case: Case, seed: int) -> tuple[str, np.ndarray]:
    """(what classifies, its class of each test image): the linear probe, or kNN where a probe would take long."""
    bank, labels, test = case.train.features, case.train.labels, case.test.features
    cost = 2 * bank.shape[1] * case.classes * len(linear.LEARNING_RATES) * linear.MAX_STEPS * linear.BATCH
    if len(bank) >= 10 and cost <= COSTLY:
        fitted = linear.fit(bank, labels, case.classes, seed=seed)
        return "linear probe", np.asarray(linear.predict(fitted, test))
    k = min(K, len(bank))
    predicted = knn.classify(bank, labels, test, k, knn.TEMPERATURE, case.classes)
    return f"kNN classifier, k = {k}", np.asarray(predicted)
