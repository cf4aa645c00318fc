import json
import math
from types import SimpleNamespace

import jax
import pytest

from jax_ssl import config as configs
from jax_ssl import sharding, train
from jax_ssl.__main__ import main
from jax_ssl.data import pipeline
from jax_ssl.errors import UserError
from jax_ssl.plan import compile as plan
from jax_ssl.plan import flops, topology
from jax_ssl.plan import report as reports
from jax_ssl.plan.chips import CHIPS, Chip

# As small as a ResNet gets: compiled in seconds.
SMALL = ["--config.model.stages=(1,)", "--config.model.width=0.125", "--config.batch_size=32"]


def small(*overrides):
    return configs.load("simclr:tiny", [*SMALL, *overrides])


def test_a_report_for_simulated_devices(monkeypatch):
    monkeypatch.setitem(CHIPS, "cpu", Chip(2**30, 1e12, 1e11, 1e10))
    report = plan.compile_for(small(), jax.devices())
    memory, state = report["memory"], report["state"]
    assert report["fits"] and report["devices"] == 8 and report["compiler_says"] == ""
    assert memory["total"] == sum(memory[k] for k in ("arguments", "outputs", "temporaries", "code")) - memory["alias"]
    assert memory["alias"] >= sum(state.values())  # the state is donated: it is not in memory twice
    # Every gradient crosses the devices once, beside batch norm's statistics and the loss.
    assert report["collectives"]["all-reduce over data"]["bytes"] > state["params"]
    kinds = {f"{kind} over data" for kind in ("all-reduce", "all-gather", "collective-permute")}
    assert set(report["collectives"]) <= kinds
    assert report["bytes"] >= sum(state.values())  # the state at least is read
    json.dumps(report)


def test_flops_of_mae_are_those_of_its_formula():
    config = configs.load("mae:tiny", ["--config.batch_size=8", "--config.model.remat=none"])
    *_, traced = plan.trace(config, jax.devices())
    block = lambda tokens, width: tokens * 24 * width**2 + 4 * tokens**2 * width  # matmuls of one block, forward
    model, method = config.model, config.method
    encoder = model.depth * block(1 + 16, model.width)  # the class token and a quarter of 64 patches
    decoder = method.decoder_depth * block(1 + 64, method.decoder_width)
    assert flops.count(traced.jaxpr) == pytest.approx(3 * 8 * (encoder + decoder), rel=0.1)  # and embeddings, and crops


@pytest.mark.parametrize("augment", ["device", "hybrid", "host"])
def test_inputs_are_those_of_the_pipeline_that_opens_the_data(augment):
    config = configs.load("simclr:tiny", [f"--config.data.augment={augment}"])
    raw, resident = plan.inputs(config, *plan.SETS["embedded"])
    data = pipeline.open_data(config)
    described = lambda tree: jax.tree.map(lambda x: (tuple(x.shape), str(x.dtype)), tree)
    assert described(raw) == described(data.example)
    assert resident == () if data.resident is None else described(resident) == described(data.resident)


def test_an_unknown_set_cannot_live_on_the_device():
    config = configs.load("simclr:tiny", ["--config.data.name=folder:/somewhere"])
    with pytest.raises(UserError, match="hybrid"):
        plan.inputs(config, plan.IMAGENET, None)


def test_fsdp_halves_what_a_device_holds():
    config = small("--config.method.projector=(1024,1024)", "--config.mesh.fsdp=2")
    method, tx, _ = train.build(config, 5000)
    raw, resident = plan.inputs(config, *plan.SETS["embedded"])
    held = {}
    for ways in (1, 2):
        mesh = sharding.make_mesh(ways)
        with jax.set_mesh(mesh):
            prepare = train.preparation(config)
            state = train.compile_step(method, tx, prepare, mesh, raw, resident, fsdp_min_size=1024).state
        held[ways] = plan.state_bytes(state)
    whole = sum(4 * math.prod(x.shape) for x in jax.tree.leaves(state.params))
    assert held[1]["params"] == whole
    assert held[2]["params"] == pytest.approx(whole / 2, rel=0.01)
    assert held[2]["optimizer"] == pytest.approx(whole, rel=0.01)  # two moments


@pytest.mark.parametrize(
    ("message", "total"),
    [
        (
            "RESOURCE_EXHAUSTED: Ran out of memory on HBM, the total memory required for HLO temporaries (36.62G) "
            "exceeds available HBM (15.48G).",
            round(36.62 * 2**30),
        ),
        ("RESOURCE_EXHAUSTED: Ran out of memory in memory space hbm. Used 16.5G of 15.48G hbm.", round(16.5 * 2**30)),
        ("RESOURCE_EXHAUSTED: HLO temporaries (3.01T) exceeds available HBM (30.75G).", round(3.01 * 2**40)),
        ("RESOURCE_EXHAUSTED: something new", None),
    ],
)
def test_a_refusal_carries_the_compilers_figure(message, total):
    report = plan.refusal(message, CHIPS["TPU v3"].memory)
    assert report["fits"] is False and report["memory"]["total"] == total
    assert report["compiler_says"] == message


def test_table_is_aligned_and_says_so():
    common = {
        "devices": 8, "device_kind": "TPU v3", "batch_size": 32, "flops": 8e12, "compile_seconds": 1.0,
        "state": {"params": 10, "optimizer": 2**20, "teacher": 0, "extra": 0}, "total_steps": 10, "slices": 1,
    }  # fmt: skip
    stats = SimpleNamespace(
        argument_size_in_bytes=2**30, output_size_in_bytes=2**20, temp_size_in_bytes=2**31, alias_size_in_bytes=2**20,
        generated_code_size_in_bytes=0,
    )  # fmt: skip
    compiled = SimpleNamespace(
        memory_analysis=lambda: stats,
        cost_analysis=lambda: {"bytes accessed": 2.0**31},
        as_text=lambda: "ENTRY %main (p: f32[]) -> f32[] {\n}\n",
    )
    good = common | {"topology": "v3:2x2"} | plan.read(compiled, 15 * 2**30)
    assert plan.read(compiled, 2**30)["fits"] is False  # it compiled, and is still larger than the chip
    bad = common | {"topology": "v3:4x4"} | plan.refusal("RESOURCE_EXHAUSTED: Used 16.5G of 15.48G hbm", 15 * 2**30)
    assert good["memory"]["total"] == 3 * 2**30
    bad |= {"remedy": {"overrides": ["--config.mesh.fsdp=8"], "memory": {"total": 2**30}}}
    lines = reports.table("simclr:tiny", [good, bad]).splitlines()
    assert lines[0] == "simclr:tiny"
    rows = lines[1 : lines.index("")]
    assert len({len(line) for line in rows}) == 1
    assert "  fits  does not fit" in rows[1] and "16.50 GiB" in "".join(rows)
    assert lines[-2] == "v3:4x4: RESOURCE_EXHAUSTED: Used 16.5G of 15.48G hbm"
    assert lines[-1] == "v3:4x4: fits with --config.mesh.fsdp=8, in 1.00 GiB"


def test_which_attention_is_taken_is_shown_with_the_reason():
    fused = {"tokens": 197, "width": 384, "heads": 6, "kernel": "pallas", "reason": ""}
    plain = fused | {"tokens": 1370, "kernel": "plain", "reason": "1370 tokens need 50.7 of 12 MiB"}
    rows = reports.attention_rows([{"attention": [fused, plain]}, {"attention": [fused]}])
    assert rows == [
        ("attention, 197 tokens of 384", ["pallas", "pallas"]),
        ("attention, 1370 tokens of 384", ["plain", "-"]),
    ]
    (line,) = reports.remarks([{"topology": "v5e:2x2", "attention": [fused, plain], "compiler_says": ""}])
    assert line == f"v5e:2x2: plain attention of 1370 tokens of 384: {plain['reason']}"


def test_the_plan_of_a_transformer_says_which_attention_it_has(monkeypatch):
    monkeypatch.setitem(CHIPS, "cpu", Chip(2**30, 1e12, 1e11, 1e10))
    tiny = ["--config.batch_size=8", "--config.model.depth=1", "--config.method.decoder_depth=1"]
    report = plan.compile_for(configs.load("mae:tiny", tiny), jax.devices())
    encoder, decoder = report["attention"]
    assert (encoder["tokens"], decoder["tokens"]) == (17, 65) and encoder["kernel"] == "plain"
    assert "model.attention='fused'" in encoder["reason"]  # for it is in float32


def test_two_ways_to_scale_are_told_apart():
    one = {
        "topology": "v3:2x2", "fits": True, "devices": 8, "device_kind": "TPU v3", "batch_size": 32, "flops": 8e12,
        "bytes": 2**30, "memory": {}, "state": dict.fromkeys(("params", "optimizer", "teacher", "extra"), 0),
        "collectives": {}, "compile_seconds": 1.0, "compiler_says": "", "scaling": "strong",
    }  # fmt: skip
    assert "scaling" not in reports.table("x", [one])
    text = reports.table("x", [one, one | {"scaling": "weak", "quick": True}])
    (row,) = (line.split() for line in text.splitlines() if line.startswith("scaling"))
    assert row == ["scaling", "strong", "weak"] and "compiled quickly" in text


def test_quick_compiles_at_a_lower_level_nothing_is_cached_and_settings_stay_as_they_were():
    seen, least = [], "jax_persistent_cache_min_compile_time_secs"

    class Traced:
        def lower(self):
            return self

        def compile(self):
            seen.append(str(jax.config.jax_optimization_level))
            assert getattr(jax.config, least) == math.inf
            if len(seen) == 3:
                raise RuntimeError

    settings = lambda: (jax.config.jax_optimization_level, getattr(jax.config, least))
    before = settings()
    for quick in (False, True):
        plan.compiled(Traced(), quick)
    with pytest.raises(RuntimeError):
        plan.compiled(Traced(), True)
    assert "O1" not in seen[0] and "O1" in seen[1] and settings() == before


def test_without_the_compiler_the_remedy_is_named(monkeypatch, capsys):
    monkeypatch.setattr(topology.importlib.util, "find_spec", lambda name: None)
    assert main(["plan", "--config=simclr:tiny", "--topology=v3:2x2"]) == 2
    assert "pip install 'jax_ssl[plan]'" in capsys.readouterr().err


def test_a_batch_that_the_pod_cannot_split_is_refused_before_compiling(capsys):
    pytest.importorskip("libtpu")
    assert main(["plan", "--config=simclr:tiny", "--topology=v3:2x2", "--config.batch_size=12"]) == 2
    assert "not divisible by the 8 devices" in capsys.readouterr().err
