"""Every second of a run is of one kind, and what a restart cost can be read."""

import json

import pytest

from jax_ssl.run import metrics
from jax_ssl.run.goodput import Account


class Time:
    def __init__(self):
        self.seconds = 1000.0

    def __call__(self):
        return self.seconds


def spend(account, time, **kinds):
    for kind, seconds in kinds.items():
        with account.count_as(kind):
            time.seconds += seconds


def attempt(time, init=2.0):
    """An account of a process that has just begun its loop."""
    account = Account(time, begun=time.seconds)
    time.seconds += init
    return account


def test_every_second_counts_once():
    time = Time()
    account = attempt(time)
    with account.count_as("step"):
        time.seconds += 10
        with account.count_as("data"):
            time.seconds += 3
        time.seconds += 5
        with pytest.raises(KeyError), account.count_as("checkpoint"):
            time.seconds += 1
            raise KeyError
        time.seconds += 4
    time.seconds += 1
    assert account.goodput() == 19 / 26
    seconds = {kind: value for kind, value in account.seconds.items() if value}
    assert seconds == {"init": 3, "step": 19, "data": 3, "checkpoint": 1}
    assert account.sentence() == "0:00:26 in all: 73 % step, 12 % init, 12 % data, 4 % checkpoint"


def test_a_restart_costs_the_steps_since_the_checkpoint_and_the_time_between():
    time = Time()
    first = attempt(time)
    spend(first, time, compile=8.0, step=20.0, data=2.0, checkpoint=1.0)
    first.mark(100)
    spend(first, time, step=30.0, data=3.0)
    record = json.loads(json.dumps(first.record()))
    time.seconds += 60  # killed, and started again a minute later
    second = attempt(time)
    second.resume(record, 100)
    spend(second, time, compile=8.0, step=30.0)
    assert second.record()["seconds"] == {
        "init": 4, "compile": 16, "data": 2, "step": 50, "checkpoint": 1, "evaluation": 0, "pictures": 0,
        "repeated": 33, "down": 60,
    }  # fmt: skip
    assert sum(second.seconds.values()) == time.seconds - 1000
    assert second.goodput() == 50 / 166


def test_a_restart_from_an_older_checkpoint_and_from_none():
    time = Time()
    first = attempt(time)
    for step in (10, 20):
        spend(first, time, step=5.0)
        first.mark(step)
    record = json.loads(json.dumps(first.record()))
    for restored, kept in ((20, 10), (10, 5), (0, 0)):
        again = Account(time, begun=time.seconds)
        again.resume(record, restored)
        assert again.seconds["step"] == kept and again.seconds["repeated"] == 10 - kept
        assert list(again.marks) == [step for step in (10, 20) if step <= restored]


def test_few_marks_are_kept():
    account = Account(Time(), begun=1000.0)
    for step in range(100):
        account.mark(step)
    assert list(account.marks) == list(range(84, 100))


def write(workdir, step, steps):
    writer = metrics.Writer(workdir, step=step, total=100, images_per_step=8)
    for number in steps:
        with writer.clock.account.count_as("step"):
            writer.tick()
        line = writer.update(number, {"loss": 1.0})
        writer.saved(number)
    writer.close()
    return line


def test_the_writer_keeps_the_account_between_attempts(tmp_path):
    assert 0 <= write(tmp_path, None, (10, 20))["goodput"] <= 1
    first = json.loads((tmp_path / "goodput.json").read_text())
    assert list(first["marks"]) == ["10", "20"]
    write(tmp_path, 10, (20, 30))
    second = json.loads((tmp_path / "goodput.json").read_text())
    assert list(second["marks"]) == ["10", "20", "30"] and second["seconds"]["init"] > first["seconds"]["init"]
    assert second["seconds"]["repeated"] > 0
    (tmp_path / "goodput.json").write_text('{"until": 3, "sec')
    write(tmp_path, 30, (40,))  # lost, and no reason to end a run
