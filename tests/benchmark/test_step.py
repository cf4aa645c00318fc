import json
from types import SimpleNamespace

import jax
import pytest

from jax_ssl.__main__ import main
from jax_ssl.benchmark import step

SMALL = ["--config.model.stages=(1,)", "--config.model.width=0.125", "--config.batch_size=32"]


def test_a_few_steps_of_a_real_run(tmp_path, capsys):
    out = tmp_path / "benchmark.jsonl"
    out.write_text("{}\n")
    assert main(["benchmark", "--config=simclr:tiny", "--steps=2", f"--out={out}", *SMALL]) == 0
    printed = capsys.readouterr().out
    assert "images/s" in printed and "peak of this device not known" in printed
    before, result = map(json.loads, out.read_text().splitlines())
    assert before == {} and result["flops"] > 0
    assert result["devices"] == 8 and result["steps"] == 2 and result["peak_memory_of"] == "process"
    assert result["config"] == "simclr:tiny " + " ".join(SMALL)
    assert result["step_ms_low"] <= result["step_ms"] <= result["step_ms_high"]
    assert result["images_per_second"] == pytest.approx(32 / result["step_ms"] * 1000)
    assert 0 <= result["data_wait_share"] <= 1 and result["compile_seconds"] > 0
    assert result["peak_memory"] > 2**27  # Python and XLA alone are more than that


def test_no_steps_is_an_error(capsys):
    assert main(["benchmark", "--config=simclr:tiny", "--steps=0"]) == 2
    assert "at least one step" in capsys.readouterr().err


def test_utilisation_is_a_share_of_all_devices_peak():
    devices = [SimpleNamespace(device_kind="TPU v5 lite")] * 4
    assert step.utilisation(197e12, 0.5, devices) == pytest.approx(0.5)
    assert step.utilisation(1e12, 1.0, jax.devices()) is None


def test_memory_is_the_fullest_devices_where_devices_count(monkeypatch):
    devices = [SimpleNamespace(memory_stats=lambda used=used: {"peak_bytes_in_use": used}) for used in (5, 9)]
    monkeypatch.setattr(jax, "local_devices", lambda: devices)
    assert step.peak_memory() == {"peak_memory": 9, "peak_memory_of": "device"}


def test_spread_is_the_middle_half():
    assert step.quartiles([0.004, 0.001, 0.002, 0.003, 0.005]) == {
        "step_ms": 3.0, "step_ms_low": 2.0, "step_ms_high": 4.0,
    }  # fmt: skip
