"""Lists all files below a folder, on a disk or in a bucket. The list is cached until a folder changes.

Hidden files are ignored. Hidden folders, system folders, and the folders of runs are not searched: a run that writes
beside its training images must not train on its own pictures. All other files are counted.
"""

import errno
import itertools
import os
import posixpath
from collections import Counter
from concurrent.futures import ThreadPoolExecutor
from typing import NamedTuple

from jax_ssl.data import cache
from jax_ssl.data.about import join_names, plural, printable
from jax_ssl.data.decode import EXTENSIONS
from jax_ssl.data.disk import retry
from jax_ssl.data.folder_names import SYSTEM_FILES, is_system_folder
from jax_ssl.errors import UserError
from jax_ssl.paths import is_remote, resolve

THREADS = 16  # folders listed at once, because a bucket answers slowly
RUN_FOLDERS = {"checkpoints", "pictures", "events", "profile"}  # folders inside a run's folder
RUN_FILES = {"metrics.jsonl", "checkpoints", "pictures"}  # written by every run, beside its config.json
DANGLING, NO_EXTENSION = "broken link", "file without an ending"
PLURALS = {DANGLING: "broken links", NO_EXTENSION: "files without an ending"}


class Listing(NamedTuple):
    """What is below a folder. Names are relative to it; those of folders end with a slash, "" is the folder itself."""

    names: list[str]  # of all images, sorted
    folders: list[str]  # that were searched
    others: dict[str, dict[str, int]]  # folder -> {extension: number of files that are not images}
    skipped: dict[str, int]  # name of a folder that was not searched -> how many of this name


def list_images(root: str) -> Listing:
    """Everything below a folder; from the cache while no folder below it has changed.

    A bucket has no modification times of folders. There only the names at the top are compared; to see changes further
    down, delete the cache. Raises UserError where there is no folder or one may not be read; LostError when the disk
    fails, or a folder in the cache is now gone or empty.
    """
    key = f"folder {root if is_remote(root) else os.path.realpath(root)} {' '.join(EXTENSIONS)}"
    entry = cache.load(key)
    absent = () if entry is not None else (FileNotFoundError, NotADirectoryError)
    try:
        found, stamp = retry(
            lambda: _cached_or_walk(root, entry), root, lambda error: isinstance(error, (PermissionError, *absent))
        )
    except PermissionError as error:
        raise UserError(f"{printable(str(error.filename or root))} may not be read: make it readable.") from error
    except (FileNotFoundError, NotADirectoryError) as error:
        raise UserError(f"There is no folder {printable(root)}: give the folder that holds the images.") from error
    # The target of a broken link may appear later without a change of the link's folder: such a listing is not cached.
    if stamp is not None and not any(DANGLING in kinds for kinds in found.others.values()):
        packed = {name: cache.pack(value) for name, value in found._asdict().items()}
        cache.save(key, **packed, stamp=cache.pack(stamp))
    return found


def _cached_or_walk(root: str, entry: dict | None) -> tuple[Listing, list | None]:
    """The listing, and its stamp if it is new, else None. entry: the earlier one from the cache, or None.

    stamp: what has to be equal for the listing to be still valid.
    """
    there = _top_names(root)
    if entry is not None:
        if not there and len(entry["names"]) > len(cache.pack([])):
            raise FileNotFoundError(errno.ENOENT, "it is empty and was not before", root)
        now = there if is_remote(root) else _modification_times(root, cache.unpack(entry["folders"]))
        if now == cache.unpack(entry["stamp"]):
            return Listing(*(cache.unpack(entry[name]) for name in Listing._fields)), None
    return _walk(root)


def _top_names(root: str) -> list[str]:
    """The names directly in a bucket's folder; on a disk only one, if any. Raises OSError where there is no folder."""
    if not is_remote(root):
        with os.scandir(root) as entries:
            return [entry.name for entry in itertools.islice(entries, 1)]
    if not resolve(root).is_dir():
        raise FileNotFoundError(errno.ENOENT, "there is no such folder", root)
    return sorted(path.name for path in resolve(root).iterdir())


def _modification_times(root: str, folders: list[str]) -> list[int | None]:
    """When a file was last added to or removed from each folder, in ns; None where the folder is gone."""
    return [_modification_time(os.path.join(root, folder)) for folder in folders]


def _modification_time(folder: str) -> int | None:
    try:
        return os.stat(folder).st_mtime_ns
    except OSError:
        return None


def _walk(root: str) -> tuple[Listing, list]:
    """Everything below root, and the stamp of `_cached_or_walk`. Follows links, but visits a folder only once."""
    list_one = _list_remote if is_remote(root) else _list_local
    folders, stamp, names, others, skipped, seen = [], [], [], {}, Counter(), set()
    level = [""]
    with ThreadPoolExecutor(THREADS) as pool:
        while level:
            if not is_remote(root):
                level = [folder for folder in level if _is_first_visit(os.path.join(root, folder), seen)]
                stamp += _modification_times(
                    root, level
                )  # before listing, so that a file added meanwhile leads to another scan
            found = list(pool.map(lambda folder: list_one(root, folder), level))
            following = []
            for folder, (below, files) in zip(level, found, strict=True):
                images, rest, into, skipped_here = sort_entries(folder, below, files)
                names += images
                others |= {folder: rest} if rest else {}
                following += into
                skipped.update(skipped_here)
            folders += level
            level = following
    return Listing(sorted(names), folders, others, dict(skipped)), _top_names(root) if is_remote(root) else stamp


def sort_entries(folder: str, below: list[str], files: list[str]) -> tuple[list, dict, list, list]:
    """What is in one folder -> images, {extension: number of other files}, folders to search, names of skipped folders.

    folder: its name. below, files: the names of its folders and files. A folder with config.json and RUN_FILES is a
    run's; one with ablations.jsonl is that of an ablation suite.
    """
    there = {*below, *files}
    is_run = ("config.json" in there and there & RUN_FILES) or "ablations.jsonl" in there
    if is_run and folder:
        return [], {}, [], [f"run folder {folder.rstrip('/')}"]
    skipped_here = [name for name in below if is_system_folder(name) or (is_run and name in RUN_FOLDERS)]
    files = [name for name in files if is_user_file(name)]
    images = [folder + name for name in files if name.lower().endswith(EXTENSIONS)]
    rest = Counter(extension(name) for name in files if not name.lower().endswith(EXTENSIONS))
    of_run = {".json", ".jsonl"} if is_run else set()
    rest = {kind: count for kind, count in rest.items() if kind not in of_run}
    return images, rest, [f"{folder}{name}/" for name in below if name not in skipped_here], skipped_here


def is_user_file(name: str) -> bool:
    """Whether a file is neither hidden nor written by an operating system."""
    return not name.startswith(".") and name.lower() not in SYSTEM_FILES


def extension(name: str) -> str:
    """`.tif` for a.TIF, or NO_EXTENSION; DANGLING for a broken link, whose name `_list_local` has marked with it."""
    if name.endswith("/" + DANGLING):
        return DANGLING
    return posixpath.splitext(name)[1].lower() or NO_EXTENSION


def _is_first_visit(path: str, seen: set) -> bool:
    """Whether this folder was not visited before, through a link; adds it to `seen`."""
    status = os.stat(path)
    identity = status.st_dev, status.st_ino
    new = identity not in seen
    seen.add(identity)
    return new


def _list_local(root: str, folder: str) -> tuple[list[str], list[str]]:
    """The names of the folders and of the files in one folder, sorted. Pipes are ignored, as reading one would wait.

    A broken link is marked, so that it does not count as an image.
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
    """The same in a bucket. `is_dir` is a request there, so it is not asked for names with an image's extension."""
    shown = sorted(path for path in resolve(f"{root}/{folder}").iterdir())
    images = {path.name for path in shown if path.name.lower().endswith(EXTENSIONS)}
    below = [path.name for path in shown if path.name not in images and path.is_dir()]
    return below, sorted({path.name for path in shown} - set(below))


def describe_left_out(listing: Listing, classes_in: str) -> list[str]:
    """What is not read, in words. classes_in: the folder that holds the classes, "" or with a slash at the end.

    Class folders without a readable image are named, because these classes would be missing unnoticed.
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
        only = f" (nothing else is in {join_names(sorted(lost[kind]))})" if kind in lost else ""
        words.append(plural(count, kind, PLURALS.get(kind, kind)) + only)
    words += [f"{plural(len(empty), 'empty folder')} ({join_names(empty)})"] if empty else []
    return words + [name if count == 1 else f"{count:,} {name}" for name, count in sorted(listing.skipped.items())]
