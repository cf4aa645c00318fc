"""Reads files and tries again for a minute: a failing disk is not a broken image.

Mounts and buckets fail for seconds and come back. Only a file that is really gone, or that this user may not read,
counts as a broken image. If the disk itself does not come back, the run ends with `LostError`; launchers then start it
again.
"""

import errno
import os
import sys
import time
from collections.abc import Callable

from jax_ssl.data.about import printable
from jax_ssl.data.decode import BrokenImage
from jax_ssl.errors import LostError
from jax_ssl.paths import is_remote, resolve

WAITS = (0.5, 1, 2, 4, 8, 15, 30)  # seconds between tries: a minute in all
FILE_ERRORS = {errno.EACCES, errno.EPERM, errno.EISDIR, errno.ELOOP, errno.ENAMETOOLONG}  # waiting does not help here


def retry(action: Callable, what: str, is_final: Callable[[Exception], bool] = lambda error: False):
    """What action() returns. It is tried again for a minute while it raises an error of a disk or bucket.

    what: for the message, a path or a name. is_final: error -> whether waiting does not help; it is then raised
    unchanged. Raises LostError when the minute is over.
    """
    for wait in (*WAITS, None):
        try:
            return action()
        except (OSError, *_remote_errors()) as error:
            if is_final(error):
                raise
            failed = error
        if wait is not None:
            time.sleep(wait)
    reason = getattr(failed, "strerror", None) or f"{type(failed).__name__}: {failed}".strip(": ").splitlines()[0]
    raise LostError(
        f"{printable(what)} can't be read, tried for {sum(WAITS):.0f} s ({printable(str(reason))}): is its disk, mount "
        "or bucket there? The same command goes on when it is back. If only this file is damaged, remove it."
    ) from failed


def is_permanent(error: Exception) -> bool:
    """Whether the user has to repair something, so that waiting does not help. Errors of libraries have no errno."""
    return isinstance(error, (FileNotFoundError, PermissionError)) or getattr(error, "errno", 1) is None


def read_bytes(root: str, name: str) -> bytes:
    """The bytes of a file below root. Raises BrokenImage if it is gone or may not be read, LostError as `retry`."""
    path = f"{root.rstrip('/')}/{name}"
    try:
        return retry(lambda: _bytes(path), path, lambda error: _is_file_error(error, path))
    except LostError:
        raise
    except Exception as error:
        raise BrokenImage(name, f"can't be opened: {getattr(error, 'strerror', None) or error}") from error


def _bytes(path: str) -> bytes:
    if is_remote(path):
        return resolve(path).read_bytes()
    with open(path, "rb") as file:
        return file.read()


def _is_file_error(error: Exception, path: str) -> bool:
    """Whether only this file is the problem: its folder can be listed, has other files, and does not have this one."""
    folder, _, name = path.rpartition("/")
    if getattr(error, "errno", None) in FILE_ERRORS:
        return is_remote(path) or os.access(folder, os.X_OK)  # False: the folder itself can't be entered
    if not isinstance(error, (FileNotFoundError, NotADirectoryError)) and type(error).__name__ != "NotFoundError":
        return False
    try:
        beside = {found.name for found in resolve(folder).iterdir()} if is_remote(path) else set(os.listdir(folder))
    except (OSError, *_remote_errors()):
        return False
    return bool(beside) and name not in beside  # an empty folder may be a mount point without its mount


def _remote_errors() -> tuple:
    """The errors of buckets that are not OSErrors. Looks only at libraries that are already imported."""
    tensorflow, fsspec = sys.modules.get("tensorflow"), sys.modules.get("gcsfs.retry")
    found = (tensorflow.errors.OpError,) if tensorflow is not None else ()
    return found + ((fsspec.HttpError,) if fsspec is not None else ())
