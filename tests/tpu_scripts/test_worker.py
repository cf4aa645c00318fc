"""The script on each machine, with a program that does what the test says in place of Python."""

import os
import shutil
import signal
import subprocess
import time

import pytest

from tests.tpu_scripts.cloud import SCRIPTS

PROGRAM = """#!/bin/bash
shift 2  # -m jax_ssl
trap 'echo saved; exit 75' TERM  # before it says that it has begun: a test may send the signal at once
echo "begun: $*"
case "$1" in
  end) exit "$2" ;;
  wait) for _ in {1..600}; do if [ -e "$2" ]; then echo finished; exit 0; fi; sleep 0.05; done ;;
esac
"""


@pytest.fixture
def machine(tmp_path):
    (tmp_path / ".venv/bin").mkdir(parents=True)
    (tmp_path / "tpu_scripts").mkdir()
    shutil.copy(SCRIPTS / "worker.sh", tmp_path / "tpu_scripts")
    program = tmp_path / ".venv/bin/python"
    program.write_text(PROGRAM)
    program.chmod(0o755)
    yield tmp_path
    (tmp_path / "go").touch()  # whatever waits here may end


def call(machine, *arguments):
    command = ["bash", "tpu_scripts/worker.sh", *arguments]
    streams = dict(stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)
    return subprocess.Popen(command, cwd=machine, start_new_session=True, **streams)


def ended(process):
    said = process.communicate(timeout=30)[0]
    return said, process.returncode


def until(condition):
    begun = time.time()
    while not condition():
        assert time.time() - begun < 20
        time.sleep(0.02)


def begun(machine):
    log = machine / ".worker/log"
    return log.exists() and "begun" in log.read_text()


@pytest.mark.parametrize("code", [0, 2, 75])
def test_it_says_how_the_program_ended(code, machine):
    said, returned = ended(call(machine, "end", str(code), "two words"))
    assert said.splitlines() == [f"begun: end {code} two words", f"jax_ssl exit code {code}"] and returned == code


def test_each_call_begins_a_new_log_and_keeps_the_one_before(machine):
    ended(call(machine, "end", "1"))
    assert ended(call(machine, "end", "0"))[0].splitlines() == ["begun: end 0", "jax_ssl exit code 0"]
    assert (machine / ".worker/log.before").read_text() == "begun: end 1\n"


def test_the_program_outlives_the_connection_and_a_second_call_sees_its_end(machine):
    first = call(machine, "wait", "go")
    until(lambda: begun(machine))
    os.killpg(first.pid, signal.SIGKILL)  # the script and what shows the log, but not the program
    first.communicate()
    second = call(machine, "wait", "go")
    time.sleep(0.3)
    assert second.poll() is None
    (machine / "go").touch()
    said, code = ended(second)
    assert code == 0 and said.splitlines() == ["begun: wait go", "finished", "jax_ssl exit code 0"]


def test_a_busy_machine_refuses_another_command(machine):
    first = call(machine, "wait", "go")
    until(lambda: begun(machine))
    said, code = ended(call(machine, "end", "0"))
    assert code == 2 and "busy with: wait go" in said and said.endswith("jax_ssl exit code 2\n")
    (machine / "go").touch()
    assert ended(first)[1] == 0


def test_a_signal_reaches_the_program_and_its_code_is_kept(machine):
    first = call(machine, "wait", "go")
    until(lambda: begun(machine))
    os.killpg(int((machine / ".worker/pid").read_text()), signal.SIGTERM)
    said, code = ended(first)
    assert code == 75 and said.splitlines()[-2:] == ["saved", "jax_ssl exit code 75"]


def test_a_program_that_is_killed_outright_did_not_end_well(machine):
    first = call(machine, "wait", "go")
    until(lambda: begun(machine))
    os.killpg(int((machine / ".worker/pid").read_text()), signal.SIGKILL)
    assert ended(first)[1] == 137
    assert ended(call(machine, "end", "0"))[1] == 0  # and holds no lock
