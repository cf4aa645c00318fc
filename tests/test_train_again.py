"""The same folder again: a run that is finished, longer, on other images, in use, ruined, on a full disk."""

import json
import os
import shutil

import numpy as np
import pytest

from jax_ssl import __main__ as command
from jax_ssl.errors import UserError
from jax_ssl.run import collapse, lock, manifest
from jax_ssl.study import evaluation
from tests.test_train import QUIET, flags, lines

STEPS = 2


def arguments(workdir, steps=STEPS, *more):
    quick = [*QUIET, "--config.data.probe.name=", "--config.checkpoint_every=1", "--config.model.stages=(1,)"]
    return flags("simclr", workdir, steps, *quick, *more)


@pytest.fixture(scope="module")
def images(tmp_path_factory):
    path = tmp_path_factory.mktemp("images") / "images.npz"
    np.savez(path, images=np.random.default_rng(0).integers(0, 256, (32, 32, 32, 3), np.uint8))
    return path


def on(images, workdir, epochs, *more):
    """A run on an array file of 32 images: an epoch is a step."""
    return arguments(workdir, 1, f"--config.data.name=arrays:{images}", f"--config.epochs={epochs}", *more)


@pytest.fixture(scope="module")
def finished(tmp_path_factory, images):
    folder = tmp_path_factory.mktemp("finished")
    assert command.main(on(images, folder, STEPS)) == 0
    return folder


@pytest.fixture
def run(finished, tmp_path):
    """A copy of the finished run."""
    return shutil.copytree(finished, tmp_path / "run")


def test_a_finished_run_says_so_and_names_the_way_to_more(run, images, monkeypatch, capsys):
    assert command.main(on(images, run, STEPS)) == 0
    said = capsys.readouterr().out
    assert "this run is finished: step 2 of 2, 2 epochs" in said and "--extend" in said and "going on" not in said
    assert command.main(on(images, run, 4)) == 2
    assert "a run of 2 epochs, and this is one of 4; add --extend" in capsys.readouterr().err
    best = []
    monkeypatch.setattr(collapse.Watch, "recall", lambda watch, value: best.append(value))
    assert command.main([*on(images, run, 4), "--extend"]) == 0
    assert best[0] == min(line["uniformity"] for line in lines(run)[:STEPS]) < 0
    said = capsys.readouterr().out
    assert "extended from 2 to 4 epochs, 2 to 4 steps" in said and "learning rate goes from 0 to" in said
    assert "going on from step 2" in said and [line["step"] for line in lines(run)] == [1, 2, 3, 4]
    assert json.loads((run / "config.json").read_text())["epochs"] == 4
    assert command.main([*on(images, run, 4), "--extend"]) == 0, "a launcher repeats the flag too"
    assert "step 4 of 4" in capsys.readouterr().out
    assert command.main([*on(images, run, 2), "--extend"]) == 2


def test_what_is_advised_on_the_way_is_not_refused(run, images):
    advised = ["--config.data.broken_limit=0.5", "--config.log_every=2", "--config.evaluate_at_end=False"]
    assert command.main([*on(images, run, STEPS), *advised]) == 0
    assert json.loads((run / "config.json").read_text())["data"]["broken_limit"] == 0.5


def test_another_number_of_images_is_refused(run, images, tmp_path, capsys):
    more = tmp_path / images.name
    np.savez(more, images=np.zeros((64, 32, 32, 3), np.uint8))
    config = json.loads((run / "config.json").read_text())
    config["data"]["name"] = f"arrays:{more}"
    (run / "config.json").write_text(json.dumps(config))
    assert command.main(on(more, run, STEPS)) == 2
    assert "32 images then, 64 now" in capsys.readouterr().err


def test_a_first_try_that_saved_nothing_holds_nobody_up(run, images, capsys):
    shutil.rmtree(run / "checkpoints")
    assert command.main(on(images, run, STEPS, "--config.batch_size=16")) == 0
    said = capsys.readouterr().out
    assert "begins anew with the new config (batch_size: 16 instead of 32)" in said
    assert [line["step"] for line in lines(run)] == [1, 2, 3, 4]
    assert json.loads((run / "config.json").read_text())["batch_size"] == 16


def test_a_second_command_at_once_is_refused_and_touches_nothing(run, images, capsys):
    before = {path: path.read_bytes() for path in run.rglob("*") if path.is_file()}
    with lock.exclusive(run):
        assert command.main(on(images, run, STEPS)) == 2
        assert command.main(["evaluate", f"--run={run}", "--task=knn", "--weights=student"]) == 2
    told = capsys.readouterr().err.splitlines()
    assert f"in use by process {os.getpid()}" in told[0] and "no labels" in told[1].replace("no labelled", "no labels")
    assert {path: path.read_bytes() for path in run.rglob("*") if path.is_file()} == before


def test_no_other_command_may_write_while_a_finished_run_is_evaluated(run, images, monkeypatch):
    refused = []

    def evaluate(workdir, say):
        with pytest.raises(UserError, match="in use by process"), lock.exclusive(workdir):
            pass
        refused.append(workdir)

    monkeypatch.setattr(evaluation, "measure_at_end", evaluate)
    assert command.main(on(images, run, STEPS, "--config.evaluate_at_end=True")) == 0
    assert refused == [str(run)] and not (run / "lock.json").exists()


def test_a_ruined_run_names_a_network_from_before_the_trouble(images, tmp_path, capsys):
    """The first step has a learning rate of zero; the second ruins the network, whose weights are finite."""
    ruinous = ["--config.optim.base_lr=1e30", "--config.optim.warmup_epochs=100", "--config.max_skipped=4"]
    assert command.main(on(images, tmp_path / "run", 200, *ruinous, "--config.optim.name=sgd")) == 4
    capsys.readouterr()
    assert command.main(on(images, tmp_path / "run", 200, *ruinous, "--config.optim.name=sgd")) == 4
    assert "no step after it was finite" in capsys.readouterr().out
    assert command.main(on(images, tmp_path / "run", 200, *ruinous, "--config.optim.name=sgd")) == 4
    good = tmp_path / "run/checkpoints/1"
    assert f"the last good checkpoint is {good}" in (said := capsys.readouterr().err) and f"init_from={good}" in said
    start = on(images, tmp_path / "next", 1, f"--config.init_from={good}")
    assert command.main(start) == 0
    assert f"of {good}" in capsys.readouterr().out
    assert lines(tmp_path / "next")[0]["feature_std"] > 0.01
    assert command.main(on(images, tmp_path / "whole", 1, f"--config.init_from={tmp_path}/run")) == 0
    assert lines(tmp_path / "whole")[0]["loss"] == lines(tmp_path / "next")[0]["loss"], (
        "the run's folder means the same"
    )


def test_a_full_disk_ends_a_run_as_launchers_repeat(images, tmp_path, monkeypatch, capsys):
    def full(*args, **keywords):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(manifest, "write", full)
    assert command.main(on(images, tmp_path / "run", STEPS)) == 1
    assert "the disk is full" in (said := capsys.readouterr().err) and said.count("\n") == 1
    monkeypatch.undo()
    assert command.main(on(images, tmp_path / "run", STEPS)) == 0
