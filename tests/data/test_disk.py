"""A failing disk is no broken picture: waited for, and ended with the exit code that launchers repeat."""

import errno
import os

import pytest

from jax_ssl.data import disk
from jax_ssl.data.decode import BrokenImage
from jax_ssl.errors import EXIT, LostError


@pytest.fixture(autouse=True)
def no_waiting(monkeypatch):
    monkeypatch.setattr(disk, "WAITS", (0.0, 0.0, 0.0))


@pytest.fixture
def root(tmp_path):
    (tmp_path / "a").mkdir()
    for name in "12":
        (tmp_path / "a" / name).write_bytes(name.encode())
    return str(tmp_path)


def failing(monkeypatch, times, error):
    """`open` in `disk` fails so many times."""
    left = [error] * times

    def opens(*arguments):
        if left:
            raise left.pop()
        return open(*arguments)

    monkeypatch.setattr(disk, "open", opens, raising=False)
    return left


def test_about_a_minute_in_all():
    import importlib

    assert 45 < sum(importlib.reload(disk).WAITS) < 90


@pytest.mark.parametrize("number", [errno.EIO, errno.ENOTCONN, errno.ESTALE, errno.EMFILE])
def test_a_disk_that_comes_back_costs_nothing(root, monkeypatch, number):
    failing(monkeypatch, 3, OSError(number, os.strerror(number)))
    assert disk.read_bytes(root, "a/1") == b"1"


def test_a_disk_that_stays_away_ends_the_run_to_be_repeated(root, monkeypatch):
    failing(monkeypatch, 99, OSError(errno.EIO, "Input/output error"))
    with pytest.raises(LostError, match=r"a/1 can't be read.*Input/output error.*The same command goes on"):
        disk.read_bytes(root, "a/1")
    assert EXIT[LostError] == 1


def test_a_file_that_is_gone_is_a_broken_record(root):
    os.unlink(f"{root}/a/1")
    with pytest.raises(BrokenImage, match="can't be opened: No such file"):
        disk.read_bytes(root, "a/1")


@pytest.mark.parametrize("what", ["folder", "mount"])
def test_a_file_whose_folder_is_gone_or_empty_is_a_lost_disk(root, what):
    for name in "12":
        os.unlink(f"{root}/a/{name}")
    if what == "folder":
        os.rmdir(f"{root}/a")
    with pytest.raises(LostError):
        disk.read_bytes(root, "a/1")


def test_what_may_not_be_read_is_a_broken_record(root, monkeypatch):
    left = failing(monkeypatch, 9, PermissionError(errno.EACCES, "Permission denied"))
    with pytest.raises(BrokenImage, match="Permission denied"):
        disk.read_bytes(root, "a/1")
    assert len(left) == 8


def test_a_folder_that_can_not_be_entered_is_a_lost_disk(root, monkeypatch):
    failing(monkeypatch, 9, PermissionError(errno.EACCES, "Permission denied"))
    monkeypatch.setattr(disk.os, "access", lambda *_: False)
    with pytest.raises(LostError, match="Permission denied"):
        disk.read_bytes(root, "a/1")


def test_a_bucket_is_waited_for_as_well(root, monkeypatch):
    monkeypatch.setattr(disk, "is_remote", lambda path: True)
    assert disk.read_bytes(root, "a/1") == b"1"
    with pytest.raises(BrokenImage, match="can't be opened"):
        disk.read_bytes(root, "a/3")
