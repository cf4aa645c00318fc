"""`evaluate --task=layers`: a column behind each part of a network, and who has no parts."""

import re

import pytest

from jax_ssl import __main__ as command
from jax_ssl.run import results

FEW = ["--config.data.probe.train=40", "--config.data.probe.test=20"]


def test_a_row_for_each_network_and_a_number_behind_each_stage(runs, capsys):
    run = runs("rotnet")
    assert command.main(["evaluate", f"--run={run}", "--task=layers", "--weights=student", "--pool=mean", *FEW]) == 0
    out, records = capsys.readouterr().out, results.read_results(run)
    assert [(r["task"], r["weights"], r["protocol"]["feature_depth"]) for r in records] == [
        ("layers", "student", 1), ("layers", "student", 2)
    ]  # fmt: skip
    assert all(r["protocol"]["pool"] == "mean" and 0 <= r["value"] <= 1 for r in records)
    assert re.search(r"^linear probe, mean pools of the map +behind 1 +behind 2\nstudent +[\d.]+ +[\d.]+$", out, re.M)


@pytest.mark.parametrize("name, flags, remedy", [
    ("dvae", ["--task=layers"], "can't be read behind its layers: take --task=linear"),
    ("rotnet", ["--task=layers", "--weights=pixels"], "take untrained or student or teacher"),
    ("rotnet", ["--task=knn", "--pool=max"], "--pool belongs to --task=layers"),
])  # fmt: skip
def test_one_sentence_and_exit_code_two(name, flags, remedy, runs, capsys):
    assert command.main(["evaluate", f"--run={runs(name)}", *flags]) == 2
    assert remedy in capsys.readouterr().err
