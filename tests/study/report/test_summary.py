import json

import pytest

from jax_ssl.study.report import facts, summary
from jax_ssl.study.report.facts import Facts


def record(weights, value, task="knn", k=20, **protocol):
    return dict(task=task, weights=weights, metric="top1", value=value, k=k, data="d", split="test", step=9, seed=0,
                protocol=protocol)  # fmt: skip


def run(metrics=(), results=(), log=(), account=None):
    method = {"method": {"name": "simclr"}}
    return Facts(None, method, list(metrics), list(results), {}, account or {}, list(log), {}, {})


PIXELS, ADAPTED = record("pixels", 0.378), record("untrained", 0.31, batch_statistics="statistics adapted")


@pytest.mark.parametrize(("results", "told"), [
    ([PIXELS, record("untrained", 0.286), record("student", 0.44)],
     "kNN rises from 28.6 to 44.0 %; raw pixels reach 37.8 %."),
    ([record("untrained", 0.286), ADAPTED, record("student", 0.30)], "kNN falls from 31.0 to 30.0 %."),
    ([record("student", 0.3), record("teacher", 0.35)], "kNN is at 35.0 %."),
    ([record("untrained", 0.3), record("student", 0.3)], "kNN hardly changes, from 30.0 to 30.0 %."),
    ([record("untrained", 0.5, input="whole, in colour"), record("untrained", 0.2), record("student", 0.3)],
     "kNN rises from 20.0 to 30.0 %."),
    ([record("untrained", 0.3), record("student", 0.31, test_images=1000)], "kNN hardly changes, from 30.0 to 31.0 %."),
    ([record("student", 0.5, "linear", None)], "The linear probe is at 50.0 %."),
    ([], "Nothing is measured yet."),
])  # fmt: skip
def test_the_first_sentence(results, told):
    assert summary.headline(run(results=results)) == told


def test_without_labels_the_loss_is_the_result():
    assert summary.headline(run([{"step": 1, "loss": 2.0}, {"step": 1500, "loss": 1.0}])) == (
        "The loss falls from 2 to 1 between step 1 and step 1,500. Nothing else is measured.")  # fmt: skip


def test_a_second_measurement_replaces_the_first_and_other_protocols_stay():
    again = [record("student", 0.3, learning_rate=0.1), record("student", 0.4, learning_rate=0.3),
             record("student", 0.5, train_images=7), record("student", 0.6, k=10)]  # fmt: skip
    assert [r["value"] for r in summary.newest(again)] == [0.4, 0.5, 0.6]
    assert [row.value for row in summary.rows(again, "knn")] == [0.5]


def test_what_stays_below_pixels_is_said():
    told = summary.remarks(run(results=[PIXELS, record("untrained", 0.2), record("student", 0.3, test_images=1000)]))
    assert told[-1] == "On kNN, these features stay below raw pixels."
    assert "one standard error is 1.4 points" in told[-2]


def test_health():
    lines = [{"step": 1, "skipped": 0, "data_wait_share": 0.5, "feature_std": 0.1}, {"step": 2, "skipped": 3}]
    log = ["length     1 epochs are 1,000 steps of 32 images", "simclr looks collapsed at step 2: all the same",
           "The probe of step 2 failed, and training goes on: x"]  # fmt: skip
    found = {one.name: one for one in summary.health(run(lines, log=log, account={"step": 100.0, "down": 900.0}))}
    assert [one.state for one in found.values()] == ["bad", "look", "look", "look", "look", "look"]
    assert "at step 2 of 1,000" in found["Length"].sentence and "restarts cost 15 min 0 s" in found["Goodput"].sentence
    assert "50 % of the time: try data.augment" in found["Data wait"].sentence
    assert "1 of 2 logged steps" in found["Skipped steps"].sentence


def test_the_nearest_preset_and_the_difference():
    from jax_ssl import config

    stored = config.to_dict(config.load("mae:tiny", ["--config.epochs=7", "--config.method.mask_ratio=0.5"]))
    found = facts.nearest_preset(json.loads(json.dumps(stored)))
    assert found.preset == "mae:tiny"
    assert found.changed == {"epochs": (5.0, 7.0), "method.mask_ratio": (0.75, 0.5)}
    assert facts.nearest_preset({"method": {"name": "mine.own"}}) is None
    assert facts.nearest_preset(config.to_dict(config.load("quickstart"))).preset == "quickstart"


def test_pictures_are_the_newest_of_each_title(tmp_path):
    for name in ("views_0000001.png", "views_0000003.png", "curves.png", "pca_student.png"):
        (tmp_path / name).write_bytes(b"")
    found = facts.newest_pictures(facts.paths.resolve(tmp_path))
    assert {title: path.name for title, path in found.items()} == {
        "pca_student": "pca_student.png", "views": "views_0000003.png"}  # fmt: skip
