"""Every word of a command is used, or told as a mistake with the words to write instead; nothing is ignored."""

import subprocess
import sys
from pathlib import Path

import pytest

import jax_ssl
from jax_ssl import __main__ as command

TRAIN = ["train", "--config=simclr:tiny"]
MISTAKES = {
    "no verb": ([], "write one of ablate, benchmark"),
    "a misspelt verb": (["trian"], "did you mean train?"),
    "a flag before the verb": (["--config=simclr:tiny", "train"], "write one of ablate, benchmark"),
    "a value after a space": ([*TRAIN, "--config.epochs", "3"], "write --config.epochs=3."),
    "a negative one": ([*TRAIN, "--config.seed", "-1"], "write --config.seed=-1."),
    "no value": ([*TRAIN, "--config.evaluate_at_end"], "write --config.evaluate_at_end=VALUE."),
    "a word too many": ([*TRAIN, "3"], "see `python -m jax_ssl train --help`"),
    "a misspelt flag": ([*TRAIN, "--wrkdir=x"], "no flag '--wrkdir=x': did you mean --workdir?"),
    "a shortened flag": ([*TRAIN, "--work=x"], "did you mean --workdir?"),
    "a flag of another verb": (["evaluate", "--run=x", "--workdir=x"], "no flag '--workdir=x'"),
    "a key without its beginning": ([*TRAIN, "--epochs=3"], "did you mean --config.epochs=3?"),
    "a key in other words": ([*TRAIN, "--lr=0.1"], "did you mean --config.optim.base_lr=0.1?"),
    "a key with hyphens": ([*TRAIN, "--batch-size=8"], "did you mean --config.batch_size=8?"),
    "a key without hyphens": ([*TRAIN, "config.epochs=3"], "did you mean --config.epochs=3?"),
    "a bare key": ([*TRAIN, "epochs=3"], "did you mean --config.epochs=3?"),
    "two configs": ([*TRAIN, "--config=mae:tiny"], "--config is given twice, simclr:tiny and mae:tiny"),
    "two folders": (["evaluate", "--run=a", "--run=b"], "--run is given twice"),
    "a flag that is missing": (["train"], "required: --config; see `python -m jax_ssl train --help`"),
    "a flag without its value": (["train", "--config"], "--config: expected one argument"),
    "no whole number": (["evaluate", "--run=x", "--labels=many"], "'many' is not a whole number of at least 1"),
    "no epochs": (["evaluate", "--run=x", "--task=finetune", "--epochs=0"], "'0' is not a whole number of at least 1"),
    "a seed below zero": (["evaluate", "--run=x", "--seed=-1"], "'-1' is not a whole number of at least 0"),
    "overrides of seals": (["seals", "--config.seed=1"], "seals has no config to change"),
    "overrides of a list": (["ablate", "--list", "--config.seed=1"], "ablate --list has no config"),
    "overrides of recorded plans": (["plan", "--published", "--config.seed=1"], "plan --published has no config"),
    "a config for recorded plans": (["plan", "--published", "--config=simclr"], "--config changes nothing"),
    "a switch for recorded plans": (["plan", "--published", "--no-remedy"], "--no-remedy changes nothing"),
    "overrides of a file": (["visualize", "--weights=x.pth", "--config.seed=1"], "visualize without --run"),
    "a wrong override of a picture": (["visualize", "--run={}", "--config.nonsense=1"], "no config key 'nonsense'"),
    "labels for neighbours": (["evaluate", "--run=x", "--labels=5"], "--labels belongs to --task=finetune"),
    "images for neighbours": (["evaluate", "--run=x", "--images=x"], "--images belongs to --task=emergence"),
    "a name of nothing": (["seals", "--name=x"], "give --record as well"),
    "seeds of a list": (["ablate", "--list", "--seeds=0,1"], "--seeds changes nothing"),
}


@pytest.mark.parametrize("mistake", MISTAKES)
def test_one_sentence_with_the_words_to_write(mistake, tmp_path, capsys):
    arguments, remedy = MISTAKES[mistake]
    (tmp_path / "config.json").write_text("{}")
    assert command.main([argument.format(tmp_path) for argument in arguments]) == 2
    out, err = capsys.readouterr()
    assert out == "" and err.startswith("jax_ssl: ") and err.count("\n") == 1 and remedy in err


def test_the_same_override_twice_is_said_once(monkeypatch):
    got = []
    monkeypatch.setitem(command.VERBS, "train", lambda args, overrides: got.append(overrides))
    assert command.main([*TRAIN, "--config.seed=1", "--config.epochs=2", "--config.seed=1"]) == 0
    assert got == [["--config.seed=1", "--config.epochs=2"]]


def test_of_two_values_of_a_key_the_last_counts_and_that_is_said(monkeypatch, capsys):
    got = []
    monkeypatch.setitem(command.VERBS, "train", lambda args, overrides: got.append(overrides))
    assert command.main([*TRAIN, "--config.seed=1", "--config.epochs=2", "--config.seed=3"]) == 0
    assert got == [["--config.epochs=2", "--config.seed=3"]]
    assert "--config.seed is given twice: the last counts, --config.seed=3" in capsys.readouterr().out


def test_the_version(capsys):
    with pytest.raises(SystemExit) as ended:
        command.main(["--version"])
    assert ended.value.code == 0
    assert capsys.readouterr().out.startswith(f"jax_ssl {jax_ssl.__version__}, jax ")


@pytest.mark.parametrize("verb", command.VERBS)
def test_ctrl_c_is_one_line(verb, monkeypatch, capsys):
    def interrupted(*_):
        raise KeyboardInterrupt

    monkeypatch.setitem(command.VERBS, verb, interrupted)
    needed = {"train": ["--config=x"], "benchmark": ["--config=x"], "evaluate": ["--run=x"],
              "weights": ["inspect"]}  # fmt: skip
    assert command.main([verb, *needed.get(verb, [])]) == 130
    assert capsys.readouterr().err == "jax_ssl: interrupted\n"


def test_what_nobody_foresaw_keeps_its_traceback(monkeypatch):
    monkeypatch.setitem(command.VERBS, "seals", lambda *_: 1 / 0)
    with pytest.raises(ZeroDivisionError):
        command.main(["seals"])


def test_what_only_reads_records_does_not_wait_for_jax():
    code = "import sys; from jax_ssl.__main__ import main; main(['seals']); main(['plan', '--published'])"
    call = [sys.executable, "-c", f"{code}; sys.exit('jax' in sys.modules)"]
    child = subprocess.run(call, cwd=Path(__file__).parents[2], capture_output=True, text=True)
    assert child.returncode == 0 and child.stdout, child.stderr
