import numpy as np
import pytest

from jax_ssl.data.split import open_splits
from jax_ssl.evaluate import linear
from jax_ssl.evaluate.case import Case, Side
from jax_ssl.evaluate.offline import Measured
from jax_ssl.study import cases, frozen, measure
from jax_ssl.study.report import facts, features
from tests.study.report.example import make_run
from tests.study.report.test_project import blobs


def test_clusters_find_groups_and_the_largest_comes_first():
    x, groups = blobs()
    x, groups = x[10:], groups[10:]  # ten of the first group are gone
    found = features.clusters_of(x, 3)
    assert len({(a, b) for a, b in zip(found, groups)}) == 3
    assert (np.diff(np.bincount(found)) <= 0).all()
    assert not features.clusters_of(np.ones((5, 2), np.float32), 3).any()


def test_what_was_just_measured_is_not_opened_and_fitted_again(tmp_path, monkeypatch):
    folder = make_run(tmp_path)
    settings = measure.load_config(folder)
    splits = open_splits(settings, lambda line: None)
    labels = splits.test.labels
    x = blobs(each=len(labels))[0][: len(labels)]
    predicted = (labels + (np.arange(len(labels)) == 0)) % splits.classes
    row = cases.Row("student", Case("student", Side(x), Side(x, labels, splits.test), splits.classes), {})
    line = frozen.Line(row, Measured({}, {"predicted": predicted}, 1.0), [])
    table = frozen.Table(measure.Networks(settings, "", "", 3, ("student",), {}), splits, [line])
    for place, name in ((measure, "open_run"), (linear, "fit")):
        monkeypatch.setattr(place, name, lambda *_, **__: pytest.fail("it was done before"))
    seen = features.see(folder, facts.read(folder), table)
    assert seen.confusion.probe == "linear probe"
    assert seen.confusion.accuracy == pytest.approx(1 - 1 / len(x)) and seen.confusion.counts.trace() == len(x) - 1
