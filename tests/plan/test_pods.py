"""What the TPU compiler made of our programs, beside what it made of them before: a new collective shows in review.

golden/pods.json has three small programs; the evidence of `seals` has the paper presets, recorded by `seals --record`.
"""

import json
import shlex
from pathlib import Path

import pytest

from jax_ssl import config as configs
from jax_ssl.__main__ import main
from jax_ssl.plan import pods
from jax_ssl.study import seals

GOLDEN = json.loads((Path(__file__).parents[1] / "golden" / "pods.json").read_text())
RECORDED = [
    pytest.param(record, id=f"{record['config']} {record['topology']}")
    for record in seals.read("plans.jsonl")
    if "bytes" in record  # plans of before bytes were counted have other names for collectives
]
# As small as a ResNet gets: compiled in seconds.
SMALL = ["--config.model.stages=(1,)", "--config.model.width=0.125", "--config.data.augment=hybrid"]


def compiled(spec: str, topology: str, slices: int = 1, quick: bool = False) -> dict:
    name, *overrides = shlex.split(spec)
    load = lambda more: configs.load(name, [*overrides, *more])
    return pods.run(load, [topology], spec, slices, remedy=False, quick=quick)[0]


def compare(report: dict, golden: dict) -> None:
    """The same collectives of the same size, and no more bytes or memory: one compiler always gives the same."""
    assert report["fits"]
    assert report["memory"]["alias"] >= sum(report["state"].values())  # the old state is given up
    if report["versions"] != golden["versions"]:
        pytest.skip(f"recorded with {golden['versions']}, this is {report['versions']}")
    assert report["collectives"] == golden["collectives"]
    assert report["bytes"] <= 1.02 * golden["bytes"]
    assert report["memory"]["total"] <= 1.02 * golden["memory"]["total"]


@pytest.mark.parametrize("golden", GOLDEN, ids=lambda golden: golden["topology"])
def test_a_small_program_is_compiled_as_it_was(golden):
    pytest.importorskip("libtpu")
    slices, _, name = golden["topology"].rpartition(" x ")
    compare(compiled(golden["config"], name, int(slices or 1)), golden)


@pytest.mark.parametrize("method", seals.methods())
def test_every_paper_preset_has_a_pod_that_it_fits(method):
    assert any(record["fits"] for record in seals.read("plans.jsonl") if record["method"] == method)


@pytest.mark.slow
@pytest.mark.parametrize("recorded", RECORDED)
def test_a_paper_preset_is_compiled_as_it_was(recorded):
    pytest.importorskip("libtpu")
    compare(compiled(recorded["config"], recorded["topology"], quick=recorded.get("quick", False)), recorded)


@pytest.mark.slow
def test_what_is_too_large_is_refused_with_what_would_help(tmp_path, capsys):
    pytest.importorskip("libtpu")
    out = tmp_path / "plan.json"
    # The logits of two million embeddings are 16 TB, and no override of ours helps.
    flags = [*SMALL, "--config.batch_size=1048576", f"--out={out}", "--no-remedy"]
    assert main(["plan", "--config=simclr:tiny", "--topology=v3:2x2", *flags]) == 0
    assert "does not fit" in capsys.readouterr().out
    # A transformer whose activations are too many, which computing them again helps.
    flags = ["--config.data.augment=hybrid", "--config.model.remat=none", "--config.batch_size=262144", f"--out={out}"]
    assert main(["plan", "--config=simmim:tiny", "--topology=v5e:2x2", *flags]) == 0
    (report,) = json.loads(out.read_text())
    assert not report["fits"] and report["remedy"]["overrides"] == ["--config.model.remat=full"]
    assert "fits with --config.model.remat=full" in capsys.readouterr().out
