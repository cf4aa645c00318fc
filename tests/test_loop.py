"""What surrounds the steps: saved first and measured then, a failed probe is a warning, and the first lines tell."""

import functools
import json
from pathlib import Path

import jax.numpy as jnp
import pytest

from jax_ssl import __main__ as command
from jax_ssl import encoder, train
from jax_ssl.evaluate import offline
from jax_ssl.methods import simclr
from jax_ssl.run import checkpoints, probe, progress
from jax_ssl.visualize import shown
from tests.small import overrides
from tests.test_train import STEP, lines

PROBE = ["--config.data.probe.train=100", "--config.data.probe.test=50"]


def run(workdir, steps, *more):
    """The exit code of a small SimCLR of so many steps."""
    length = [f"--config.epochs={steps * STEP}", "--config.optim.warmup_epochs=0.02"]
    length += [] if any("evaluate_at_end" in flag for flag in more) else ["--config.evaluate_at_end=False"]
    length = [flag for flag in length if flag.split("=")[0] not in {other.split("=")[0] for other in more}]
    small = overrides("simclr", "--config.model.stages=(1,)", *length, *PROBE, *more)
    return command.main(["train", "--config=simclr:tiny", f"--workdir={workdir}", *small])


def log(workdir):
    return (Path(workdir) / "log.txt").read_text()


def test_what_fails_beside_training_is_one_line_and_training_goes_on(tmp_path, monkeypatch):
    def fail(*_, **__):
        raise ValueError("no room\nand more that nobody reads")

    monkeypatch.setattr(train.offline, "measure", fail)
    monkeypatch.setattr(shown, "save", fail)
    assert run(tmp_path, 4, "--config.log_every=1", "--config.probe_every=2", "--config.picture_every=2") == 0
    said = [line for line in log(tmp_path).splitlines() if "failed, and training goes on" in line]
    assert [line.partition("  ")[2].split(" failed")[0] for line in said] == [
        f"The {work} of step {step}" for step in (2, 4) for work in ("probe", "pictures")
    ]
    assert all(line.endswith("ValueError: no room") for line in said)
    assert [line["step"] for line in lines(tmp_path)] == [1, 2, 3, 4]
    assert checkpoints.load_raw(tmp_path / "checkpoints")[1] == 4


def test_a_step_is_saved_before_it_is_measured_and_drawn(tmp_path, monkeypatch):
    order, save, measure, draw = [], checkpoints.Checkpoints.save, train.measure, train.draw
    make, compiled = simclr.make, []

    @functools.wraps(make)  # its keywords are the keys of a config
    def make_noting(*args, **keywords):
        method = make(*args, **keywords)
        return method._replace(show=lambda *given: compiled.append(1) or method.show(*given))

    monkeypatch.setattr(simclr, "make", make_noting)

    def note(name, function, step_of):
        def noted(*args, **kwargs):
            order.append((name, step_of(args)))
            return function(*args, **kwargs)

        return noted

    monkeypatch.setattr(checkpoints.Checkpoints, "save", note("save", save, lambda args: args[1]))
    monkeypatch.setattr(train, "measure", note("measure", measure, lambda args: int(args[1].step)))
    monkeypatch.setattr(train, "draw", note("draw", draw, lambda args: args[3]))
    assert run(tmp_path, 4, "--config.checkpoint_every=2", "--config.probe_every=2", "--config.picture_every=2") == 0
    assert order == [(name, step) for step in (2, 4) for name in ("save", "measure", "draw")]
    assert len(compiled) == 1, "the program of the pictures is made once"


def test_probes_come_when_they_are_due_whatever_is_logged(tmp_path, monkeypatch):
    monkeypatch.setattr(progress.Counter, "EVERY", 0.0)
    kinds, paused = [], progress.Clock.paused
    monkeypatch.setattr(progress.Clock, "paused", lambda clock, kind: kinds.append(kind) or paused(clock, kind))
    monkeypatch.setattr(encoder, "LARGE", 16)
    monkeypatch.setattr(encoder, "ROOM", 1)  # so that eight images pass at once, one on each device
    assert run(tmp_path, 10, "--config.probe_every=4", "--config.log_every=3", "--config.picture_every=0") == 0
    assert [line["step"] for line in lines(tmp_path)] == [3, 4, 6, 8, 9, 10]
    assert [line["step"] for line in lines(tmp_path) if "knn" in line] == [4, 8, 10]
    words = [" ".join(line.partition("  ")[2].split()[:2]) for line in log(tmp_path).splitlines()]
    assert kinds[:2] == ["init", "compile"], "reading images counts as no step"
    read = words.index("reading the")
    assert words[read - 1].startswith("writes") and words[read + 1].startswith("step 3"), "the first lines do not wait"


def test_a_note_of_the_probe_is_said_once_in_a_run(tmp_path, monkeypatch):
    measured = offline.Measured({}, {}, 1.0, notes=("A linear probe needs more labels.",))
    monkeypatch.setattr(offline, "measure", lambda *_, **__: measured)
    assert run(tmp_path, 4, "--config.probe_every=1", "--config.log_every=1", "--config.picture_every=0") == 0
    assert log(tmp_path).count("A linear probe needs more labels.") == 1


def test_the_first_lines_and_the_schedules(tmp_path, monkeypatch, capsys):
    monkeypatch.delattr(probe, "read")  # what is never measured on is not read
    flags = ["--config.log_every=1", "--config.probe_every=0", "--config.optim.final_weight_decay=0.5"]
    assert run(tmp_path, 6, *flags, "--config.optim.base_lr=0.08") == 0
    said = capsys.readouterr().out.splitlines()
    head = said[: next(number for number, line in enumerate(said) if line.startswith("step"))]
    names = [line.split()[0] for line in head]
    assert len(head) <= 12 and {"method", "data", "measured", "length", "optimiser", "devices", "writes"} <= set(names)
    assert len({line.index(line.split()[1]) for line in head}) == 1, "aligned"
    fact = {name: line for name, line in zip(names, head)}
    assert "peak learning rate 0.01 after 4 steps" in fact["optimiser"] and "6 steps of 32" in fact["length"]
    assert "never (probe_every=0)" in fact["measured"] and not any("knn" in line for line in lines(tmp_path))
    assert str(tmp_path) in fact["writes"] and "simclr" in fact["method"] and "embedded" in fact["data"]
    rates = [line["learning_rate"] for line in lines(tmp_path)]
    assert rates[0] == 0 and max(rates) == pytest.approx(0.01, rel=0.05) and rates[-1] < max(rates)
    assert lines(tmp_path)[-1]["weight_decay"] > lines(tmp_path)[0]["weight_decay"]


def test_a_run_of_which_no_step_counted_is_no_good_end(tmp_path, monkeypatch, capsys):
    monkeypatch.setattr(simclr, "nt_xent", lambda z1, z2, temperature: jnp.float32("nan") * z1.sum())
    assert run(tmp_path, 4, "--config.probe_every=0", "--config.evaluate_at_end=True") == 4
    assert "None of the 4 steps" in capsys.readouterr().err
    assert not (tmp_path / "results.jsonl").exists()


def test_without_enough_labels_a_run_says_why_it_measures_nothing(tmp_path):
    import numpy as np

    np.savez(tmp_path / "few.npz", images=np.zeros((40, 32, 32, 3), np.uint8))
    assert run(tmp_path / "run", 1, f"--config.data.name=arrays:{tmp_path}/few.npz", "--config.epochs=1") == 0
    assert "nothing while it trains: the images have no labels" in log(tmp_path / "run")
    assert json.loads((tmp_path / "run/config.json").read_text())["epochs"] == 1
