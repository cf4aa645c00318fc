"""`evaluate` and the table at the end: each row when it is there, one task alone, a sentence for what can't be told."""

import json
from types import SimpleNamespace

import numpy as np
import pytest

from jax_ssl import __main__ as command
from jax_ssl import config, encoder
from jax_ssl.data.split import Probe
from jax_ssl.errors import UserError
from jax_ssl.evaluate import offline
from jax_ssl.run import identity, results
from jax_ssl.study import evaluation, frozen, measure

FEW = ["--config.data.probe.train=40", "--config.data.probe.test=20"]


def evaluate(capsys, run, *flags):
    """What the verb printed, and what it added to results.jsonl."""
    before = len(results.read_results(run))
    assert command.main(["evaluate", f"--run={run}", *flags]) == 0
    return capsys.readouterr().out, results.read_results(run)[before:]


def test_one_task_alone_and_one_line_about_run_network_and_data(runs, capsys):
    run = runs("simclr")
    printed, records = evaluate(capsys, run, "--task=knn", "--weights=pixels,student", *FEW)
    assert {record["task"] for record in records} == {"knn"} and "linear" not in printed and "kNN" in printed
    assert "at step 3: resnet of 0.0" in printed and "to test on, of embedded" in printed
    assert "measured on 40 labelled" in printed
    printed, records = evaluate(capsys, run, "--task=linear", "--weights=student", "--seed=5", *FEW)
    assert [(record["task"], record["seed"]) for record in records] == [("linear", 5)] and "kNN" not in printed


def test_a_row_is_said_and_recorded_before_the_next_is_measured(runs, monkeypatch):
    run, seen = runs("simclr"), []
    before = len(results.read_results(run))

    def fail(*_, **__):
        seen.append(len(results.read_results(run)) - before)
        raise KeyboardInterrupt

    monkeypatch.setattr(encoder, "outputs", fail)
    said = []
    with pytest.raises(KeyboardInterrupt):
        frozen.measure_frozen(
            str(run), ("knn",), ("pixels", "student"), say=said.append, overrides=[*FEW, "--config.data.eval_size=24"]
        )
    assert seen == [2] and said[-1].startswith("raw pixels ")  # kNN of 10 and of 20


def test_large_images_are_compared_by_small_pixels_and_small_ones_by_their_own():
    random = np.random.RandomState(0)
    images = random.randint(0, 256, (20, 96, 96, 3)).astype(np.uint8)
    train = offline.flat_pixels(images, (0.5,) * 3, (0.25,) * 3)
    assert train.shape == (20, 32 * 32 * 3) and train.dtype == np.float32
    mean = images.reshape(20, 32, 3, 32, 3, 3).mean((2, 4)).reshape(20, -1)
    np.testing.assert_allclose(train, (mean / 255 - 0.5) / 0.25, atol=1.1 / 255 / 0.25)  # it is rounded twice
    small = images[:, :32, :32]
    train = offline.flat_pixels(small, (0.5,) * 3, (0.25,) * 3)
    expected = ((small / np.float32(255) - np.float32(0.5)) / np.float32(0.25)).reshape(20, -1)
    np.testing.assert_array_equal(train, expected)


def test_the_row_of_small_pixels_says_so(runs, capsys):
    run = runs("simclr")
    printed, records = evaluate(capsys, run, "--task=knn", "--weights=pixels", "--config.data.eval_size=48", *FEW)
    assert "raw pixels, at 32 x 32 " in printed
    assert records[0]["weights"] == "pixels" and records[0]["protocol"]["resized_to"] == 32


def features(count, classes, seed=0):
    random = np.random.RandomState(seed)
    return random.randn(count, 8).astype(np.float32), np.arange(count) % classes


@pytest.mark.parametrize("count, classes, found, note", [
    (9, 3, {"knn"}, "at least 10"), (30, 1, set(), "of one class"), (0, 3, set(), "there are 0 and 6"),
    (30, 3, {"knn", "linear"}, None),
])  # fmt: skip
def test_what_can_be_measured_is_and_the_rest_is_a_note(count, classes, found, note):
    train, labels = features(count, classes)
    test, test_labels = features(6, classes, seed=1)
    measured = offline.measure_features(train, test, Probe(None, labels, None, test_labels, classes), seed=-(2**40))
    scores = offline.scores(measured)
    assert scores.keys() == found | ({"rankme"} if count else set())
    assert all("\n" not in text for text in measured.notes)
    assert note is None and not measured.notes or note in measured.notes[-1]
    assert offline.row("student", measured, offline.TASKS).count(" -") == 3 - 2 * ("knn" in found) - (
        "linear" in found
    ) + (not count)


def test_features_that_are_not_finite_are_no_number():
    train, labels = features(30, 3)
    measured = offline.measure_features(train * np.nan, train, Probe(None, labels, None, labels, 3))
    assert offline.scores(measured) == {} and "not finite" in measured.notes[0]


def test_a_run_that_was_measured_on_its_way_is_measured_again_at_its_end(tmp_path):
    line = dict(task="knn", weights="student", step=2)
    (tmp_path / "metrics.jsonl").write_text('{"step": 2}\n{"step": 3}\n{"st')
    assert not measure.has_table(tmp_path)
    (tmp_path / "results.jsonl").write_text(json.dumps(line) + "\n" + '{"task": "kn')
    assert not measure.has_table(tmp_path)
    (tmp_path / "results.jsonl").write_text(json.dumps(line | {"step": 3}) + "\n")
    assert measure.has_table(tmp_path)


def test_a_finished_run_without_labels_is_measured_by_its_own_puzzle(monkeypatch):
    said, measured, bare = [], [], SimpleNamespace(train=SimpleNamespace(labels=None), about="60 images")
    monkeypatch.setattr(evaluation, "rows_of", lambda networks, say: (bare, []))
    monkeypatch.setattr(evaluation.pretext, "measure_pretext", lambda networks, say: measured.append(networks))
    for name in ("rotnet", "simclr"):
        run = SimpleNamespace(settings=config.load(f"{name}:tiny"))
        monkeypatch.setattr(measure, "open_run", lambda folder, say, run=run: run)
        assert evaluation.measure_at_end("runs/mine", said.append) is None
    assert [run.settings.method.name for run in measured] == ["rotnet"]
    assert len(said) == 1 and "There are no labels" in said[0]  # of SimCLR, which has no puzzle


def test_a_table_that_fails_is_one_warning_of_a_finished_run(tmp_path):
    said = []
    settings = config.load("simclr:tiny", ["--config.data.name=synthetic:8"])
    identity.write_config(tmp_path, config.to_dict(settings))
    evaluation.measure_at_end(str(tmp_path), said.append)
    assert len(said) == 1 and "no good checkpoint" in said[0] and f"evaluate --run={tmp_path}" in said[0]


MISTAKES = {
    "no epochs": (["--task=finetune", "--epochs=0"], "--epochs: '0' is not a whole number of at least 1"),
    "no labels": (["--task=finetune", "--labels=0"], "--labels: '0' is not a whole number of at least 1"),
    "fewer than no labels": (["--task=finetune", "--labels=-3"], "--labels: '-3' is not a whole number"),
    "more labels than there are": (["--task=finetune", "--labels=41", *FEW], "there are 40 labelled"),
    "a teacher that there is not": (["--task=knn", "--weights=teacher"], "a run of simclr, without a teacher"),
    "a teacher to tune that there is not": (["--task=finetune", "--weights=teacher"], "without a teacher"),
    "pixels to tune": (["--task=knn,finetune", "--weights=pixels"], "take student or teacher"),
    "objects in pixels": (["--task=emergence", "--weights=pixels", "--images=x"], "take untrained or student"),
    "another network": (["--config.model.width=2.0"], "config.model.width can't be changed in a saved run"),
    "an unknown key": (["--config.nonsense=1"], "no config key 'nonsense'"),
}  # fmt: skip


@pytest.mark.parametrize("mistake", MISTAKES)
def test_one_sentence_and_exit_code_two(mistake, runs, capsys):
    flags, remedy = MISTAKES[mistake]
    assert command.main(["evaluate", f"--run={runs('simclr')}", *flags]) == 2
    said = capsys.readouterr()
    assert remedy in said.err and said.err.count("\n") == 1 and not said.out


def test_an_image_size_that_the_patch_does_not_divide(runs, capsys):
    assert command.main(["evaluate", f"--run={runs('mae')}", "--config.data.eval_size=33"]) == 2
    assert "33" in capsys.readouterr().err


def test_a_missing_teacher_beside_a_student_is_said_and_left_out(runs, capsys):
    printed, records = evaluate(capsys, runs("simclr"), "--task=knn", "--weights=student,teacher", *FEW)
    assert "simclr has no teacher" in printed and {record["weights"] for record in records} == {"student"}


def test_a_config_that_is_damaged_is_named(tmp_path):
    (tmp_path / "config.json").write_text("{")
    with pytest.raises(UserError, match="cannot be read as JSON"):
        measure.load_config(str(tmp_path))
