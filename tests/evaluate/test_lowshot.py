"""The few labels are balanced and nested, and the network from scratch gets the same; the training is finetune's."""

import dataclasses

import jax
import numpy as np
import pytest

from jax_ssl.errors import UserError
from jax_ssl.evaluate import finetune, lowshot
from jax_ssl.evaluate.case import Case, Side
from tests.evaluate.test_emergence import encoder


@pytest.fixture
def case():
    images = np.arange(400, dtype=np.int64).astype(np.uint8).reshape(400, 1, 1, 1) + np.zeros((1, 16, 16, 3), np.uint8)
    labels = np.arange(400, dtype=np.int32) % 4
    return Case("student", *(Side(None, labels, images) for _ in range(2)), classes=4, encode=encoder())


def test_few_labels_are_balanced_nested_and_the_same_from_scratch(case, monkeypatch):
    calls = []

    def recorded(encode, images, labels, test_images, test_labels, classes, *, scratch, **options):
        calls.append((scratch, {int(image[0, 0, 0]) for image in images}, np.bincount(labels), options))
        assert len(test_images) == len(test_labels) == 100 and classes == 4
        return {"top1": 0.25 + 0.5 * (not scratch), "learning_rate": 1e-3}

    monkeypatch.setattr(finetune, "finetune", recorded)
    found, protocol = lowshot.measure(case, 0, percent=(3, 10), test_images=100)
    assert found == {
        "top1_3_percent": 0.75, "scratch_3_percent": 0.25, "top1_10_percent": 0.75, "scratch_10_percent": 0.25,
    }  # fmt: skip
    small, small_scratch, large, large_scratch = calls
    other = dataclasses.replace(case.encode, variables=jax.tree.map(lambda x: x + 1, case.encode.variables))
    teacher = Case("teacher", case.train, case.test, 4, other, shared=case.shared)
    lowshot.measure(teacher, 0, percent=(10,), test_images=100)
    assert [call[0] for call in calls[4:]] == [False]  # the same from scratch: it is not trained again
    lowshot.measure(case, 0, percent=(10,), epochs=21, test_images=100)
    assert [call[0] for call in calls[5:]] == [False, True]
    assert list(small[2]) == [3] * 4 and list(large[2]) == [10] * 4
    assert small[1] <= large[1] and small[1] == small_scratch[1] and large[1] == large_scratch[1]
    assert [call[0] for call in calls[:4]] == [False, True, False, True]
    assert "pool" not in small[3] and protocol["learning_rate"]["top1_3_percent"] == 1e-3
    lowshot.measure(case, 0, percent=(0.1,), scratch=False, test_images=100)
    assert list(calls[-1][2]) == [1] * 4  # one of each class at least


def test_a_share_that_is_none_is_a_sentence(case):
    for percent in ((0, 10), (1, 101), ()):
        with pytest.raises(UserError, match="above 0, up to 100"):
            lowshot.measure(case, 0, percent=percent)
