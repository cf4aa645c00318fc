"""The one door to paths: what a user names may be on a disk or in a bucket, and both are an `epath.Path`.

Whoever opens, lists or makes something that the user named takes it from here. `pathlib` and `open` know disks alone:
given `gs://bucket/run`, they would make a folder that is called `gs:`.
"""

import os
import uuid

from etils import epath


def is_remote(path) -> bool:
    """Whether a path is in a bucket."""
    return "://" in os.fspath(path)


def resolve(path) -> epath.Path:
    """The path that a user means: `~` is the home folder, what is relative begins here; a bucket stays as it is."""
    if is_remote(path):
        return epath.Path(path)  # `resolve` would spoil the address
    return epath.Path(os.path.abspath(os.path.expanduser(path)))


def write(path: epath.Path, text: str) -> None:
    """Writes a small file, all of it or nothing: on a disk it gets its name last; an object store does so itself."""
    if is_remote(path):
        path.write_text(text)
        return
    temporary = path.with_name(f"{path.name}.{uuid.uuid4().hex[:8]}.tmp")  # two commands never share one
    try:
        temporary.write_text(text)
        temporary.replace(path)
    except OSError as error:
        error.filename = error.filename or str(path)  # a write that finds no room does not say where
        temporary.unlink(missing_ok=True)
        raise
