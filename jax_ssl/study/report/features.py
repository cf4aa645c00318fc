"""What a run's network sees in held-out images: their map, their neighbours, and which classes a probe confuses."""

from typing import NamedTuple

import numpy as np

from jax_ssl.data import pipeline
from jax_ssl.data.split import open_splits
from jax_ssl.errors import UserError
from jax_ssl.evaluate import agreement, knn, linear, offline
from jax_ssl.study import cases, measure
from jax_ssl.study.neighbours import nearest_others
from jax_ssl.study.report import project

MAPPED = 1000  # images of the map, at most
NEAREST = 8
K = 20  # of the kNN classifier, where a linear probe would take too long
COSTLY = 2e12  # multiplications of a linear probe, about ten seconds of two CPU cores
THUMBNAIL = 48  # pixels of an image on the page, at most
CLUSTERS = 10  # where there are no classes


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


def see(folder, facts, say=print) -> Seen:
    """The Seen of a run's newest good checkpoint. Raises UserError if there is none, or no images.

    Features that `evaluate` has kept are used.
    """
    network = best_network(facts.results)
    networks = measure.choose(measure.open_run(folder, say=lambda line: None), [network], say)
    splits = open_splits(networks.settings, say)
    (row,) = cases.rows_of(networks, splits, say)
    test, labels = row.case.test.features, row.case.test.labels
    if labels is None:
        chosen = np.unique(np.linspace(0, len(test) - 1, min(len(test), MAPPED)).astype(int))
        confusion = None
    else:
        chosen = pipeline.balanced_records(labels, MAPPED)
        bank = row.case.train
        confusion = confuse(bank.features, bank.labels, test, labels, splits.classes, networks.settings.seed)
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
    clusters = project.clusters(project.to_unit(features), min(groups, 20))
    small = offline.shrink(images, THUMBNAIL)
    return Seen(network, small, files, labels, clusters, project.plane(features), near, cosines, same, confusion, about)


def confuse(bank, bank_labels, test, labels, classes: int, seed: int) -> Confusion:
    """Which classes the linear probe confuses, or the kNN classifier where a probe would take long or can't be made."""
    cost = 2 * bank.shape[1] * classes * len(linear.LEARNING_RATES) * linear.MAX_STEPS * linear.BATCH
    if len(bank) >= 10 and cost <= COSTLY:
        probe = "linear probe"
        predicted = np.asarray(linear.predict(linear.fit(bank, bank_labels, classes, seed=seed), test))
    else:
        k = min(K, len(bank))
        probe = f"kNN classifier, k = {k}"
        predicted = np.asarray(knn.classify(bank, bank_labels, test, k, knn.TEMPERATURE, classes))
    counts = agreement.contingency(labels, predicted, (classes, classes))
    return Confusion(counts, probe, float((predicted == labels).mean()))
