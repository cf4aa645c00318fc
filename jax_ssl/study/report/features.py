"""What a run's network sees in held-out images: their map, their neighbours, and which classes a probe confuses."""

from typing import NamedTuple

import numpy as np

from jax_ssl.data import pipeline, selection
from jax_ssl.data.sources import open_source
from jax_ssl.encoder import at_depth, extract
from jax_ssl.errors import UserError
from jax_ssl.evaluate import knn, linear, offline
from jax_ssl.study import measure
from jax_ssl.study.report import project

MAPPED = 1000  # images of the map, at most
NEAREST = 8
K, TEMPERATURE = 20, 0.07  # of the kNN classifier, where a linear probe would take too long
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


def see(folder, facts) -> Seen:
    """The Seen of a run's newest checkpoint. Raises UserError if there is none, or no images."""
    settings = measure.load_config(folder)
    network = best_network(facts.results)
    saved = measure.open_saved(settings, folder, [network])
    ((_, encode),) = measure.encoders(settings, saved, None)
    encode = at_depth(encode, settings.feature_depth)
    data = pipeline.open_probe(settings)
    if data is None:
        name = settings.data.name
        images = selection.from_source(
            name, settings.data.dir, MAPPED, settings.data.eval_size, settings.data.eval_crop
        )
        about = f"{len(images):,} images of {name}, which have no labels"
        return of_features(network, extract(encode, images), images, [""] * len(images), None, None, about)
    bank, test = (extract(encode, images) for images in (data.train_images, data.test_images))
    confusion = confuse(bank, data.train_labels, test, data.test_labels, data.classes, settings.seed)
    chosen = pipeline.balanced_records(data.test_labels, MAPPED)
    files = [name for number, name in enumerate(names_of(settings, data)) if number in set(chosen.tolist())]
    about = f"{len(chosen):,} images of the {data.split} split of {measure.name_of(settings)}"
    return of_features(
        network, test[chosen], data.test_images[chosen], files, data.test_labels[chosen], confusion, about
    )


def best_network(results: list[dict]) -> str:
    """The student or the teacher: of the newest records of kNN, the one that is better."""
    own = [r for r in results if r.get("task") == "knn" and r.get("weights") in ("student", "teacher")]
    found = {r["weights"]: r["value"] for r in own if r.get("value") is not None}
    return max(sorted(found), key=found.get) if found else "student"


def names_of(settings, data) -> list[str]:
    """What each of the probe's test images is called; "" for all if some could not be read."""
    source = open_source(measure.name_of(settings), data.split, settings.data.dir)
    records = pipeline.balanced_records(source.labels, settings.data.probe.test)
    if len(records) != len(data.test_images):
        return [""] * len(data.test_images)
    return [source.describe(int(record)) for record in records]


def of_features(network, features, images, files, labels, confusion, about) -> Seen:
    """The Seen of features (N, D) of these images."""
    if len(features) < 2 or not np.isfinite(features).all():
        raise UserError("There are no two images with finite features, so there is no map of them.")
    unit = project.to_unit(features)
    similar = unit @ unit.T
    np.fill_diagonal(similar, -np.inf)
    near = np.argsort(-similar, axis=1, kind="stable")[:, :NEAREST][:, : len(unit) - 1]
    same = float("nan") if labels is None else float((labels[near] == labels[:, None]).mean())
    groups = CLUSTERS if labels is None else max(2, len(np.unique(labels)))
    return Seen(
        network, offline.shrink(images, THUMBNAIL), files, labels, project.clusters(unit, min(groups, 20)),
        project.plane(features), near, np.take_along_axis(similar, near, 1), same, confusion, about,
    )  # fmt: skip


def confuse(bank, bank_labels, test, labels, classes: int, seed: int) -> Confusion:
    """Which classes the linear probe confuses, or the kNN classifier where a probe would take long or can't be made."""
    cost = 2 * bank.shape[1] * classes * len(linear.LEARNING_RATES) * linear.MAX_STEPS * linear.BATCH
    if len(bank) >= 10 and cost <= COSTLY:
        probe = "linear probe"
        predicted = np.asarray(linear.predict(linear.fit(bank, bank_labels, classes, seed=seed), test))
    else:
        k = min(K, len(bank))
        probe = f"kNN classifier, k = {k}"
        predicted = np.asarray(knn.classify(bank, bank_labels, test, k, TEMPERATURE, classes))
    counts = np.zeros((classes, classes), np.int64)
    np.add.at(counts, (labels, predicted), 1)
    return Confusion(counts, probe, float((predicted == labels).mean()))
