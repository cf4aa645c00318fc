"""A disk that is full or away is told as such, whoever has wrapped it, and launchers repeat the command."""

import errno
import os

import pytest

from jax_ssl import __main__ as command
from jax_ssl.errors import LostError
from jax_ssl.run import disk

TENSORSTORE = (
    'Error writing "ocdbt.process_0/d/9f3c" in OCDBT database at local file "/runs/a/checkpoints/7": '
    + '[tensorstore_spec=\'{"base":"file:///runs/a","driver":"ocdbt"}\'] ' * 8
    + "Failed to write: File system error: [OS error 28: ENOSPC No space left on device]"
)


def caused(cause: Exception, message: str) -> Exception:
    error = ValueError(message)
    error.__cause__ = cause
    return error


@pytest.mark.parametrize(
    "error, words",
    [
        (OSError(errno.ENOSPC, "No space left on device"), "the disk is full"),
        (ValueError(TENSORSTORE), "the disk is full"),
        (caused(OSError(errno.EDQUOT, "Disk quota exceeded"), "save failed"), "the quota is used up"),
        (ValueError("Disk quota exceeded"), "the quota is used up"),
        (PermissionError(errno.EACCES, "Permission denied"), "permission denied"),
        (OSError(errno.EROFS, "Read-only file system"), "read-only"),
        (OSError(errno.EIO, "Input/output error"), "does not answer"),
        (ValueError("UNAVAILABLE: CURL error[6] Couldn't resolve host name"), "does not answer"),
    ],
)
def test_the_reason_is_found_wherever_it_stands(error, words):
    assert words in disk.reason(error)[0]


@pytest.mark.parametrize("error", [KeyError("x"), FileNotFoundError(errno.ENOENT, "quota exceeded"), ValueError("a")])
def test_what_is_not_the_disks_is_not_called_so(error):
    assert disk.reason(error) is None


def test_a_long_message_keeps_its_end():
    said = disk.quote(ValueError(TENSORSTORE))
    assert len(said) < 340 and "No space left on device" in said and said.startswith("ValueError: Error writing")


@pytest.mark.parametrize("number, code", [(errno.ENOSPC, 1), (errno.EIO, 1)])
def test_any_command_ends_with_a_sentence_that_launchers_repeat(number, code, monkeypatch, capsys):
    def fails(args, overrides):
        raise OSError(number, os.strerror(number), "/runs/a/metrics.jsonl")

    monkeypatch.setitem(command.VERBS, "seals", fails)
    assert command.main(["seals"]) == code
    said = capsys.readouterr().err
    assert said.startswith("jax_ssl: /runs/a/metrics.jsonl: the disk") and said.count("\n") == 1 and "repeat" in said


def test_what_was_said_first_is_said():
    first, second = LostError("no checkpoint could be written"), OSError(errno.ENOSPC, "No space left on device")
    second.__context__ = first
    assert disk.lost_error(second) is first


def test_a_bug_stays_a_bug(monkeypatch):
    def fails(args, overrides):
        raise FileNotFoundError(errno.ENOENT, "No such file", "x")

    monkeypatch.setitem(command.VERBS, "seals", fails)
    with pytest.raises(FileNotFoundError):
        command.main(["seals"])
    assert isinstance(disk.lost_error(OSError(errno.ENOSPC, "full")), LostError)
