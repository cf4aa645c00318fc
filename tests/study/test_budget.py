"""A run of so many seconds gets its length from its measured speed, once, and keeps all shares of its schedules."""

import pytest

from jax_ssl import config
from jax_ssl.errors import UserError
from jax_ssl.study import budget
from tests.small import METHODS

SPEED = {"step_ms": 30.0, "flops": 1e9, "device_kind": "cpu", "examples": 1000, "step_ms_low": 29.0}


def test_a_budget_is_measured_once_and_kept(tmp_path, monkeypatch):
    settings = config.load("simclr:tiny", ["--config.batch_size=50"])
    timed = []
    monkeypatch.setattr(budget.step, "measure", lambda *given: timed.append(given) or SPEED)
    found = budget.measure(settings, 6.0, tmp_path)
    assert timed == [(settings, budget.STEPS)] and found["steps"] == 200  # 6 s of 30 ms
    assert found["epochs"] == 200 * 50 / 1000 and found["flops"] == 1e9
    assert budget.read(tmp_path, 6.0) == found
    with pytest.raises(UserError, match="holds a run of 6 seconds: choose another --workdir, or give --seconds=6."):
        budget.read(tmp_path, 7.0)
    assert budget.read(tmp_path / "new", 6.0) is None
    assert budget.measure(settings, 0.001, tmp_path)["steps"] == 1


def test_what_is_counted_in_epochs_keeps_its_share_of_the_run():
    flags = ["--config=swav:tiny", "--config.epochs=2.0", "--config.optim.warmup_epochs=0.5",
             "--config.optim.milestones=(1.0,1.5)", "--config.method.queue_from_epoch=1.0"]  # fmt: skip
    made = budget.limited(flags, {"epochs": 5.0, "steps": 90}, probes=10)
    assert made.epochs == 5.0 and made.optim.warmup_epochs == 1.25 and made.optim.milestones == (2.5, 3.75)
    assert made.method.queue_from_epoch == 2.5 and made.probe_every == 9
    untouched = budget.limited(flags, {"epochs": 5.0, "steps": 90})
    assert untouched.probe_every == config.load("swav:tiny", []).probe_every
    assert made.method.freeze_steps == untouched.method.freeze_steps  # is counted in steps


def test_a_key_whose_name_speaks_of_epochs_is_counted_in_epochs():
    """So a new one can't be forgotten, unless it is outside of optimiser and method."""
    found = set()
    for name in METHODS:
        settings = config.load(name, [])
        counted = set(budget.keys_in_epochs(settings))
        assert set(config.keys_like(settings, "epoch")) - {"epochs"} <= counted
        found |= counted
    of_optim, of_methods = ("late_epochs", "milestones", "warmup_epochs"), ("queue_from_epoch", "warmup_teacher_epochs")
    assert found == {*(f"optim.{key}" for key in of_optim), *(f"method.{key}" for key in of_methods)}
