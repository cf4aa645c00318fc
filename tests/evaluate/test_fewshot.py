"""Few-shot kNN: what is drawn, what is counted, and what it can't do."""

import numpy as np
import pytest

from jax_ssl.errors import UserError
from jax_ssl.evaluate import fewshot
from jax_ssl.evaluate.case import Case, Side
from tests.evaluate.test_knn import data, oracle


def case(train=203, test=37, classes=7):
    x, labels, y, truth = data(train, test, 16, classes)
    return Case("student", Side(x, labels.astype(np.int32)), Side(y, truth.astype(np.int32)), classes)


def test_it_is_the_mean_of_knn_on_so_many_images_of_each_class():
    given = case()
    numbers, protocol = fewshot.measure(given, 5, shots=(1, 3), draws=2)
    random, found = np.random.RandomState(5), {1: [], 3: []}
    for _ in range(2):
        order = [random.permutation(np.flatnonzero(given.train.labels == label)) for label in range(7)]
        for count, values in found.items():
            rows = np.concatenate([members[:count] for members in order])
            bank, labels = given.train.features[rows], given.train.labels[rows]
            predicted = oracle(bank, labels, given.test.features, count, 0.07, 7)
            values.append(np.mean(predicted == given.test.labels))
    for count, name in ((1, "top1_1_shot"), (3, "top1_3_shots")):
        assert numbers[name] == pytest.approx(np.mean(found[count]))
        assert numbers[f"{name}_std"] == pytest.approx(np.std(found[count]))
    assert protocol["name"] == "fewshot" and protocol["shots"] == [1, 3] and protocol["draws"] == 2
    assert fewshot.measure(given, 6, shots=(1,), draws=2)[0]["top1_1_shot"] != numbers["top1_1_shot"]


def test_fewer_images_of_a_class_than_shots_is_a_sentence():
    given = case(train=21)
    least = np.unique(given.train.labels, return_counts=True)[1].min()
    with pytest.raises(UserError, match=f"draws 30 training images of each class, and class . has {least}: set --conf"):
        fewshot.measure(given, 0, shots=(1, 30))
    with pytest.raises(UserError, match="measures nothing"):
        fewshot.measure(given, 0, shots=(1,), draws=0)
