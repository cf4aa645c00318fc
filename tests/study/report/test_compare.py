import json

import pytest

from jax_ssl import __main__ as command
from jax_ssl.study.report import compare, facts
from jax_ssl.study.report import groups as groups_of
from tests.study.report.example import record_accuracies


@pytest.fixture
def run(tmp_path):
    """Makes the folder of a run without a network: (name, its accuracy, seed=, test_images=) -> path."""
    from jax_ssl import config

    def make(name, value, seed=0, method="simclr", **protocol):
        folder = tmp_path / name
        folder.mkdir()
        settings = config.to_dict(config.load(f"{method}:tiny", [f"--config.seed={seed}"]))
        (folder / "config.json").write_text(json.dumps(settings))
        lines = [{"step": step, "loss": 9.0 - step, "knn": 0.1 * step} for step in (1, 2)]
        (folder / "metrics.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines))
        (folder / "goodput.json").write_text(json.dumps({"seconds": {"step": 100.0 + seed, "evaluation": 900.0}}))
        record_accuracies(folder, "untrained", 0.2, **protocol)
        record_accuracies(folder, "student", value, **protocol)
        return str(folder)

    return make


@pytest.fixture(autouse=True)
def without_tracing(monkeypatch):
    monkeypatch.setattr(groups_of, "work_of", lambda run: 1e12 * run.step)


def grouped(*folders):
    return groups_of.grouped([facts.read(folder) for folder in folders])


def test_seeds_are_joined_and_other_configs_are_not(run):
    groups = grouped(run("simclr-0", 0.40), run("mae", 0.3, method="mae"), run("simclr-1", 0.44, seed=1))
    assert [(group.name, len(group.runs)) for group in groups] == [("simclr", 2), ("mae", 1)]
    (points,) = groups_of.points_of(groups, "knn").values()
    assert points[0].mean == pytest.approx(42) and points[0].deviation == pytest.approx(2.828, abs=1e-3)
    assert compare.spread_text(points[0]) == "42.0 ± 2.8" and compare.spread_text(points[1]) == "30.0"
    assert groups[0].seconds == 100.5  # of training alone
    assert compare.headline(groups) == "On kNN, simclr is best of 2: 42.0 ± 2.8 %."
    close = grouped(run("a", 0.410), run("b", 0.400, method="moco"), run("c", 0.3, method="mae"))
    assert compare.headline(close) == "On kNN, a is best of 3: 41.0 %; within its error: b."


def test_numbers_of_different_protocols_are_not_joined_and_the_difference_is_shown(run):
    groups = grouped(run("a-0", 0.4), run("a-1", 0.9, seed=1, test_images=50), run("b", 0.5, method="moco"))
    found = groups_of.points_of(groups, "knn")
    assert [[point.values for point in points] for points in found.values()] == [
        [[pytest.approx(40)], [pytest.approx(50)]], [[pytest.approx(90)]]]  # fmt: skip
    assert groups_of.differing(list(found)) == [("test_images", ["1000", "50"])]
    text = compare.compare_page(groups)
    assert "are not joined. They differ in: test images." in text and "On kNN, b is best of 2" in text
    assert "2 protocols are in use" in text


def test_what_a_measurement_chose_is_no_difference_of_protocol(run):
    groups = grouped(run("a", 0.4, learning_rate=0.1), run("b", 0.5, method="moco", learning_rate=0.3))
    assert len(groups_of.points_of(groups, "linear")) == 1


def test_the_command_writes_one_page(run, tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    first, second = run("a", 0.4), run("b", 0.5, method="moco")
    assert command.main(["report", "--compare", first, second]) == 0
    text = (tmp_path / "compare.html").read_text()
    words = "2 runs compared", "Loss of SimCLR", "Loss of MoCo", "seconds of training", "method.queue"
    for told in words:
        assert told in text
    assert text.count("<svg") == 7 and "±" not in text
    assert command.main(["report", "--compare", first, first]) == 2
    assert command.main(["report", f"--run={first}", "--compare", first, second]) == 2
    assert "each once" in capsys.readouterr().err


def test_a_suite_has_a_page_over_its_runs(run, tmp_path, capsys):
    from jax_ssl.study import ablate

    folders = [facts.paths.resolve(run(name, 0.4, seed)) for name, seed in (("cell-0", 0), ("cell-1", 1))]
    (tmp_path / "raw pixels").mkdir()  # the cell of a baseline has no run
    record_accuracies(tmp_path / "raw pixels", "pixels", 0.35)
    ablate.compare_runs([*folders, tmp_path / "not run", tmp_path / "raw pixels"], tmp_path / "suite.html")
    assert "1 runs" not in (text := (tmp_path / "suite.html").read_text()) and "2 runs compared" in text
    assert '<th scope="row">raw pixels</th><td class="number">35.0</td><td class="number">–' in text
    assert capsys.readouterr().out == f"its runs on one page: {tmp_path / 'suite.html'}\n"
    ablate.compare_runs(folders[:1], tmp_path / "one.html")
    assert capsys.readouterr().out == "" and not (tmp_path / "one.html").exists()
    (folders[0] / "config.json").write_text("{")
    ablate.compare_runs(folders, tmp_path / "broken.html")
    assert capsys.readouterr().out.startswith(f"there is no page over these runs: {folders[0]}/config.json")
