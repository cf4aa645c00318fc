"""The script that measures an accelerator: its pieces, and (slow) all of it at a small size on this CPU."""

import json
import os
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest

sys.path.insert(0, str(Path(__file__).parent))  # the script's own files import each other as a script's do

import accelerator  # noqa: E402
import accelerator_children as children  # noqa: E402
import accelerator_timings as timings  # noqa: E402
import parts  # noqa: E402
from accelerator_tasks import TASKS, config_of, in_order  # noqa: E402

from jax_ssl import train  # noqa: E402
from jax_ssl.data import pipeline  # noqa: E402

FED = {"step_ms": 50.0, "least": 49.0, "most": 60.0, "turns": 5, "images_per_second": 10240.0, "utilisation": 0.31}
DEVICE = {"platform": "gpu", "kind": "NVIDIA H100 80GB HBM3", "count": 1, "versions": {"jax": "0.11.2"}}


def nothing_found():
    return accelerator.read(Path("there is no such file"))


def images(count, seed):
    numbers = np.random.RandomState(seed)
    return numbers.randint(0, 256, (count, 8, 8, 3), np.uint8), numbers.randint(0, 10, count).astype(np.uint8)


def test_images_come_back_from_parts_in_folders_of_their_own(tmp_path, monkeypatch):
    monkeypatch.setattr(parts, "AT_ONCE", 4)
    (x_train, y_train), (x_test, y_test) = images(10, 0), images(3, 1)
    arrays = dict(x_train=x_train, y_train=y_train, x_test=x_test, y_test=y_test)
    assert parts.cut(arrays, tmp_path / "all") == 4
    (tmp_path / "all" / "second").mkdir()
    (tmp_path / "all" / "train_001.webp").rename(tmp_path / "all" / "second" / "train_001.webp")
    for name, array in parts.join(tmp_path / "all").items():
        np.testing.assert_array_equal(array, arrays[name])
    (tmp_path / "all" / "second" / "train_001.webp").unlink()
    with pytest.raises(ValueError, match="6 train images and 10 labels"):
        parts.join(tmp_path / "all")


def test_the_embedded_images_are_such_parts():
    folder = Path(pipeline.__file__).parent / "embedded"
    assert parts.join(folder)["x_train"].shape == (5000, 32, 32, 3)


def test_a_share_of_the_clock_begins_with_it():
    now = [0.0]
    clock = children.Clock(100, lambda: now[0])
    now[0] = 30.0
    assert clock.left() == 70 and clock.until(0.5).left() == 20


def test_a_phase_that_fails_is_noted_and_what_was_found_before_is_kept(tmp_path):
    found, out = nothing_found(), tmp_path / "found.json"

    def fail(state, save):
        state["first"] = 1
        save()
        assert json.loads(out.read_text())["timings"] == {"first": 1}
        raise KeyError("no such thing")

    accelerator.noted(found, "timings", out, fail)
    kept = accelerator.read(out)["timings"]
    assert kept["first"] == 1 and kept["error"] == "KeyError: 'no such thing'"
    accelerator.noted(found, "timings", out, lambda state, save: None)
    assert "error" not in accelerator.read(out)["timings"]


def test_a_child_ends_with_its_time(tmp_path):
    waiting = "import time; print('here', flush=True); time.sleep(60)"
    start = time.monotonic()
    ended = children.child(["-c", waiting], 2)
    assert ended.code is None and "here" in ended.output and time.monotonic() - start < 20
    asked = "import signal, sys; signal.signal(15, lambda *a: sys.exit(0)); " + waiting
    assert children.child(["-c", asked], 2, politely=10).code == 0
    assert children.child(["-c", "raise SystemExit(3)"], 60).code == 3


@pytest.mark.parametrize("name", TASKS)
def test_every_task_builds_at_both_sizes(name):
    config = config_of(name, small=False)
    train.build(config, 1000)
    assert config.batch_size == TASKS[name].batch and config.data.augment == "device"
    small = config_of(name, small=True)
    data = pipeline.open_data(small)
    train.build(small, data.source.count)
    assert data.resident.nbytes < 2**24


class Fake:
    """A rival whose answers are known; an Exception among them is raised."""

    def __init__(self, *answers):
        self.answers, self.signals = list(answers), []

    def answer(self, seconds=0.0):
        told = self.answers.pop(0)
        if isinstance(told, Exception):
            raise told
        return dict(told)

    turn = answer

    def signal(self, number):
        self.signals.append(number)


def test_rivals_take_turns_and_the_median_counts():
    facts = {"batch": 100, "model_flops": 4e12, "peak": 1e14}
    ours = Fake(facts, *({"fed": seconds} for seconds in (0.4, 0.1, 0.2)))
    theirs = Fake({"batch": 50}, {"alone": 0.5}, RuntimeError("ended with -9: out of memory"))
    following = Fake()
    told = timings.one({"jax": ours, "torch": theirs}, {"jax": following}, children.Clock(100), turns=3)
    assert told["jax"]["fed"]["images_per_second"] == pytest.approx(500)
    assert told["jax"]["fed"]["utilisation"] == pytest.approx(0.2)
    assert "out of memory" in told["torch"]["error"] and told["torch"]["batch"] == 50
    assert len(following.signals) == 2  # held, and let go


def test_a_process_that_dies_is_an_error_with_its_last_words():
    rival = timings.Rival("jax", "no_such_task", small=True)
    try:
        with pytest.raises(RuntimeError, match="(?s)ended with 2.*no_such_task"):
            rival.answer(60)
    finally:
        timings.stop({"jax": rival})


def test_the_table_says_what_was_found_and_what_went_wrong():
    found = nothing_found() | {"device": DEVICE}
    found["tests"] = {"losses": {"passed": 7, "failed": 1, "cut": False, "failures": ["tests/losses/x.py::y - E"]}}
    ours, theirs = ({"images_per_second": rate} for rate in (12e3, 8e3))
    ours = {"batch": 512, "fed": FED, "alone": ours}
    found["timings"] = {
        "simclr_resnet18": {"goal": 10_000, "jax": ours, "torch": {"alone": theirs}},
        "dino_vit_s": {"jax": {"error": "ended with 1: RESOURCE_EXHAUSTED"}},
        "error": "RuntimeError: it ended",
    }
    found["cifar"] = {"step": 4000, "images_per_second": 15000.0, "done": True, "knn": {"student k=200": 0.848}}
    table = timings.table(found)
    row = next(line for line in table.splitlines() if line.startswith("simclr_resnet18"))
    assert row.split()[1:] == ["512", "50.0", "10,240", "31", "%", "12,000", "8,000", "1.50", "goal", "10,000"]
    for told in ("NVIDIA H100", "7 passed, 1 failed", "x.py::y", "RESOURCE_EXHAUSTED", "it ended", "k=200: 84.8 %"):
        assert told in table, told


def test_what_is_there_is_not_done_again(tmp_path):
    state = {"one file": {"passed": 3, "failed": 0, "cut": False, "failures": []}}
    children.run_tests(state, children.Clock(0), "cpu", small=True)
    assert state["one file"]["passed"] == 3
    state = {"done": True, "knn": {"student k=200": 0.848}}
    children.train_cifar(state, children.Clock(0), tmp_path / "found.run", None, small=True)
    assert state["knn"] == {"student k=200": 0.848}


def test_outcomes_of_pytest_are_read_also_where_its_time_was_over():
    done = "..s.F    [100%]\n= FAILURES =\nFAILED tests/x.py::y - E\n1 failed, 3 passed, 1 skipped in 2.1s\n"
    read = children.outcome(children.Ended(1, done))
    assert read == {"passed": 3, "failed": 1, "cut": False, "failures": ["tests/x.py::y - E"]}
    cut = children.outcome(children.Ended(None, "....F..."))
    assert cut == {"passed": 7, "failed": 1, "cut": True, "failures": []}
    broken = children.outcome(children.Ended(4, "ImportError: no flax\n"))
    assert broken["failed"] == 1 and "no flax" in broken["failures"][0]


def test_without_images_the_run_says_so(tmp_path):
    with pytest.raises(ValueError, match="--data"):
        children.joined(None, tmp_path / "found.run", small=False)


@pytest.mark.slow
def test_all_of_it_at_a_small_size(tmp_path):
    out = tmp_path / "found.json"
    command = [sys.executable, accelerator.__file__, "--small", f"--out={out}"]
    done = subprocess.run(command, capture_output=True, text=True, env=os.environ | {"JAX_SSL_TESTS_ON": "cpu"})
    found = json.loads(out.read_text())
    assert done.returncode == 0, done.stdout + done.stderr
    assert found["device"]["platform"] == "cpu" and found["tests"]["one file"]["passed"] > 3, found
    for name in in_order(True):
        assert found["timings"][name]["jax"]["fed"]["images_per_second"] > 0, found["timings"]
    assert found["cifar"]["done"] and found["cifar"]["knn"], found["cifar"]
    assert "kNN, student" in done.stdout
