"""What is said where JAX can't start, and where it leaves an accelerator alone."""

import glob
import importlib.util
import os
import subprocess
import sys
from pathlib import Path

import jax
import pytest

from jax_ssl.errors import LostError, UserError
from jax_ssl.run import devices

ROOT = Path(__file__).parents[2]


@pytest.fixture
def machine(monkeypatch):
    """Sets what files there are, what JAX says when it starts, and which packages are installed."""

    def make(files=(), error=None, backend="cpu", packages=()):
        def start():
            if error is not None:
                raise error

        monkeypatch.setattr(jax, "devices", start)
        monkeypatch.setattr(jax, "default_backend", lambda: backend)
        monkeypatch.setattr(glob, "glob", lambda pattern: [f for f in files if f.startswith(pattern.split("[")[0])])
        monkeypatch.setattr(importlib.util, "find_spec", lambda name: name in packages or None)
        monkeypatch.setattr(devices.shutil, "which", lambda name: None)

    return make


def test_platforms_that_are_not_there_are_told_with_the_remedy(machine):
    backend = "Unable to initialize backend {!r}: {}. (set JAX_PLATFORMS='' to automatically choose a backend)"
    cases = {
        "cuda": (AssertionError(), 'JAX has no plugin for it): unset it to run on what there is, or install JAX'),
        "gpuu": (RuntimeError(backend.format("gpuu", "it is not in the list")), "(it is not in the list): unset it"),
        "tpu,cpu": (RuntimeError(backend.format("tpu", "x")), 'it has no TPU): unset it to run on what there is, or'),
    }
    for wanted, (error, words) in cases.items():
        machine(error=error)
        with pytest.raises(UserError, match=f"^JAX_PLATFORMS={wanted} can't be used on this machine") as told:
            devices.check_devices({"JAX_PLATFORMS": wanted})
        assert words in str(told.value) and "\n" not in str(told.value)
    machine(files=["/dev/accel0"], error=RuntimeError("Unable to initialize backend 'tpu': The TPU is in use"))
    with pytest.raises(LostError, match="The TPU is in use.*repeat this command"):
        devices.check_devices({})
    machine()
    devices.check_devices({"JAX_PLATFORMS": "cpu"})


@pytest.mark.parametrize("verb", ["train --config=simclr:tiny", "evaluate --run=x", "visualize --run=x",
                                  "benchmark --config=simclr:tiny", "ablate --suite=collapse"])  # fmt: skip
def test_every_verb_says_it_in_one_line(verb, tmp_path):
    env = os.environ | {"JAX_PLATFORMS": "cuda", "PYTHONPATH": str(ROOT)}
    call = [sys.executable, "-m", "jax_ssl", *verb.split()]
    done = subprocess.run(call, env=env, capture_output=True, text=True, cwd=tmp_path)
    assert done.returncode == 2 and not list(tmp_path.iterdir())
    assert done.stderr.startswith("jax_ssl: JAX_PLATFORMS=cuda can't be used") and done.stderr.count("\n") == 1


def test_an_accelerator_that_stands_idle_is_told(machine):
    nvidia, tpu = ["/dev/nvidia0"], ["/dev/vfio/0"]
    machine(files=nvidia)
    assert devices.idle_accelerator({}).endswith('JAX runs on its CPU: pip install "jax[cuda12]" for JAX to find it')
    assert "unset JAX_PLATFORMS=cpu" in devices.idle_accelerator({"JAX_PLATFORMS": "cpu"})
    assert "CUDA_VISIBLE_DEVICES= hides it" in devices.idle_accelerator({"CUDA_VISIBLE_DEVICES": ""})
    machine(files=nvidia, packages=["jax_cuda13_plugin"])
    assert "JAX_PLATFORMS=cuda python -c" in devices.idle_accelerator({})
    machine(files=tpu)
    assert devices.idle_accelerator({}).startswith("this machine has a TPU, and JAX runs on its CPU: pip install")
    machine(files=nvidia, backend="gpu")
    assert devices.idle_accelerator({}) is None
    machine()
    assert devices.idle_accelerator({}) is None


def test_nvidias_own_tool_is_asked_where_there_is_no_file(machine, monkeypatch):
    machine()
    monkeypatch.setattr(devices.shutil, "which", lambda name: "/usr/bin/nvidia-smi")
    says = lambda text: lambda *_, **__: subprocess.CompletedProcess([], 0, text)
    monkeypatch.setattr(devices.subprocess, "run", says(b"GPU 0: NVIDIA A100"))
    assert "an NVIDIA GPU" in devices.idle_accelerator({})
    monkeypatch.setattr(devices.subprocess, "run", says(b"No devices were found"))
    assert devices.idle_accelerator({}) is None
