"""A failing disk is not a broken picture: what can't be read is asked for again before anything is said about it.

Mounts and buckets fail for seconds and come back. Only a file that is really gone, or that this user may not read,
counts as a broken record; when the place itself stays away, the run ends with `LostError`, which launchers repeat.
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
OF_THE_FILE = {errno.EACCES, errno.EPERM, errno.EISDIR, errno.ELOOP, errno.ENAMETOOLONG}  # waiting mends none of these


def patiently(action: Callable, what: str, settled: Callable[[Exception], bool] = lambda error: False):
    """What action() returns, tried again for a minute while it raises what disks and buckets raise.

    settled: whether an error is one that waiting does not mend; it is then raised as it is. Raises LostError, with
    `what` (a path, or what else could not be read), when the minute is over.
    """
    for wait in (*WAITS, None):
        try:
            return action()
        except (OSError, *_remote_errors()) as error:
            if settled(error):
                raise
            failed = error
        if wait is not None:
            time.sleep(wait)
    reason = getattr(failed, "strerror", None) or f"{type(failed).__name__}: {failed}".strip(": ").splitlines()[0]
    raise LostError(
        f"{printable(what)} can't be read, tried for {sum(WAITS):.0f} s ({printable(str(reason))}): is its disk, mount "
        "or bucket there? The same command goes on when it is back. If this file alone is to blame, take it away."
    ) from failed


def is_no_disks(error: Exception) -> bool:
    """Whether the user has to mend it before a run starts, and not the system: errors of libraries have no number."""
    return isinstance(error, (FileNotFoundError, PermissionError)) or getattr(error, "errno", 1) is None


def read_bytes(root: str, name: str) -> bytes:
    """The bytes of a file below root. Raises BrokenImage if it is gone or may not be read, LostError as `patiently`."""
    path = f"{root.rstrip('/')}/{name}"
    try:
        return patiently(lambda: _bytes(path), path, lambda error: _of_the_file(error, path))
    except LostError:
        raise
    except Exception as error:
        raise BrokenImage(name, f"can't be opened: {getattr(error, 'strerror', None) or error}") from error


def _bytes(path: str) -> bytes:
    if is_remote(path):
        return resolve(path).read_bytes()
    with open(path, "rb") as file:
        return file.read()


def _of_the_file(error: Exception, path: str) -> bool:
    """Whether the file is to blame: its folder can be listed, has other files, and does not have this one."""
    folder, _, name = path.rpartition("/")
    if getattr(error, "errno", None) in OF_THE_FILE:
        return is_remote(path) or os.access(folder, os.X_OK)  # or the folder is what can't be entered
    if not isinstance(error, (FileNotFoundError, NotADirectoryError)) and type(error).__name__ != "NotFoundError":
        return False
    try:
        beside = {found.name for found in resolve(folder).iterdir()} if is_remote(path) else set(os.listdir(folder))
    except (OSError, *_remote_errors()):
        return False
    return bool(beside) and name not in beside  # an empty folder may be a mount point that has lost its mount


def _remote_errors() -> tuple:
    """What buckets raise beside OSError, of the libraries that are loaded: none is loaded for this."""
    tensorflow, fsspec = sys.modules.get("tensorflow"), sys.modules.get("gcsfs.retry")
    found = (tensorflow.errors.OpError,) if tensorflow is not None else ()
    return found + ((fsspec.HttpError,) if fsspec is not None else ())
