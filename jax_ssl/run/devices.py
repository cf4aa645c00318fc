"""The devices that JAX runs on: one sentence says why they can't be used, or that an accelerator is not used."""

import contextlib
import glob
import importlib.util
import os
import shutil
import subprocess
from collections.abc import Mapping

import jax

from jax_ssl.errors import LostError, UserError
from jax_ssl.run import allocator

INSTALL = {"cuda": 'pip install "jax[cuda12]"', "gpu": 'pip install "jax[cuda12]"', "tpu": 'pip install "jax[tpu]"'}
PACKAGES = {"cuda": ("jax_cuda12_plugin", "jax_cuda13_plugin"), "tpu": ("libtpu",)}  # with which JAX finds them


def check_devices(environ: Mapping = os.environ) -> None:
    """Starts JAX on its devices. Raises UserError, with the remedy, if none of those in JAX_PLATFORMS can be used.

    Raises LostError if the machine has TPU chips that can't be used: another process may have them for a while.
    """
    wanted = environ.get("JAX_PLATFORMS", "")
    no_tpu = not has_tpu_chips() and "tpu" in (wanted or "tpu")
    if wanted == "cpu" or (wanted == "" and no_tpu and not has_nvidia()):
        allocator.keep_memory(environ)  # before JAX's threads start
    # On a machine without a TPU, libtpu, if it is installed, prints many lines before it gives up.
    noise = no_tpu and importlib.util.find_spec("libtpu") is not None and not (wanted == "" and has_nvidia())
    try:
        with _silent_stderr() if noise else contextlib.nullcontext():
            jax.devices()
    except (RuntimeError, AssertionError) as error:  # AssertionError, without a text, where JAX has no plugin for a GPU
        message = str(error).split("\n")[0].partition(" (set JAX_PLATFORMS")[0].removesuffix(".")
        reason = "it has no TPU" if no_tpu else message.split("': ", 1)[-1][:200] or "JAX has no plugin for it"
        if has_tpu_chips():
            remedy = "end the process that uses it, then repeat this command."
            raise LostError(f"The TPU of this machine can't be used ({reason}): {remedy}") from error
        installs = [f"install JAX for it ({INSTALL[name]})" for name in wanted.split(",") if name in INSTALL][:1]
        remedies = ", or ".join(["unset it to run on what there is", *installs])
        raise UserError(f"JAX_PLATFORMS={wanted} can't be used on this machine ({reason}): {remedies}.") from error


@contextlib.contextmanager
def _silent_stderr():
    """Inside `with`, what is written to stderr, by libraries in C too, is not shown."""
    before = os.dup(2)
    with open(os.devnull, "wb") as nowhere:
        os.dup2(nowhere.fileno(), 2)
    try:
        yield
    finally:
        os.dup2(before, 2)
        os.close(before)


def idle_accelerator(environ: Mapping = os.environ) -> str | None:
    """A sentence, with the remedy, if JAX runs on the CPU of a machine that has an accelerator; else None."""
    if jax.default_backend() != "cpu":
        return None
    kind = "cuda" if has_nvidia() else "tpu" if has_tpu_chips() else None
    if kind is None:
        return None
    hidden = environ.get("CUDA_VISIBLE_DEVICES")
    if environ.get("JAX_PLATFORMS"):
        remedy = f"unset JAX_PLATFORMS={environ['JAX_PLATFORMS']} to train on it"
    elif kind == "cuda" and hidden in ("", "-1"):
        remedy = f"CUDA_VISIBLE_DEVICES={hidden} hides it"
    elif any(importlib.util.find_spec(package) for package in PACKAGES[kind]):
        remedy = f"JAX_PLATFORMS={kind} python -c 'import jax; jax.devices()' says why"
    else:
        remedy = f"{INSTALL[kind]} for JAX to find it"
    return f"this machine has {dict(cuda='an NVIDIA GPU', tpu='a TPU')[kind]}, and JAX runs on its CPU: {remedy}"


def has_tpu_chips() -> bool:
    """Whether this machine has the device files of TPU chips."""
    return bool(glob.glob("/dev/accel[0-9]*") + glob.glob("/dev/vfio/[0-9]*"))


def has_nvidia() -> bool:
    """Whether this machine has an NVIDIA GPU: by its device file, or by nvidia-smi, as WSL has no such file."""
    if glob.glob("/dev/nvidia[0-9]*"):
        return True
    if shutil.which("nvidia-smi") is None:
        return False
    try:
        return b"GPU" in subprocess.run(["nvidia-smi", "-L"], capture_output=True, timeout=10).stdout
    except (OSError, subprocess.TimeoutExpired):
        return False
