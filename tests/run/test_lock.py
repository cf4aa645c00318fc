"""Two commands never write in one folder, and a crash of the owner locks nobody out."""

import json
import os
import shutil
import signal
import socket
import subprocess
import sys
import threading
import time
from pathlib import Path

import pytest

from jax_ssl.errors import UserError
from jax_ssl.run import lock

ROOT = Path(__file__).parents[2]
HOLDS = """
import sys, time
from jax_ssl.run import lock
with lock.exclusive(sys.argv[1]):
    print("held", flush=True)
    time.sleep(60)
"""


@pytest.fixture(autouse=True)
def quick(monkeypatch):
    monkeypatch.setattr(lock, "HEARTBEAT", 0.02)
    monkeypatch.setattr(lock, "POLL", 0.01)
    monkeypatch.setattr(lock, "SETTLE", 0.01)


def written(folder) -> dict:
    return json.loads((folder / "lock.json").read_text())


def owned_by(folder, **changes) -> None:
    """A lock as another command has left it."""
    (folder / "new").write_text(json.dumps(lock.describe_self(str(folder)) | {"token": "another"} | changes))
    (folder / "new").replace(folder / "lock.json")


def test_it_names_the_owner_gives_signs_of_life_and_goes(tmp_path):
    with lock.exclusive(tmp_path):
        first = written(tmp_path)
        assert (first["host"], first["pid"]) == (socket.gethostname(), os.getpid())
        until = time.time() + 5
        while written(tmp_path)["alive"] == first["alive"] and time.time() < until:
            time.sleep(0.01)
        assert written(tmp_path)["alive"] > first["alive"]
        with pytest.raises(UserError, match=f"in use by process {os.getpid()} on .* since 20.*--workdir"):
            with lock.exclusive(tmp_path):
                raise AssertionError("two at once")
        assert written(tmp_path)["token"] == first["token"], "a refused command leaves the lock alone"
    assert os.listdir(tmp_path) == []


def test_an_error_inside_frees_the_folder(tmp_path):
    with pytest.raises(KeyError):
        with lock.exclusive(tmp_path):
            raise KeyError
    assert os.listdir(tmp_path) == []


@pytest.mark.skipif(not os.path.exists("/proc/self/stat"), reason="asks /proc")
def test_one_that_was_killed_is_followed_at_once_even_as_a_zombie(tmp_path):
    environment = {**os.environ, "PYTHONPATH": str(ROOT), "JAX_PLATFORMS": "cpu"}
    child = subprocess.Popen([sys.executable, "-c", HOLDS, str(tmp_path)], env=environment, stdout=subprocess.PIPE)
    assert child.stdout.readline() == b"held\n"
    with pytest.raises(UserError, match=f"process {child.pid} "):
        lock.Lock(tmp_path).take()
    os.kill(child.pid, signal.SIGKILL)
    os.waitid(os.P_PID, child.pid, os.WEXITED | os.WNOWAIT)  # ended, and not yet waited for
    said = []
    with lock.exclusive(tmp_path, said.append):
        assert written(tmp_path)["pid"] == os.getpid() and not said
    child.communicate()


def test_a_process_number_that_was_given_anew_is_not_the_owner(tmp_path):
    owned_by(tmp_path, started="17")
    with lock.exclusive(tmp_path):
        assert written(tmp_path)["token"] != "another"


@pytest.mark.parametrize("where", [{"host": "elsewhere"}, {"machine": "the same name, another container"}])
def test_an_owner_elsewhere_without_a_sign_of_life_is_followed(where, tmp_path, monkeypatch):
    said = []
    owned_by(tmp_path, alive=time.time() - lock.TIMEOUT - 1, **where)
    with lock.exclusive(tmp_path, said.append):
        assert len(said) == 1 and "no heartbeat" in said[0]
    monkeypatch.setattr(lock, "TIMEOUT", 0.1)
    owned_by(tmp_path, **where)  # was alive just now: it is waited for
    with lock.exclusive(tmp_path, said.append):
        assert "waiting up to" in said[1] and "taken over" in said[2]


@pytest.fixture
def elsewhere(tmp_path):
    """An owner on another host that gives signs of life, by a clock that is an hour ahead, until it is told to end."""

    def lives():
        while not ended.wait(0.01):
            owned_by(tmp_path, host="elsewhere", alive=time.time() + 3600)

    ended = threading.Event()
    owned_by(tmp_path, host="elsewhere", alive=time.time() + 3600)
    thread = threading.Thread(target=lives)
    thread.start()
    yield ended
    ended.set()
    thread.join()


def test_an_owner_elsewhere_that_lives_keeps_its_folder(elsewhere, tmp_path, monkeypatch):
    monkeypatch.setattr(lock, "TIMEOUT", 0.2)
    monkeypatch.setattr(lock.paths, "write", lambda *_: pytest.fail("written to"))
    with pytest.raises(UserError, match="in use by process .* on elsewhere"):
        lock.Lock(tmp_path, lambda sentence: None).take()


@pytest.mark.parametrize("leaves", [True, False], ids=["it ends", "it dies"])
def test_an_owner_elsewhere_that_ends_meanwhile_is_waited_for(leaves, elsewhere, tmp_path, monkeypatch):
    """A launcher starts the command again while the first is still saving, or before it is known to be dead."""
    monkeypatch.setattr(lock, "TIMEOUT", 0.4)

    def said(sentence):
        elsewhere.set()
        time.sleep(0.05)
        if leaves:
            (tmp_path / "lock.json").unlink(missing_ok=True)

    with lock.exclusive(tmp_path, said):
        assert written(tmp_path)["host"] != "elsewhere"


def test_of_two_at_the_same_moment_one_goes(tmp_path, monkeypatch):
    """The other writes its lock between our look and our second look, as on a store that can't create exclusively."""
    monkeypatch.setattr(lock.time, "sleep", lambda seconds: owned_by(tmp_path, pid=123))
    with pytest.raises(UserError, match="in use by process 123"):
        lock.Lock(tmp_path).take()
    assert written(tmp_path)["pid"] == 123


def test_an_owner_that_was_taken_for_dead_ends_itself(tmp_path, monkeypatch, capsys):
    ended, codes = threading.Event(), []
    monkeypatch.setattr(lock.os, "_exit", lambda code: (codes.append(code), ended.set()))
    with lock.exclusive(tmp_path):
        owned_by(tmp_path, host="elsewhere", pid=77)
        assert ended.wait(5) and codes == [1]
    assert "process 77 on elsewhere has taken over" in capsys.readouterr().err
    assert written(tmp_path)["pid"] == 77


def test_a_copy_of_a_folder_in_use_is_free(tmp_path):
    (tmp_path / "run").mkdir()
    with lock.exclusive(tmp_path / "run"):
        shutil.copytree(tmp_path / "run", tmp_path / "copy")
        (tmp_path / "link").symlink_to(tmp_path / "run")
        with lock.exclusive(tmp_path / "copy"):
            pass
        with pytest.raises(UserError, match="in use"):
            lock.Lock(tmp_path / "link").take()


def test_a_torn_lock_is_none(tmp_path):
    for torn in ("{", "[1]", '{"pid": 3}'):
        (tmp_path / "lock.json").write_text(torn)
        with lock.exclusive(tmp_path):
            assert written(tmp_path)["pid"] == os.getpid()
