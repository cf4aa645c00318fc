"""The table of seals says what the records say, and nothing more."""

import json

import pytest

from jax_ssl import __main__ as command
from jax_ssl.errors import UserError
from jax_ssl.study import seals

GOOD = {"knn@20 pixels": 0.39, "knn@20 untrained": 0.30, "knn@20 student": 0.45,
        "linear pixels": 0.39, "linear untrained": 0.33, "linear student": 0.50}  # fmt: skip


@pytest.fixture
def records(tmp_path, monkeypatch):
    monkeypatch.setattr(seals, "FOLDER", tmp_path)
    monkeypatch.setattr(seals, "EVIDENCE", tmp_path / "evidence.md")  # and not the page of this checkout
    return tmp_path


def run_folder(tmp_path, method, seed, numbers, **where):
    folder = tmp_path / f"{method}_{seed}"
    folder.mkdir()
    settings = {"method": {"name": method}, "seed": seed, "log_every": 10, "batch_size": 8}
    (folder / "config.json").write_text(json.dumps(settings))
    (folder / "metrics.jsonl").write_text('{"step": 10, "step_seconds": 0.5}\n')
    lines = []
    for name, value in numbers.items():
        task, weights = name.split(" ", 1)
        task, _, k = task.partition("@")
        weights, _, statistics = weights.partition(", ")
        protocol = where | ({"batch_statistics": statistics} if statistics else {})
        result = dict(task=task, metric="top1", k=int(k) if k else None, weights=weights, value=value)
        lines.append(result | dict(protocol=protocol, step=10, data="tfds:cifar10"))
    (folder / "results.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines))
    return str(folder)


def test_without_records_everything_is_open(records):
    assert not any(any(seals.seals_of(method)) for method in seals.methods())
    assert seals.table().count("open") == 6 * len(seals.methods())


def test_a_failed_test_leaves_its_seal_open(records):
    tests = [dict(method="mae", seal=3, test=f"t{i}", passed=i != 1, date="2026-01-01") for i in range(2)]
    seals.write("tests.jsonl", tests)
    assert seals.seals_of("mae")[2] is False
    seals.merge("tests.jsonl", [tests[1] | {"passed": True}], key=lambda r: (r["method"], r["seal"], r["test"]))
    assert seals.seals_of("mae")[2] is True and len(seals.read("tests.jsonl")) == 2


def test_learning_needs_two_seeds(records, tmp_path):
    seals.record(run_folder(tmp_path, "simclr", 0, GOOD), "configs/simclr.py:cifar")
    assert seals.seals_of("simclr")[4] is False
    seals.record(run_folder(tmp_path, "simclr", 1, GOOD), "configs/simclr.py:cifar")
    assert seals.seals_of("simclr")[4] is True
    record = seals.read("runs.jsonl")[0]
    assert record["seconds"] == 5 and record["results"]["knn@20 student"] == 0.45 and record["seed"] == 0


@pytest.mark.parametrize("name, value", [
    ("knn@20 untrained", 0.46), ("linear untrained", 0.51), ("linear pixels", 0.51), ("knn@20 pixels", 0.46),
    ("knn@20 untrained, statistics adapted", 0.46),
])  # fmt: skip
def test_each_baseline_counts(name, value):
    assert seals.has_learned("simclr", GOOD)
    assert not seals.has_learned("simclr", GOOD | {name: value})


def test_a_missing_number_is_not_a_pass():
    for name in GOOD:
        assert not seals.has_learned("simclr", {k: v for k, v in GOOD.items() if k != name})


def test_masked_methods_are_fine_tuned_and_need_not_beat_pixels_by_neighbours():
    weak = GOOD | {"knn@20 pixels": 0.46}
    assert not seals.has_learned("mae", weak)
    assert seals.has_learned("mae", weak | {"finetune student": 0.5, "finetune scratch": 0.4})
    assert not seals.has_learned("mae", weak | {"finetune student": 0.4, "finetune scratch": 0.5})


PUZZLE = {"pretext accuracy chance": 0.25, "pretext accuracy linear on pixels": 0.45,
          "pretext accuracy untrained": 0.26, "pretext accuracy student": 0.6}  # fmt: skip
HIGHER = {"metric": "accuracy", "better": "higher"}


def test_a_pretext_method_solves_its_puzzle_and_need_not_beat_pixels_by_neighbours():
    numbers = GOOD | {"knn@20 pixels": 0.46} | PUZZLE
    assert seals.has_learned("rotnet", numbers, HIGHER)
    assert not seals.has_learned("rotnet", numbers) and not seals.has_learned("rotnet", GOOD, HIGHER)
    assert not seals.has_learned("rotnet", numbers | {"linear pixels": 0.51}, HIGHER)
    for name in PUZZLE.keys() - {"pretext accuracy student"}:
        assert not seals.has_learned("rotnet", numbers | {name: 0.61}, HIGHER), name
    without = {name: value for name, value in numbers.items() if "on pixels" not in name}
    assert not seals.has_learned("rotnet", without, HIGHER)  # chance alone is no bar


def test_of_an_error_less_is_better():
    numbers = GOOD | {name.replace("accuracy", "error"): 1 - value for name, value in PUZZLE.items()}
    puzzle = {"metric": "error", "better": "lower"}
    assert seals.has_learned("rotnet", numbers, puzzle)
    assert not seals.has_learned("rotnet", numbers | {"pretext error linear on pixels": 0.39}, puzzle)


def test_an_untrained_network_on_whole_images_counts_too():
    numbers = GOOD | PUZZLE | {"linear untrained, whole, in colour": 0.51}
    assert not seals.has_learned("rotnet", numbers, HIGHER)


def test_grey_features_that_do_not_beat_colours_are_fine_tuned():
    weak = GOOD | PUZZLE | {"linear pixels": 0.51}
    assert seals.has_learned("colorization", GOOD | PUZZLE, HIGHER)
    assert not seals.has_learned("colorization", weak, HIGHER)
    assert seals.has_learned("colorization", weak | {"finetune student": 0.5, "finetune scratch": 0.4}, HIGHER)


def test_a_puzzle_is_recorded_with_the_number_that_decides_it(records, tmp_path):
    folder = run_folder(tmp_path, "rotnet", 0, GOOD)
    with pytest.raises(UserError, match="without its own puzzle"):
        seals.record(folder)
    lines = [dict(task="pretext", k=None, weights=name.split(" ", 2)[2], metric="accuracy", value=value, step=10,
                  data="tfds:cifar10", protocol={"better": "higher", "decides": True})
             for name, value in PUZZLE.items()]  # fmt: skip
    elsewhere = dict(lines[0], task="layers", weights="student", protocol={"feature_depth": 2, "pool": "max"})
    with open(f"{folder}/results.jsonl", "a") as file:
        file.writelines(json.dumps(line) + "\n" for line in [*lines, elsewhere])
    seals.record(folder, "configs/rotnet.py:tiny")
    (record,) = seals.read("runs.jsonl")
    assert record["puzzle"] == HIGHER and record["feature_depth"] == 0 and PUZZLE.items() <= record["results"].items()
    assert seals.has_learned("rotnet", record["results"], record["puzzle"])
    assert "accuracy 0.450 (linear on pixels), 0.600 |" in seals.evidence()


def test_the_evidence_says_behind_which_block_features_were_read(records, tmp_path):
    seals.record(run_folder(tmp_path, "simclr", 0, GOOD), "configs/simclr.py:cifar")
    seals.record(run_folder(tmp_path, "simmim", 0, GOOD, feature_depth=2), "configs/simmim.py:cifar")
    told = seals.evidence()
    assert "`configs/simmim.py:cifar`, behind block 2 |" in told and "`configs/simclr.py:cifar` |" in told


def test_what_is_no_evidence_is_refused(records, tmp_path):
    with pytest.raises(UserError):
        seals.record(str(tmp_path / "nothing"))
    folder = run_folder(tmp_path, "mae", 0, {})
    with pytest.raises(UserError, match="evaluate"):
        seals.record(folder)


def test_a_run_that_proves_nothing_is_refused_before_it_is_written(records, tmp_path):
    by_neighbours = {name: value for name, value in GOOD.items() if name.startswith("knn")}
    folder = run_folder(tmp_path, "simclr", 0, by_neighbours)
    with pytest.raises(UserError, match="can't be evidence without linear pixels: run `python -m jax_ssl evaluate"):
        seals.record(folder)
    assert not (records / "runs.jsonl").exists()
    with pytest.raises(UserError, match="of the method mine.method: seals are for"):
        seals.record(run_folder(tmp_path, "mine.method", 0, GOOD))


@pytest.mark.parametrize("text, remedy", [
    ('{"config": "x"}', "has no method"), ("[1, 2]", "has no method"), ("nothing", "is no JSON"),
    ('[{"method": "mae", "config": "mae", "topology": "v3:2x2"}]', "has no memory"),
])  # fmt: skip
def test_a_file_that_holds_no_plan_is_refused(text, remedy, records, tmp_path):
    (tmp_path / "plan.json").write_text(text)
    with pytest.raises(UserError, match=remedy):
        seals.record(str(tmp_path / "plan.json"))
    assert not (records / "plans.jsonl").exists()


def test_incomplete_records_are_read_without_harm(records):
    run = dict(method="mae", config="c", seed=0, data="d", steps=1, seconds=1)
    seals.write("runs.jsonl", [run | {"results": {"knn@20 student": 0.4}}, run | {"results": {}}])
    plan = dict(method="mae", config="c", topology="v3:2x2", fits=False, compile_seconds=1.0, batch_size=8)
    seals.write("plans.jsonl", [plan | {"memory": {"total": None, "usable": 2**30}}, {"method": "mae"}])
    assert "| -, -, 40.0 | -, -, - |" in seals.evidence() and "? of 1.00 | does not fit" in seals.evidence()
    assert not any(seals.seals_of("mae")) and "open" in seals.table()


def test_a_torn_line_is_named_with_what_to_do(records, capsys):
    (records / "tests.jsonl").write_text('{"method": "mae", "seal": 1, "passed": true}\n{"method": "ma')
    assert command.main(["seals"]) == 2
    assert "Line 2 of" in (told := capsys.readouterr().err) and "restore it" in told


def test_an_installed_package_is_read_and_not_written(records, tmp_path, monkeypatch):
    """Its folder is no checkout, and often read-only."""
    monkeypatch.setattr(seals, "CHECKOUT", tmp_path / "site-packages")
    assert seals.refresh() == seals.table()
    with pytest.raises(UserError, match="clone the repository"):
        seals.record(run_folder(tmp_path, "simclr", 0, GOOD))


def test_a_page_that_can_not_be_written_stays_as_it_is(records, tmp_path, monkeypatch):
    page, said = tmp_path / "evidence.md", []
    page.write_text(f"{seals.BEGIN}\nold\n{seals.END}\n")
    monkeypatch.setattr(seals, "EVIDENCE", page)
    monkeypatch.setattr(type(page), "write_text", refused)
    assert seals.refresh(said.append) == seals.table()
    assert len(said) == 1 and "stays as it is" in said[0]


def refused(*_):
    raise PermissionError(13, "Permission denied")


def test_the_page_of_evidence_is_refreshed_between_its_markers(records, tmp_path, monkeypatch):
    page = tmp_path / "evidence.md"
    page.write_text(f"before\n{seals.BEGIN}\nold\n{seals.END}\nafter\n")
    monkeypatch.setattr(seals, "EVIDENCE", page)
    seals.refresh()
    text = page.read_text()
    assert text.startswith("before\n") and text.endswith("after\n") and "old" not in text and seals.table() in text
