"""kill -9 in the middle of a save, in a process of its own, at the moments that matter."""

import os
import signal
import subprocess
import sys
import textwrap
from pathlib import Path

import jax
import jax.numpy as jnp
import pytest

from jax_ssl.run.checkpoints import Checkpoints

ROOT = Path(__file__).parents[2]

KILLED = """
    import os, signal, sys
    import jax.numpy as jnp
    from jax_ssl.run import manifest
    from jax_ssl.run.checkpoints import Checkpoints

    def die(*args, **keywords):
        os.kill(os.getpid(), signal.SIGKILL)

    checkpoints = Checkpoints(sys.argv[1], keep_last=1)
    checkpoints.save(1, {"x": jnp.ones(100_000)}, wait=True)
    if sys.argv[2] == "before the manifest":
        manifest.write = die
    elif sys.argv[2] == "before the commit":
        os.rename = die
    else:
        checkpoints._manager._checkpoint_deleter.delete_steps = die
    checkpoints.save(2, {"x": jnp.zeros(100_000)}, wait=True)
    print("still alive")
"""


@pytest.mark.parametrize(
    "moment, expected", [("before the manifest", 1), ("before the commit", 1), ("before old steps are deleted", 2)]
)
def test_kill_9_while_saving_leaves_a_good_step(tmp_path, moment, expected):
    """Even with keep_last=1. Killed at the three moments between the last byte of data and the end of the save."""
    environment = {**os.environ, "PYTHONPATH": str(ROOT), "JAX_PLATFORMS": "cpu"}
    command = [sys.executable, "-c", textwrap.dedent(KILLED), str(tmp_path), moment]
    child = subprocess.run(command, env=environment, capture_output=True, text=True, timeout=120)
    assert child.returncode == -signal.SIGKILL, child.stdout + child.stderr
    said = []
    checkpoints = Checkpoints(tmp_path, keep_last=1, say=said.append)
    state, step = checkpoints.restore({"x": jax.ShapeDtypeStruct((100_000,), jnp.float32)})
    assert step == expected and not said
    assert float(state["x"].sum()) == (100_000 if step == 1 else 0)
    checkpoints.save(9, state, wait=True)
    checkpoints.close()
    assert [name for name in os.listdir(tmp_path) if "tmp" in name] == []
    assert [name for name in os.listdir(tmp_path) if name.isdigit()] == ["9"]
