"""Checks a file that a flag names for a result, before the work and not after it."""

import os

from etils import epath

from jax_ssl.errors import UserError
from jax_ssl.paths import is_remote, resolve


def check_file(flag: str, path: str) -> epath.Path | None:
    """The path of a flag such as `--out=PATH`, None for "". Raises UserError if it can't be written."""
    if not path:
        return None
    file = resolve(path)
    if is_remote(path):
        return file  # whether a bucket can be written to is only known after writing
    if file.is_dir():
        raise UserError(f"{flag}={path} is a folder: name a file in it.")
    if not file.parent.is_dir():
        raise UserError(f"{flag}={path}: there is no folder {file.parent}: make it, or choose another {flag}.")
    there = file.exists()
    try:
        with open(file, "ab"):
            pass
    except OSError as error:
        raise UserError(f"{flag}={path} can't be written ({error.strerror}): choose another {flag}.") from error
    if not there:
        os.remove(file)  # a command that fails later leaves nothing behind
    return file
