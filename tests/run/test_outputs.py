"""What a flag names for a result is known to be writable before the work begins."""

import json

import pytest

from jax_ssl import __main__ as command
from jax_ssl.benchmark import step
from jax_ssl.commands import benchmark
from jax_ssl.errors import UserError
from jax_ssl.plan import pods, published
from jax_ssl.run import outputs
from jax_ssl.study import gallery

CONFIG = "--config=simclr:tiny"
VERBS = {
    "benchmark": ["benchmark", CONFIG, "--out={}"],
    "benchmark of the input": ["benchmark", CONFIG, "--what=input", "--out={}"],
    "plan": ["plan", CONFIG, "--topology=v3:2x2", "--out={}"],
    "a plan's plot": ["plan", CONFIG, "--topology=v3:2x2", "--plot={}"],
    "the published plans": ["plan", "--published", "--out={}"],
}


@pytest.mark.parametrize("name", VERBS)
@pytest.mark.parametrize("path", ["missing/x.json", "", "file/x.json"])
def test_every_verb_asks_before_it_works(name, path, tmp_path, monkeypatch, capsys):
    for module, work in ((step, "measure"), (pods, "run"), (benchmark.json, "dumps")):
        monkeypatch.setattr(module, work, None)
    (tmp_path / "file").write_text("")
    arguments = [flag.format(f"{tmp_path}/{path}") for flag in VERBS[name]]
    assert command.main(arguments) == 2
    out, err = capsys.readouterr()
    assert out == "" and err.count("\n") == 1 and str(tmp_path) in err and not (tmp_path / "missing").exists()


def test_pictures_too(tmp_path, monkeypatch, capsys):
    monkeypatch.setattr(gallery, "draw", None)
    (tmp_path / "file").write_text("")
    assert command.main(["visualize", "--run=/nowhere", f"--out={tmp_path}/file/x"]) == 2
    assert "choose another --out" in capsys.readouterr().err


def test_asking_leaves_nothing_behind_and_changes_nothing(tmp_path):
    file = tmp_path / "x.json"
    assert outputs.check_file("--out", "") is None
    outputs.check_file("--out", str(file))
    assert not file.exists()
    file.write_text("kept\n")
    assert outputs.check_file("--out", str(file)) and file.read_text() == "kept\n"


def test_a_file_that_may_not_be_written(tmp_path, monkeypatch):
    def refused(*_):
        raise PermissionError(13, "Permission denied")

    monkeypatch.setattr(outputs, "open", refused, raising=False)  # root may write anywhere
    with pytest.raises(UserError, match="Permission denied.*choose another --out"):
        outputs.check_file("--out", str(tmp_path / "x.json"))


def test_what_was_published_is_written_too(tmp_path, capsys):
    assert command.main(["plan", "--published", f"--out={tmp_path}/x.json"]) == 0
    written = json.loads((tmp_path / "x.json").read_text())
    assert [run["run"] for run in written] == [run["run"] for run in json.loads(published.RUNS.read_text())]
    assert all(run["bound"] > 0 for run in written) and written[0]["run"] in capsys.readouterr().out
