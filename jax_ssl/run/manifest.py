"""The manifest of a checkpoint: the size and SHA-256 of each of its files when they were written.

Orbax commits a step as a whole, but does not check its bytes later: it restores a changed bit without an error. So each
step has a `manifest.json`, written after its last data file and before the step is committed. A step folder with its
final name therefore has a manifest, unless it was not made by this library.

This file needs no jax.
"""

import hashlib
import json
from concurrent.futures import ThreadPoolExecutor

from etils import epath

from jax_ssl import paths

NAME = "manifest.json"
BLOCK = 2**22  # bytes read at once


class Damaged(Exception):
    """The files of a checkpoint are not what was written; the message says what is wrong, as the end of a sentence."""


def write(folder: epath.Path, item: str, **facts) -> None:
    """Records every file below `folder/item`, and `facts` (any JSON), in `folder/manifest.json`."""
    files = sorted(_files(folder / item))
    with ThreadPoolExecutor(8) as pool:  # hashlib releases Python's global lock, and gs:// waits for the network
        entries = list(pool.map(_fingerprint, files))
    body = {**facts, "files": {str(path.relative_to(folder)): entry for path, entry in zip(files, entries)}}
    (folder / NAME).write_text(json.dumps({"sha256": _digest(body), "body": body}, indent=1, sort_keys=True))


def read(folder: epath.Path) -> dict:
    """The facts and files recorded for a step; raises `Damaged` if there is no manifest or it is not as written."""
    try:
        record = json.loads((folder / NAME).read_text())
    except FileNotFoundError:
        raise Damaged("it was never finished: it has no manifest") from None
    except ValueError:  # neither JSON nor UTF-8
        raise Damaged("its manifest cannot be read") from None
    if not isinstance(record, dict) or _digest(record.get("body")) != record.get("sha256"):
        raise Damaged("its manifest does not match its own checksum")
    return record["body"]


def verify(folder: epath.Path) -> dict:
    """Like `read`, but compares every file with its record first. Raises `Damaged` if one differs or is missing.

    A file may be deleted meanwhile, by a process that trains in that folder. OSError means that the disk can't be read;
    the step may still be good.
    """
    body = read(folder)
    files = [(folder / name, name, entry) for name, entry in sorted(body["files"].items())]
    try:
        for path, name, entry in files:
            size = paths.size(path)
            if size != entry["bytes"]:
                raise Damaged(f"{name} has {size} bytes where {entry['bytes']} were written")
        with ThreadPoolExecutor(8) as pool:
            found = list(pool.map(lambda file: _fingerprint(file[0]), files))
    except FileNotFoundError as error:
        names = {str(path): name for path, name, _ in files}
        raise Damaged(f"{names.get(str(error.filename), 'one of its files')} is missing") from None
    for (_, name, entry), now in zip(files, found):
        if now != entry:
            raise Damaged(f"{name} does not match its checksum")
    return body


def fault(folder: epath.Path) -> str | None:
    """What is wrong with the files of a step, as the end of a sentence; None if they are as they were written."""
    try:
        verify(folder)
    except Damaged as damage:
        return str(damage)


def _files(folder: epath.Path):
    for path in folder.iterdir():
        if path.is_dir():
            yield from _files(path)
        else:
            yield path


def _fingerprint(path: epath.Path) -> dict:
    total, size = hashlib.sha256(), 0
    with path.open("rb") as file:
        while block := file.read(BLOCK):
            total.update(block)
            size += len(block)
    return {"bytes": size, "sha256": total.hexdigest()}


def _digest(body) -> str:
    return hashlib.sha256(json.dumps(body, sort_keys=True).encode()).hexdigest()
