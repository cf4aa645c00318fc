"""The loop through its real entry point: it runs, shows itself, and can be killed at any step without a trace."""

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest

from jax_ssl import __main__ as command
from jax_ssl.run import checkpoints, metrics
from tests.devices import xla_flags
from tests.small import METHODS, overrides, shallow

ROOT = Path(__file__).parents[1]
STEP = 32 / 5000  # epochs of one step of 32 embedded images
MEASURED = ("dino",)  # at the end too, which does not depend on the method; test_bucket.py does it for a batch norm
QUIET = ["--config.evaluate_at_end=False", "--config.probe_every=0", "--config.picture_every=0"]


def lines(workdir):
    return [json.loads(line) for line in (Path(workdir) / "metrics.jsonl").read_text().splitlines()]


def flags(name, workdir, steps, *more):
    every = ["--config.log_every=1", "--config.optim.warmup_epochs=0", f"--config.epochs={steps * STEP}"]
    return ["train", f"--config={name}:tiny", f"--workdir={workdir}", *overrides(name, *shallow(name), *every), *more]


def start(arguments, devices):
    """The command in a process of its own, on so many simulated devices."""
    env = os.environ | {"XLA_FLAGS": xla_flags(devices), "PYTHONPATH": str(ROOT)}
    call = [sys.executable, "-m", "jax_ssl", *arguments]
    return subprocess.Popen(call, env=env, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)


def wait_for_step(process, workdir, step):
    """Returns as soon as metrics.jsonl has that step."""
    until = time.time() + 240
    while time.time() < until:
        assert process.poll() is None, process.stdout.read()
        try:
            if lines(workdir)[-1]["step"] >= step:
                return
        except (FileNotFoundError, IndexError, ValueError):
            pass
        time.sleep(0.01)
    raise AssertionError(f"step {step} was never reached")


def assert_equal(a, b):
    """Every array of two checkpoints, bit for bit."""
    assert a.keys() == b.keys()
    for key in a:
        if isinstance(a[key], dict):
            assert_equal(a[key], b[key])
        else:
            np.testing.assert_array_equal(a[key], b[key], err_msg=key)


@pytest.mark.usefixtures("kept_by_nobody")
@pytest.mark.seal(1)
@pytest.mark.seal(6)
@pytest.mark.parametrize("name", METHODS)
def test_trains_on_real_images_and_shows_itself(name, tmp_path, capfd):
    probe = ["--config.data.probe.train=200", "--config.data.probe.test=100", "--config.probe_every=20"]
    measured = name in MEASURED
    end = f"--config.evaluate_at_end={measured}"
    assert command.main(flags(name, tmp_path, 20, *probe, end)) == 0
    seen = lines(tmp_path)
    assert [line["step"] for line in seen] == list(range(1, 21))
    assert all(np.isfinite(line["loss"]) and line["skipped"] == 0 for line in seen)
    assert 0 <= seen[-1]["knn"] <= 1 and seen[-1]["rankme"] >= 1
    pictures = {path.name.rsplit("_", 1)[0] for path in (tmp_path / "pictures").glob("*.png")}
    assert "views" in pictures and (tmp_path / "pictures/curves.png").exists()
    assert pictures - {"views", "local", "curves"}, "a method shows something of its own"
    out, err = capfd.readouterr()
    assert ("raw pixels" in out) == measured and "step 20/20" in out and err == ""
    if measured:
        results = [json.loads(line) for line in (tmp_path / "results.jsonl").read_text().splitlines()]
        assert {"pixels", "untrained", "student"} <= {r["weights"] for r in results}


@pytest.mark.parametrize("name", ["moco", pytest.param("simclr", marks=pytest.mark.slow),
                                  pytest.param("mae", marks=pytest.mark.slow)])  # fmt: skip
def test_killed_three_times_it_ends_bit_identical(name, tmp_path):
    often = [*QUIET, "--config.checkpoint_every=3", "--config.data.probe.name=", "--config.keep_last=1"]
    straight = start(flags(name, tmp_path / "straight", 24, *often), 1)
    killed = flags(name, tmp_path / "killed", 24, *often)
    for step in sorted(np.random.default_rng().integers(1, 23, 3)):
        process = start(killed, 1)
        wait_for_step(process, tmp_path / "killed", step)
        process.send_signal(signal.SIGKILL)
        process.communicate()
    last = start(killed, 1)
    assert last.wait(240) == 0, last.stdout.read()
    assert straight.wait(240) == 0, straight.stdout.read()
    both = [checkpoints.load_raw(tmp_path / folder / "checkpoints") for folder in ("straight", "killed")]
    assert both[0][1] == both[1][1] == 24
    assert_equal(both[0][0], both[1][0])
    steps = [line["step"] for line in lines(tmp_path / "killed")]
    assert steps == list(range(1, 25))


def stop_at(monkeypatch, step):
    """A SIGTERM to this process in that step."""
    ticks = iter(range(1, 100))
    tick = lambda self: os.kill(os.getpid(), signal.SIGTERM) if next(ticks) == step else None
    monkeypatch.setattr(metrics.Writer, "tick", tick)


def test_resumed_on_fewer_devices_it_goes_the_same_way(tmp_path, monkeypatch, capsys):
    """On the eight devices of this process, then on four, then on two."""
    small = [*QUIET, "--config.model.stages=(1,)"]
    assert command.main(flags("simclr", tmp_path / "straight", 9, *small)) == 0
    moved = flags("simclr", tmp_path / "moved", 9, *small)
    with monkeypatch.context() as patch:
        stop_at(patch, 3)
        assert command.main(moved) == 0
    assert "stopped at step 3 of 9, all saved; the same command goes on from here" in capsys.readouterr().out
    process = start(moved, 4)
    wait_for_step(process, tmp_path / "moved", 6)
    process.send_signal(signal.SIGTERM)
    said, _ = process.communicate(timeout=240)
    assert process.returncode == 0 and "the same command goes on from here" in said
    last = start(moved, 2)
    assert last.wait(240) == 0, last.stdout.read()
    losses = [[line["loss"] for line in lines(tmp_path / folder)] for folder in ("straight", "moved")]
    assert len(losses[0]) == 9
    np.testing.assert_allclose(losses[1], losses[0], rtol=1e-5)
