"""A method, a network and a measure outside the repository: the files of docs/own_method.md, as they stand there."""

import json
import re
import sys
from pathlib import Path

import pytest

from jax_ssl import __main__ as command
from jax_ssl import config, train
from jax_ssl.run import checks
from jax_ssl.weights import load
from tests.study.test_ablate import killed
from tests.test_train import QUIET, STEP, lines

PAGE = (Path(__file__).parents[1] / "docs" / "own_method.md").read_text()
FILES = dict(re.findall(r"^`(mine/\w+\.py)`\n\n```python\n(.*?)^```$", PAGE, re.M | re.S))
SMALL = ["--config.batch_size=32", "--config.model.width=16", "--config.log_every=1", "--config.optim.warmup_epochs=0",
         f"--config.epochs={4 * STEP}", "--config.data.probe.train=200", "--config.data.probe.test=100"]  # fmt: skip
TRAIN = ["train", "--config=mine/config.py", "--workdir=run", *SMALL, *QUIET]


def forget():
    for name in [name for name in sys.modules if name.split(".")[0] == "mine"]:
        del sys.modules[name]


@pytest.fixture
def home(tmp_path, monkeypatch):
    """A folder with `mine` in it, in which commands are given; nothing is imported from it before or after."""
    for name, text in FILES.items():
        (tmp_path / "home" / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / "home" / name).write_text(text)
    monkeypatch.chdir(tmp_path / "home")
    monkeypatch.setattr(sys, "path", list(sys.path))
    forget()
    yield tmp_path / "home"
    forget()


def said(capsys, *arguments):
    """What stderr got of a mistake."""
    assert command.main([*arguments]) == 2
    return capsys.readouterr().err


def test_the_page_has_its_files():
    assert set(FILES) == {"mine/method.py", "mine/network.py", "mine/measure.py", "mine/config.py"}


def test_a_run_of_them_does_all_that_runs_do(home, tmp_path, monkeypatch, capsys):
    with monkeypatch.context() as patched:
        killed(patched, train, "judge", 15, lambda run, watcher, step, metrics: step == 2)
        assert command.main(TRAIN) == 0
    assert command.main(TRAIN) == 0
    assert "going on from step" in (home / "run/log.txt").read_text()
    steps = lines(home / "run")
    assert [line["step"] for line in steps] == [1, 2, 3, 4] and "uniformity_loss" in steps[0]

    assert command.main(["evaluate", "--run=run", "--task=mine.measure"]) == 0
    out = capsys.readouterr().out
    results = [json.loads(line) for line in (home / "run/results.jsonl").read_text().splitlines()]
    assert [(r["task"], r["weights"], r["metric"], r["step"], r["seed"]) for r in results] == [
        ("mine.measure", weights, "nearest_mean", 4, 0) for weights in ("untrained", "student")
    ]  # fmt: skip
    assert all(0 <= r["value"] <= 1 and r["protocol"]["train_images"] == 200 for r in results)
    assert re.search(r"^mine.measure +nearest_mean\nuntrained .*\nstudent .*$", out, re.M)

    assert command.main(["evaluate", "--run=run", "--task=knn", "--weights=student"]) == 0
    assert command.main(["visualize", "--run=run", "--what=pca,views", "--count=2"]) == 0
    assert command.main(["benchmark", "--config=mine/config.py", "--steps=1", *SMALL]) == 0
    assert load(home / "run").backbone.width == 16

    elsewhere(home, tmp_path, monkeypatch, capsys)


def elsewhere(home, tmp_path, monkeypatch, capsys):
    """From another folder: a sentence, and then, with the modules on the path, the same as at home."""
    forget()
    (tmp_path / "elsewhere").mkdir()
    monkeypatch.chdir(tmp_path / "elsewhere")
    other = [flag.replace("=mine/", f"={home}/mine/").replace("=run", f"={home}/run") for flag in TRAIN]
    for arguments in (other, ["evaluate", f"--run={home}/run"], ["visualize", f"--run={home}/run"]):
        told = said(capsys, *arguments)
        assert told.count("\n") == 1 and "PYTHONPATH" in told and ".name=mine." in told
    monkeypatch.syspath_prepend(home)
    assert command.main(other) == 0
    assert command.main(["visualize", f"--run={home}/run", "--what=pca", "--count=2"]) == 0


def test_the_trunk_that_plan_compiles_is_built_of_them(home):
    settings = config.load("mine/config.py", SMALL)
    checks.check(settings, 8)
    method, _, clock = train.build(settings, 5000)
    assert method.min_batch == 2 and clock.total_steps == 4


@pytest.mark.slow
def test_they_are_planned(home, capsys):
    pytest.importorskip("libtpu")
    assert command.main(["plan", "--config=mine/config.py", "--topology=v3:2x2", "--quick", *SMALL]) == 0
    assert "fits" in capsys.readouterr().out


BROKEN = {  # what stands in the method's file: the sentence, and what the traceback shows
    "an error of Python's": ("def make(:\n", "SyntaxError", "def make(:"),
    "a module that is not installed": ("import torchh\n", "No module named 'torchh'", "import torchh"),
    "an error while it is imported": ("1 / 0\n", "ZeroDivisionError: division by zero", "1 / 0"),
}


@pytest.mark.parametrize("name", BROKEN)
def test_what_fails_in_them_is_shown_as_theirs(name, home, capsys):
    text, sentence, line = BROKEN[name]
    (home / "mine/method.py").write_text(text)
    first, *trace = said(capsys, *TRAIN).splitlines()
    assert first.startswith("jax_ssl: method.name=mine.method can't be imported: ") and sentence in first
    assert line in "\n".join(trace) and "jax_ssl/" not in "\n".join(trace) and "importlib" not in "\n".join(trace)


def test_what_fails_in_their_make_is_shown_as_theirs_too(home, capsys):
    file, text = home / "mine/method.py", FILES["mine/method.py"]
    file.write_text(text.replace("    net = ", "    nett = net + 1\n    net = "))
    first, *trace = said(capsys, *TRAIN).splitlines()
    assert first.startswith("jax_ssl: make of method.name=mine.method failed: UnboundLocalError")
    assert "nett = net + 1" in "\n".join(trace) and "jax_ssl/" not in "\n".join(trace)
    forget()
    file.write_text(text.replace("return Method(init, loss, min_batch=2)", "pass"))
    assert "returns a NoneType" in said(capsys, *TRAIN)


@pytest.mark.parametrize("text, remedy", [
    ("from jax_ssl.configs import simclr\ndef get_config():\n    return simclrr\n", "NameError: name 'simclrr'"),
    ("def get_config():\n    return {}\n", "get_config has to return a ConfigDict"),
    ("base = 1\n", "has no attribute 'get_config'"),
    ("def get_config(:\n", "SyntaxError"),
])  # fmt: skip
def test_a_wrong_config_of_their_own_is_one_sentence(text, remedy, home, capsys):
    (home / "mine/config.py").write_text(text)
    told = said(capsys, *TRAIN)
    assert told.count("\n") == 1 and remedy in told and ("line 3 of" in told) == ("NameError" in told)


@pytest.mark.parametrize("flags, remedy", [
    (["--config.method.name=mine.methodd"], "method.name=mine.methodd is a Python module of your own"),
    (["--config.method.name=mine.measure"], "mine.measure has no function make(backbone, clock, ...)"),
    (["--config.method.name=method"], "a module of your own has a dot in its name"),
    (["--config.model.name=mine.method"], "model.name=mine.method"),
    (["--config.model.name=mine."], "can't be found"),
    (["--config.method.name=simclr"], "knows no method.weight"),
])  # fmt: skip
def test_a_wrong_name_is_one_sentence(flags, remedy, home, capsys):
    told = said(capsys, *TRAIN, *flags)
    assert told.count("\n") == 1 and remedy in told


def test_keys_that_their_make_does_not_take_or_misses(home, capsys):
    file = home / "mine/config.py"
    file.write_text(FILES["mine/config.py"].replace("weight=1.0", "wait=1.0"))
    assert "mine.method knows no method.wait: its keys are those of make in mine.method" in said(capsys, *TRAIN)
    file.write_text(FILES["mine/config.py"].replace("width=64, patch=4", "patch=4"))
    told = said(capsys, *[flag for flag in TRAIN if "width" not in flag])
    assert "mine.network needs model.width" in told


@pytest.mark.parametrize("task, remedy", [
    ("mine.measuree", "--task=mine.measuree is a Python module of your own"),
    ("mine.config", "mine.config has no function measure(encode, data, seed)"),
])  # fmt: skip
def test_a_wrong_measure_is_reported_before_anything_is_loaded(task, remedy, home, capsys):
    told = said(capsys, "evaluate", "--run=/nowhere", f"--task=knn,{task}")
    assert told.count("\n") == 1 and remedy in told
