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


def run(folder, how):
    begun = time.time()
    call = [sys.executable, "-c", HANGING, str(folder), how]
    child = subprocess.run(call, cwd=ROOT, capture_output=True, text=True, timeout=50)
    assert child.stdout == "alive\n"
    return child, time.time() - begun


@pytest.mark.parametrize("how", ["waiting", "holding the lock"])
def test_a_hanging_process_ends_with_its_stacks(how, tmp_path):
    child, seconds = run(tmp_path, how)
    assert child.returncode not in (0, 2) and seconds < 30
    assert "in stuck" in child.stderr
    if how == "waiting":
        assert child.returncode == 1 and "nothing has moved for 1 seconds" in child.stderr
        assert "in stuck" in (tmp_path / "hang_of_process_3.txt").read_text()


@pytest.mark.parametrize("how", ["off", "not at all"])
def test_a_process_that_goes_on_is_left_alone(how, tmp_path):
    child, _ = run(tmp_path, how)
    assert child.returncode == 0 and child.stderr == ""
