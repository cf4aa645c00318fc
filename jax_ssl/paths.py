"""The one door to paths: what a user names may be on a disk or in a bucket, and both are an `epath.Path`.

Whoever opens, lists or makes something that the user named takes it from here. `pathlib` and `open` know disks alone:
given `gs://bucket/run`, they would make a folder that is called `gs:`.
"""

import os

from etils import epath


def is_remote(path) -> bool:
    """Whether a path is in a bucket."""
    return "://" in os.fspath(path)


def resolve(path) -> epath.Path:
    """The path that a user means: `~` is the home folder, what is relative begins here; a bucket stays as it is."""
    if is_remote(path):
        return epath.Path(path)  # `resolve` would spoil the address
    return epath.Path(os.path.abspath(os.path.expanduser(path)))
