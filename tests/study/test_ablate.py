"""A suite from the command to its table: cells run once, stop at a signal, go on, and count only with their config."""

import json
import os
import signal
from pathlib import Path

import pytest
from jax_ssl.configs import ablations

from jax_ssl import __main__ as command
from jax_ssl import config, train
from jax_ssl.study import ablate, budget, charts, frozen
from tests.small import SMALL

FLAGS = [*SMALL["simclr"], "--config.model.stages=(1,)", "--config.log_every=1", "--config.optim.warmup_epochs=0",
         "--config.data.probe.train=200", "--config.data.probe.test=100"]  # fmt: skip
MICRO = ablations.Suite(
    title="A title",
    claim="Two batches differ.",
    source="nobody",
    config="simclr:tiny",
    cells={"batch, 32": ablations.Cell({"batch_size": 32}), "batch, 64": ablations.Cell({"batch_size": 64})},
    axis="images",
    numbers=("knn", "linear", "feature_std", "collapsed", "nothing"),
    budget="four steps and two",
    overrides={"data.name": "synthetic", "epochs": 0.128},
)


@pytest.fixture
def micro(monkeypatch, tmp_path):
    """Runs `ablate` on the micro suite; returns the exit code."""
    monkeypatch.setitem(ablations.SUITES, "micro", MICRO)
    # What a run shows of itself takes most of the time of so short a run, and has its own tests.
    monkeypatch.setattr(train, "draw", lambda *_: None)
    monkeypatch.setattr(train, "measure", lambda *_: {"knn": 0.0, "linear": 0.0})
    return lambda *more: command.main(["ablate", "--suite=micro", f"--workdir={tmp_path}", *FLAGS, *more])


def records(folder):
    return [json.loads(line) for line in (Path(folder) / "ablations.jsonl").read_text().splitlines()]


def killed(monkeypatch, module, name, number, when=lambda *_: True):
    """That function of that module sends the signal to this process, once, before it does its work."""
    real, sent = getattr(module, name), []

    def wrapper(*arguments, **options):
        if not sent and when(*arguments):
            sent.append(os.kill(os.getpid(), number))
        return real(*arguments, **options)

    monkeypatch.setattr(module, name, wrapper)


def test_a_suite_is_stopped_three_times_and_goes_on(micro, hangup, tmp_path, monkeypatch, capsys):
    at_step = lambda step: lambda run, watcher, at, metrics: at == step
    stops = [  # in the middle of training, in its last step, and while the frozen network is measured
        (train, "judge", signal.SIGTERM, at_step(2)),
        (train, "judge", signal.SIGHUP, at_step(4)),
        (frozen, "measure_frozen", signal.SIGINT, lambda *_: True),
    ]
    for module, name, number, when in stops:
        with monkeypatch.context() as patched:
            killed(patched, module, name, number, when)
            assert micro() == 0
        out = capsys.readouterr().out
        assert "\nstopped, all saved; the same command goes on from here\n" in out and "64  seed 0  kNN" not in out
    log = (tmp_path / "micro/batch_32-0/log.txt").read_text()
    assert "going on from step 3" in log and "this run is finished: step 4 of 4" in log

    assert micro() == 0
    out, err = capsys.readouterr()
    first, second = [line for line in out.splitlines() if line.startswith("[")]
    assert first.startswith("[1/2] batch, 32  seed 0  kNN ") and second.startswith("[2/2] batch, 64  seed 0  kNN ")
    assert "  collapsed no  nothing -  " in first and "step 4/4" not in out and err == ""
    found = records(tmp_path)
    assert [(r["suite"], r["cell"], r["seed"], r["steps"]) for r in found] == [
        ("micro", "batch, 32", 0, 4), ("micro", "batch, 64", 0, 2),
    ]  # fmt: skip
    assert found[0]["seconds"] > 0 and found[0]["date"] and "cpu" in found[0]["hardware"]
    spec, *flags = found[0]["overrides"]
    assert found[0]["config"] == config.to_dict(config.load(spec.removeprefix("--config="), flags))
    assert (tmp_path / "micro.png").stat().st_size > 5000
    runs_nothing_more(micro, tmp_path, monkeypatch, capsys)


def runs_nothing_more(micro, tmp_path, monkeypatch, capsys):
    """What is finished is shown and not run, of other seeds too; another config is another cell."""
    monkeypatch.setattr(train, "train", None)
    found = records(tmp_path)
    other = found[0] | {"seed": 1, "config": found[0]["config"] | {"seed": 1}}
    with (tmp_path / "ablations.jsonl").open("a") as file:
        file.write(json.dumps(other) + '\n{"suite": "micro", "cell": "bat')  # a kill tore it
    assert micro() == 0
    assert records(tmp_path) == [*found, other]
    out, text = capsys.readouterr().out, (tmp_path / "micro.md").read_text()
    table = "\n".join(line for line in text.splitlines() if line.startswith("|"))
    assert table in out and table.count("\n") == 3 and "Two batches differ. (nobody)" in text
    assert "| batch, 32 | 2     | " in table and " ± 0.0 (" in table and "| 0 of 2 " in table
    assert "| batch, 64 | 1     | " in table
    told = "Images: synthetic. Other than in the suite: " + " ".join(FLAGS)
    assert out.count(told) == 2 and told in text  # when it begins, and under the table

    assert micro("--config.method.temperature=0.5") == 2  # the run folder
    assert "temperature" in capsys.readouterr().err
    made = ablate.jobs("micro", str(tmp_path / "other"), "0", [*FLAGS, "--config.method.temperature=0.5"])
    assert ablate.finished("micro", made, tmp_path / "ablations.jsonl") == {cell: {} for cell in MICRO.cells}
    older_version_counts(found[0], tmp_path)


def older_version_counts(record, tmp_path):
    """A record without a key that was added since, where the cell has its default."""
    made = ablate.jobs("micro", str(tmp_path / "other"), "0", FLAGS)
    old = record | {"config": record["config"] | {"optim": dict(record["config"]["optim"])}}
    del old["config"]["optim"]["clip_per"], old["config"]["on_collapse"]
    (tmp_path / "old.jsonl").write_text(json.dumps(old) + "\n")
    assert ablate.finished("micro", made, tmp_path / "old.jsonl")[old["cell"]] == {0: old}
    made = ablate.jobs("micro", str(tmp_path / "other"), "0", [*FLAGS, "--config.optim.clip_per=module"])
    assert not any(ablate.finished("micro", made, tmp_path / "old.jsonl").values())


def test_a_report_names_its_images_and_what_differs_from_its_suite(tmp_path):
    setting = lambda *flags: ablate.settings_line(ablate.jobs("mask_ratio", str(tmp_path), "0,1", flags), flags)
    assert setting() == "Images: tfds:cifar10."
    same, other = "--config.epochs=1.0", "--config.data.name=embedded"
    assert setting(same, other) == f"Images: embedded. Other than in the suite: {other}."


def test_means_and_spreads():
    assert ablate.summary("knn", [0.42, 0.44]) == "43.0 ± 1.4 (42.0, 44.0)"
    assert ablate.summary("loss", [1.5]) == "1.500" and ablate.summary("loss", []) == "-"
    assert ablate.summary("collapsed", [True, False, True]) == "2 of 3"
    assert ablate.summary("images", [70144]) == "70,144" and ablate.summary("weights", ["teacher"] * 2) == "teacher"


TIMED = MICRO._replace(
    cells={"pixels": ablations.Cell({}, baseline="pixels"), "batch, 32": ablations.Cell({}, x=2020)},
    overrides={"data.name": "synthetic", "epochs": 1.0, "batch_size": 32},
    numbers=("knn", "images", "tflop", "seconds"), seconds=180.0, probes=2, chart="curves",
)  # fmt: skip


def test_cells_of_equal_seconds(micro, tmp_path, monkeypatch, capsys):
    """Four steps fit into three seconds here; what is measured in between is a curve, and pixels train nothing."""
    monkeypatch.setitem(ablations.SUITES, "micro", TIMED)
    speed = {"step_ms": 750.0, "flops": 5e11, "device_kind": "cpu", "examples": 1000}
    monkeypatch.setattr(budget.step, "measure", lambda *_: speed)
    assert micro("--seconds=3") == 0
    pixels, trained = records(tmp_path)
    assert pixels["steps"] == 0 and 0 < pixels["numbers"].pop("knn") < 1 and set(pixels["numbers"].values()) == {None}
    assert trained["steps"] == 4 and trained["budget"] == 3 and trained["config"]["epochs"] == 1
    assert trained["numbers"]["images"] == 128 and trained["numbers"]["tflop"] == 2
    assert [second for second, *_ in trained["curve"]] == [1.5, 3.0] and trained["seconds"] > 0
    assert json.loads((tmp_path / "micro/batch_32-0/config.json").read_text())["epochs"] == 0.128
    assert (tmp_path / "micro.png").stat().st_size > 5000

    monkeypatch.setattr(train, "train", None)
    capsys.readouterr()
    assert micro("--seconds=3") == 0 and "| batch, 32 | 1     |" in capsys.readouterr().out
    for flag, told in (("--seconds=4", "a run of 3 seconds"), ("--config.epochs=2", "override another key")):
        assert micro(flag) == 2 and told in capsys.readouterr().err


def test_years_are_the_order_of_a_table():
    method = lambda year: ablations.Cell({}, x=year)
    cells = {"b": method(2021), "pixels": ablations.Cell({}, baseline="pixels"), "a": method(2016)}
    text = ablate.table(MICRO._replace(cells=cells, chart="years"), {cell: {} for cell in cells})
    assert [line.split("|")[1:3] for line in text.splitlines()[2:]] == [
        [" pixels ", "      "], [" a      ", " 2016 "], [" b      ", " 2021 "],
    ]  # fmt: skip


@pytest.mark.parametrize("name", ablations.SUITES)
def test_the_shipped_suites_are_whole(name, tmp_path):
    suite = ablations.SUITES[name]
    made = ablate.jobs(name, str(tmp_path), "0,1", [])
    assert len({job.folder for job in made}) == 2 * len(suite.cells)
    assert all(job.settings.epochs == suite.overrides["epochs"] for job in made)
    assert name in ablate.listing() and all(cell in ablate.listing() for cell in suite.cells)
    numbers = {number: True if number == "collapsed" else 0.5 for number in suite.numbers}
    record = {"numbers": numbers, "curve": [(60.0, 0.3, 0.4), (120.0, 0.35, None)]}
    found = {cell: {seed: record for seed in (0, 1)} for cell in suite.cells}
    charts.plot(suite, found, tmp_path / "plot.png")
    assert (tmp_path / "plot.png").stat().st_size > 5000 and "1 of 2" not in ablate.table(suite, found)


@pytest.mark.parametrize("flags, remedy", [
    (["--suite=negative"], "did you mean 'negatives'?"),
    (["--suite=xyz"], "choose one of augmentation"),
    ([], "choose one of augmentation"),
    (["--suite=negatives", "--seeds=0,x"], "whole numbers"),
    (["--suite=negatives", "--seeds=1,1"], "different"),
    (["--suite=negatives", "--seeds=-1"], "whole numbers"),
    (["--suite=negatives", "--config.batch_size=64"], "override another key"),
    (["--suite=negatives", "--seconds=3"], "cells of negatives have --config.epochs"),
    (["--suite=history", "--seconds=0"], "give a positive number"),
    (["--suite=history", "--config.epochs=1"], "override another key"),
    (["--suite=negatives", "--config.seed=3"], "override another key"),
    (["--suite=negatives", "--config.epoch=3"], "did you mean config.epochs?"),
    (["--suite=negatives", "--workdir=/dev/null/runs"], "choose another --workdir"),
    (["--suite=negatives", "--workdir=gs://bucket/runs"], "local folder"),
])  # fmt: skip
def test_mistakes_are_told_before_anything_runs(flags, remedy, tmp_path, monkeypatch, capsys):
    monkeypatch.setattr(train, "train", None)
    workdir = [] if flags and "workdir" in flags[-1] else [f"--workdir={tmp_path}"]
    assert command.main(["ablate", *workdir, *flags]) == 2
    out, err = capsys.readouterr()
    assert out == "" and err.startswith("jax_ssl: ") and err.count("\n") == 1 and remedy in err
