"""`evaluate --task=pretext`: a table with baselines, records that say which number decides, and who has no puzzle."""

import re

import numpy as np
import pytest

from jax_ssl import __main__ as command
from jax_ssl.run import checkpoints, results

FEW = ["--config.data.probe.train=40", "--config.data.probe.test=20"]


def test_a_table_of_baselines_and_networks_each_recorded(runs, tmp_path, capsys, monkeypatch):
    run, read, opened = runs("rotnet"), checkpoints.load_raw, []
    monkeypatch.setattr(checkpoints, "load_raw", lambda *names, **more: opened.append(names) or read(*names, **more))
    assert command.main(["evaluate", f"--run={run}", "--task=pretext", *FEW]) == 0
    out, records = capsys.readouterr().out, results.read_results(run)
    assert [r["weights"] for r in records] == ["linear on pixels", "chance", "untrained", "student"]
    assert {(r["task"], r["metric"], r["step"], r["k"]) for r in records} == {("pretext", "accuracy", 3, None)}
    assert all(r["protocol"]["better"] == "higher" and r["protocol"]["decides"] for r in records)
    assert all(r["protocol"]["turned"] == "last" for r in records)  # what makes the puzzle harder or easier
    assert records[1]["value"] == 0.25 and records[2]["value"] == records[3]["value"]  # the saved state is the first
    assert len(opened) == 1  # the checkpoint, though networks and puzzle both need it
    assert re.search(r"^own puzzle of rotnet +accuracy\nlinear on pixels +[\d.]+\nchance +0.25\nuntrained ", out, re.M)
    np.savez(tmp_path / "bare.npz", images=np.random.default_rng(0).integers(0, 256, (180, 32, 32, 3)).astype(np.uint8))
    flags = ["--weights=student", "--seed=4", f"--data=arrays:{tmp_path}/bare.npz"]  # without labels
    assert command.main(["evaluate", f"--run={run}", "--task=pretext", *flags]) == 0
    again = results.read_results(run)[len(records) :]
    assert [r["weights"] for r in again] == ["linear on pixels", "chance", "student"] and again[0]["seed"] == 4
    assert (again[0]["split"], again[0]["protocol"]["test_images"]) == ("every tenth", 18)
    assert np.isfinite([r["value"] for r in again]).all()


@pytest.mark.parametrize("name, flags, remedy", [
    ("simclr", [], "simclr has no puzzle of its own: take --task=knn,linear"),
    ("rotnet", ["--weights=pixels"], "can't measure --weights=pixels: take untrained or student"),
])  # fmt: skip
def test_one_sentence_and_exit_code_two(name, flags, remedy, runs, capsys):
    assert command.main(["evaluate", f"--run={runs(name)}", "--task=pretext", *flags]) == 2
    said = capsys.readouterr()
    assert remedy in said.err and said.err.count("\n") == 1 and not said.out
