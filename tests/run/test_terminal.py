"""A reader that has gone ends no work and shows no traceback; lines that a file should have and has not are told."""

import os
import pty
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from jax_ssl.run import checkpoints
from jax_ssl.run.stop import Stop, signals
from tests.test_train import QUIET, flags, lines, start, wait_for_step

ROOT = Path(__file__).parents[2]
# Says three lines on each stream when it is told to, goes on whatever becomes of them, and leaves a file.
CHILD = """
import sys
from jax_ssl.run import terminal

with terminal.tolerate_lost_readers():
    print("begun", flush=True)  # in here: the reader may be gone before all of it is written
    sys.stdin.readline()
    for _ in range(3):
        print("said", flush=True)
        print("told", file=sys.stderr)
    print("still here" * 10000)
open(sys.argv[1], "w").write("done")
"""


def shell(line, **options):
    return subprocess.run(["bash", "-c", line], cwd=ROOT, capture_output=True, text=True, timeout=100, **options)


def child(path, **streams):
    return subprocess.Popen([sys.executable, "-c", CHILD, str(path)], cwd=ROOT, stdin=subprocess.PIPE, **streams)


def test_a_line_is_shown_when_it_is_said():
    program = "import os; from jax_ssl.run import terminal; within = terminal.tolerate_lost_readers(); "
    program += "within.__enter__(); print('said'); os._exit(0)"
    assert shell(f'{sys.executable} -c "{program}" | cat').stdout == "said\n"


def test_a_pipe_that_is_closed(tmp_path):
    process = child(tmp_path / "end", stdout=subprocess.PIPE, stderr=subprocess.PIPE)
    assert process.stdout.readline() == b"begun\n"
    process.stdout.close()
    process.stderr.close()
    process.stdin.write(b"go\n")
    process.stdin.close()
    assert process.wait(60) == 0 and (tmp_path / "end").read_text() == "done"


def test_a_terminal_that_is_lost(tmp_path):
    ours, theirs = pty.openpty()
    process = child(tmp_path / "end", stdout=theirs, stderr=theirs)
    os.close(theirs)
    assert os.read(ours, 100).startswith(b"begun")
    os.close(ours)
    process.stdin.write(b"go\n")
    process.stdin.close()
    assert process.wait(60) == 0 and (tmp_path / "end").read_text() == "done"


def test_streams_that_were_never_open(tmp_path):
    code = f"{sys.executable} -c '{CHILD}' {tmp_path}/end <<< go"
    for closed in (">&-", "2>&-", ">&- 2>&-"):
        found = shell(f"{code} {closed}")
        assert found.returncode == 0 and "Traceback" not in found.stderr, found.stderr
        assert (tmp_path / "end").read_text() == "done"  # and nothing of what was said
        (tmp_path / "end").unlink()


@pytest.mark.parametrize("arguments", ["seals", "ablate --list", "--help", "train --help", "plan --published"])
def test_the_verbs_that_print_are_quiet_when_nobody_reads(arguments):
    slow = arguments == "ablate --list"  # it loads JAX: once will do
    for line in ("2>&1 | true",) if slow else ("| head -1", "| true", "2>&1 | true"):
        found = shell(f"set -o pipefail; {sys.executable} -m jax_ssl {arguments} {line}")
        assert found.returncode == 0 and found.stderr == ""


def test_a_mistake_that_nobody_reads_keeps_its_exit_code():
    mistake = shell(f"{sys.executable} -m jax_ssl seals --nonsense 2>&-")
    assert mistake.returncode == 2 and mistake.stdout == ""


def test_a_name_that_is_no_text_does_not_end_the_work():
    code = "from jax_ssl.run import terminal\nwith terminal.tolerate_lost_readers(): print('a\\udcff.png ±')"
    found = shell(f'PYTHONIOENCODING=ascii {sys.executable} -c "{code}"')
    assert found.returncode == 0 and found.stdout == "a\\udcff.png \\xb1\n"


def test_lines_that_a_full_disk_has_lost_are_told():
    found = shell(f"{sys.executable} -m jax_ssl seals > /dev/full")
    assert found.returncode == 1 and found.stderr.count("\n") == 1 and "No space left" in found.stderr


def test_a_run_goes_on_without_its_reader_and_saves_when_the_terminal_goes(tmp_path, hangup):
    arguments = flags("simclr", tmp_path, 400, *QUIET, "--config.data.probe.name=")
    process = start(arguments, 1)
    said = [process.stdout.readline() for _ in range(3)]
    process.stdout.close()  # as `| head -3` does
    wait_for_step(process, tmp_path, 3)
    process.send_signal(signal.SIGHUP)
    assert process.wait(100) == 0
    log, step = (tmp_path / "log.txt").read_text(), lines(tmp_path)[-1]["step"]
    assert "simclr" in said[0] and said[0].strip() in log
    assert f"stopped at step {step} of 400" in log and f"step {step:>3}/400" in log
    assert checkpoints.load_raw(tmp_path / "checkpoints")[1] == step


def test_every_signal_asks_for_a_stop_and_an_ignored_hangup_stays_ignored(hangup):
    for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
        with Stop() as stop:
            assert not stop.asked()
            os.kill(os.getpid(), number)
            assert stop.asked()
    assert signal.getsignal(signal.SIGHUP) == signal.SIG_DFL
    signal.signal(signal.SIGHUP, signal.SIG_IGN)  # as nohup does
    assert signal.SIGHUP not in signals()
    with Stop() as stop:
        os.kill(os.getpid(), signal.SIGHUP)
        assert not stop.asked()
    assert signal.getsignal(signal.SIGHUP) == signal.SIG_IGN


def test_one_of_several_processes_that_loses_its_terminal_tells_the_others(monkeypatch, hangup):
    sent = []
    with Stop(lambda turn: bool(sent)) as stop:
        monkeypatch.setattr(os, "kill", lambda process, number: sent.append(number))
        signal.raise_signal(signal.SIGHUP)
        assert sent == [signal.SIGTERM] and stop.asked()  # by the handler that all of them have
