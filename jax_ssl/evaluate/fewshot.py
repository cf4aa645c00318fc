"""How well do one, two, five and ten labelled images of each class tell the classes apart, by nearest neighbours?

Protocol. `shots` training images of each class are drawn, and each test image gets the class that its `shots` nearest
neighbours among them vote for, weighted as in knn.py. Mean and standard deviation over the draws. A draw depends on the
seed and its number alone, and the images of fewer shots are among those of more.

Oquab et al. 2023 (DINOv2), `eval/knn.py`, options n_per_class_list and n_tries; there k goes up to the number of shots.
"""

import numpy as np

from jax_ssl.errors import UserError
from jax_ssl.evaluate import knn, rules

NEEDS = ("labels",)


def measure(case, seed, *, shots=(1, 2, 5, 10), draws=5) -> tuple[dict, dict]:
    """{"top1_N_shots": mean, "top1_N_shots_std": deviation} over the draws, for each N in `shots`, and the protocol."""
    train, labels, test, truth = case.train.features, case.train.labels, case.test.features, case.test.labels
    check(train, labels, test, shots, draws)
    random = np.random.RandomState(rules.seed32(seed))
    orders = [shuffled_by_class(labels, random) for _ in range(draws)]
    numbers = {}
    for count in shots:
        found = []
        for order in orders:
            rows = np.sort(np.concatenate([members[:count] for members in order]))
            predicted = knn.classify(train[rows], labels[rows], test, count, knn.TEMPERATURE, case.classes)
            found.append(np.mean(predicted == truth))
        name = f"top1_{count}_shot{'s' * (count > 1)}"
        numbers |= {name: float(np.mean(found)), f"{name}_std": float(np.std(found))}
    protocol = knn.PROTOCOL | {"name": "fewshot", "temperature": knn.TEMPERATURE, "k": "the number of shots"}
    return numbers, protocol | {"shots": list(shots), "draws": draws}


def shuffled_by_class(labels: np.ndarray, random) -> list[np.ndarray]:
    """For each class the rows of its images, int (n,), in a random order. labels: (N,)."""
    return [random.permutation(np.flatnonzero(labels == label)) for label in np.unique(labels)]


def check(train, labels, test, shots, draws: int) -> None:
    """Raises UserError for features, labels or options that can't be used."""
    rules.check("Few-shot kNN", train, labels, test)
    if draws < 1 or not shots or min(shots) < 1:
        raise UserError(f"Few-shot kNN with shots={shots} and draws={draws} measures nothing: give at least 1 of each.")
    names, counts = np.unique(labels, return_counts=True)
    if counts.min() < max(shots):
        fit = tuple(shot for shot in shots if shot <= counts.min())
        remedy = f"set --config.fewshot.shots={str(fit).replace(' ', '')}" if fit else "label more of them"
        raise UserError(
            f"Few-shot kNN draws {max(shots)} training images of each class, and class {names[counts.argmin()]} has "
            f"{counts.min()}: {remedy}."
        )
