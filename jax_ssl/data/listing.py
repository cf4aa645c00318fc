"""What is below a folder, on a disk or in a bucket: listed once, remembered until it changes.

Hidden files are not seen. Hidden folders, those that systems leave behind, and the folders of runs are not looked into:
a run that writes beside the images it learns from does not learn from its own pictures. All else is counted.
"""

import errno
import itertools
import os
import posixpath
from collections import Counter
from concurrent.futures import ThreadPoolExecutor
from typing import NamedTuple

from jax_ssl.data import cache
from jax_ssl.data.about import counted, listed, printable
from jax_ssl.data.decode import EXTENSIONS
from jax_ssl.data.disk import patiently
from jax_ssl.data.words import SYSTEM_FILES, is_left_by_a_system
from jax_ssl.errors import UserError
from jax_ssl.paths import is_remote, resolve

LISTERS = 16  # folders listed at once, because a bucket takes its time
OF_A_RUN = {"checkpoints", "pictures", "events", "profile"}  # folders in a run's folder
WRITTEN = {"metrics.jsonl", "checkpoints", "pictures"}  # by every run, beside its config.json
DANGLING, NO_ENDING = "link to nothing", "file without an ending"
SEVERAL = {DANGLING: "links to nothing", NO_ENDING: "files without an ending"}


class Listing(NamedTuple):
    """Names are relative to the folder; those of folders end with a slash, "" is the folder itself."""

    names: list[str]  # of all images, sorted
    folders: list[str]  # that were looked into
    others: dict[str, dict[str, int]]  # folder -> {ending: how many files that are not read}
    skipped: dict[str, int]  # name of a folder that was not looked into -> how many of them


def list_images(root: str) -> Listing:
    """All that is below a folder; from the cache while no folder below it has changed.

    A bucket keeps no times of its folders: there, the names at the top are compared, and to see changes further
    down the entry has to be deleted from the cache. Raises UserError where there is no folder or one may not be read,
    LostError when the disk fails; a folder that is known from before and is gone or empty counts as that.
    """
    key = f"folder {root if is_remote(root) else os.path.realpath(root)} {' '.join(EXTENSIONS)}"
    entry = cache.load(key)
    absent = () if entry is not None else (FileNotFoundError, NotADirectoryError)
    try:
        found, stamp = patiently(
            lambda: _listed(root, entry), root, lambda error: isinstance(error, (PermissionError, *absent))
        )
    except PermissionError as error:
        raise UserError(f"{printable(str(error.filename or root))} may not be read: make it readable.") from error
    except (FileNotFoundError, NotADirectoryError) as error:
        raise UserError(f"There is no folder {printable(root)}: give the folder that holds the images.") from error
    # What a link to nothing names may come without a trace in its folder.
    if stamp is not None and not any(DANGLING in kinds for kinds in found.others.values()):
        packed = {name: cache.pack(value) for name, value in found._asdict().items()}
        cache.save(key, **packed, stamp=cache.pack(stamp))
    return found


def _listed(root: str, entry: dict | None) -> tuple[Listing, list | None]:
    """The listing, and its stamp if it is a new one. entry: what the cache has of an earlier one."""
    there = _at_the_top(root)
    if entry is not None:
        if not there and len(entry["names"]) > len(cache.pack([])):
            raise FileNotFoundError(errno.ENOENT, "it is empty and was not before", root)
        now = there if is_remote(root) else _changes(root, cache.unpack(entry["folders"]))
        if now == cache.unpack(entry["stamp"]):
            return Listing(*(cache.unpack(entry[name]) for name in Listing._fields)), None
    return _walk(root)


def _at_the_top(root: str) -> list[str]:
    """The names at the top of a bucket's folder; on a disk one of them, if there is one. OSError without a folder."""
    if not is_remote(root):
        with os.scandir(root) as entries:
            return [entry.name for entry in itertools.islice(entries, 1)]
    if not resolve(root).is_dir():
        raise FileNotFoundError(errno.ENOENT, "there is no such folder", root)
    return sorted(path.name for path in resolve(root).iterdir())


def _changes(root: str, folders: list[str]) -> list[int | None]:
    """When a file was last added to or removed from each folder (None: gone)."""
    return [_changed(os.path.join(root, folder)) for folder in folders]


def _changed(folder: str) -> int | None:
    try:
        return os.stat(folder).st_mtime_ns
    except OSError:
        return None


def _walk(root: str) -> tuple[Listing, list]:
    """All that is below root, and its stamp. Follows links, never in a circle."""
    list_one = _list_remote if is_remote(root) else _list_local
    folders, stamp, names, others, skipped, seen = [], [], [], {}, Counter(), set()
    level = [""]
    with ThreadPoolExecutor(LISTERS) as pool:
        while level:
            if not is_remote(root):
                level = [folder for folder in level if _is_new(os.path.join(root, folder), seen)]
                stamp += _changes(root, level)  # before listing: what is added meanwhile leads to another scan
            found = list(pool.map(lambda folder: list_one(root, folder), level))
            following = []
            for folder, (below, files) in zip(level, found, strict=True):
                images, rest, into, aside = sort_out(folder, below, files)
                names += images
                others |= {folder: rest} if rest else {}
                following += into
                skipped.update(aside)
            folders += level
            level = following
    return Listing(sorted(names), folders, others, dict(skipped)), _at_the_top(root) if is_remote(root) else stamp


def sort_out(folder: str, below: list[str], files: list[str]) -> tuple[list, dict, list, list]:
    """What is in one folder -> images, {ending: other files}, folders to look into, names of those that are not.

    A folder with config.json beside what runs write is a run's, one with ablations.jsonl a suite's.
    """
    there = {*below, *files}
    is_run = ("config.json" in there and there & WRITTEN) or "ablations.jsonl" in there
    if is_run and folder:
        return [], {}, [], [f"run folder {folder.rstrip('/')}"]
    aside = [name for name in below if is_left_by_a_system(name) or (is_run and name in OF_A_RUN)]
    files = [name for name in files if is_somebodys(name)]
    images = [folder + name for name in files if name.lower().endswith(EXTENSIONS)]
    rest = Counter(ending(name) for name in files if not name.lower().endswith(EXTENSIONS))
    of_run = {".json", ".jsonl"} if is_run else set()
    rest = {kind: count for kind, count in rest.items() if kind not in of_run}
    return images, rest, [f"{folder}{name}/" for name in below if name not in aside], aside


def is_somebodys(name: str) -> bool:
    """Whether a file was meant: not hidden, and not left by a system."""
    return not name.startswith(".") and name.lower() not in SYSTEM_FILES


def ending(name: str) -> str:
    """.tif of a.TIF; what a link to nothing was called ends with `DANGLING`."""
    if name.endswith("/" + DANGLING):
        return DANGLING
    return posixpath.splitext(name)[1].lower() or NO_ENDING


def _is_new(path: str, seen: set) -> bool:
    """Whether this folder has not been met on another way, by a link; remembers it."""
    status = os.stat(path)
    identity = status.st_dev, status.st_ino
    new = identity not in seen
    seen.add(identity)
    return new


def _list_local(root: str, folder: str) -> tuple[list[str], list[str]]:
    """The folders and the files in one folder, sorted; no pipes, which would be waited for.

    A link to nothing can't be read, whatever it is called.
    """
    below, files = [], []
    with os.scandir(os.path.join(root, folder)) as entries:
        for entry in sorted(entries, key=lambda entry: entry.name):
            if entry.is_dir():
                below.append(entry.name)
            elif entry.is_file():
                files.append(entry.name)
            elif entry.is_symlink() and not os.path.exists(entry.path):
                files.append(f"{entry.name}/{DANGLING}")
    return below, files


def _list_remote(root: str, folder: str) -> tuple[list[str], list[str]]:
    """The same in a bucket, where each question "is it a folder" is a request: what is called .jpg is not asked."""
    shown = sorted(path for path in resolve(f"{root}/{folder}").iterdir())
    images = {path.name for path in shown if path.name.lower().endswith(EXTENSIONS)}
    below = [path.name for path in shown if path.name not in images and path.is_dir()]
    return below, sorted({path.name for path in shown} - set(below))


def left_out(listing: Listing, classes_in: str) -> list[str]:
    """What is not read, in words. classes_in: the folder that holds the classes, "" or with a slash at the end.

    A class folder of which nothing can be read is named: it would vanish otherwise.
    """
    kinds = Counter()
    for found in listing.others.values():
        kinds.update(found)
    full = {name[len(classes_in) :].partition("/")[0] for name in listing.names if name.startswith(classes_in)}
    lost: dict[str, set] = {}
    for folder, found in listing.others.items():
        top = folder[len(classes_in) :].partition("/")[0] if folder.startswith(classes_in) else ""
        for kind in found if top and top not in full else ():
            lost.setdefault(kind, set()).add(top)
    empty = {folder[len(classes_in) :].partition("/")[0] for folder in listing.folders if folder.startswith(classes_in)}
    empty -= full | {""} | set().union(*lost.values())
    empty = sorted(name for name in empty if f"run folder {classes_in}{name}" not in listing.skipped)
    words = []
    for kind, count in sorted(kinds.items(), key=lambda pair: (-pair[1], pair[0])):
        only = f" (nothing else is in {listed(sorted(lost[kind]))})" if kind in lost else ""
        words.append(counted(count, kind, SEVERAL.get(kind, kind)) + only)
    words += [f"{counted(len(empty), 'empty folder')} ({listed(empty)})"] if empty else []
    return words + [name if count == 1 else f"{count:,} {name}" for name, count in sorted(listing.skipped.items())]
