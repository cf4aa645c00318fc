"""A loop that stands still ends its process, with its stacks, whether or not Python's lock is free."""

import subprocess
import sys
import time
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
HANGING = """
import ctypes, sys, time
from jax_ssl.run.watchdog import Watchdog

def stuck():
    if sys.argv[2] == "waiting":
        time.sleep(60)
    elif sys.argv[2] == "holding the lock":
        ctypes.PyDLL(None).sleep(60)
    elif sys.argv[2] == "off":
        time.sleep(2)

with Watchdog(0 if sys.argv[2] == "off" else 1.0, sys.argv[1], 3) as watchdog:
    for _ in range(15):
        time.sleep(0.1)
        watchdog.alive()
    print("alive", flush=True)
    stuck()
time.sleep(1.5)  # out of its hands
"""


@pytest.fixture(scope="module")
def ended(tmp_path_factory):
    """{how: (exit code, what was said on stderr, seconds, folder)} of processes that mostly sleep: all at once."""
    begun, running, found = time.time(), {}, {}
    for how in ("waiting", "holding the lock", "off", "not at all"):
        folder = tmp_path_factory.mktemp("hang")
        call = [sys.executable, "-c", HANGING, str(folder), how]
        pipes = dict(stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
        running[how] = folder, subprocess.Popen(call, cwd=ROOT, **pipes)
    for how, (folder, process) in running.items():
        out, err = process.communicate(timeout=50)
        assert out == "alive\n"
        found[how] = process.returncode, err, time.time() - begun, folder
    return found


@pytest.mark.parametrize("how", ["waiting", "holding the lock"])
def test_a_hanging_process_ends_with_its_stacks(how, ended):
    code, said, seconds, folder = ended[how]
    assert code not in (0, 2) and seconds < 30
    assert "in stuck" in said
    if how == "waiting":
        assert code == 1 and "nothing has moved for 1 seconds" in said
        assert "in stuck" in (folder / "hang_of_process_3.txt").read_text()


@pytest.mark.parametrize("how", ["off", "not at all"])
def test_a_process_that_goes_on_is_left_alone(how, ended):
    code, said, _, _ = ended[how]
    assert code == 0 and said == ""
