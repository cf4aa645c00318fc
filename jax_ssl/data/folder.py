"""Folders of images, on a disk or in a bucket: found once, remembered, read defensively. No TensorFlow on a disk.

    PATH/CLASS/any/depth/IMAGE              labelled; a tenth of each class is held out as `test`
    PATH/train/..., PATH/test|val/...       splits as they are, each with or without classes
    PATH/IMAGE, PATH/...                    anything else: images without labels

One folder that holds everything is looked into. Names beginning with a dot are not looked at.
"""

import os
import zlib
from collections.abc import Iterable
from concurrent.futures import ThreadPoolExecutor
from typing import NamedTuple

import numpy as np
from etils import epath
from PIL import Image

from jax_ssl.data import cache
from jax_ssl.data.decode import BrokenImage, decode
from jax_ssl.data.sources import Source, split_apart
from jax_ssl.errors import UserError
from jax_ssl.paths import is_remote, resolve

EXTENSIONS = (".jpeg", ".jpg", ".png", ".webp", ".bmp", ".gif")
TESTS = ("test", "val", "valid", "validation")  # what people call the other folder; the first that has labels is taken
LISTERS = 16  # folders listed at once, because a bucket takes its time


class Part(NamedTuple):
    """The images of one split."""

    prefix: str  # of the names, below the folder
    names: list[str]  # sorted
    classes: list[str] | None  # the class of each image


def open_folder(folder: str, split: str) -> Source:
    """The images below a folder; see the head of this file. folder: a path, ~ and gs:// included."""
    root = os.fspath(resolve(folder))
    names = image_names(root)
    if not names:
        raise UserError(f"{folder} holds no images: put jpeg, png, webp, bmp or gif files there, in folders or not.")
    parts = split_parts(names)
    train, test = parts["train"], next((parts[name] for name in TESTS if name in parts and parts[name].classes), None)
    classes = known_classes((train, test or train))
    if split == "test" and test:
        return _source(folder, root, test, classes)
    if split == "train" and test:
        return _source(folder, root, train, classes)
    if split in parts and split not in ("train", "test"):
        return _source(folder, root, parts[split], known_classes((parts[split],)))
    keys = np.array([zlib.crc32(os.fsencode(name)) for name in train.names])
    return split_apart(_source(folder, root, train, classes), split, keys)


def split_parts(names: list[str]) -> dict[str, Part]:
    """The splits of a folder: its own, or all of it as `train`. names: relative, sorted.

    `train` is a split where a test folder stands beside it, or nothing: a set of vehicles may have a class `train`.
    """
    tops = {name.partition("/")[0] for name in names if "/" in name}
    if "train" in tops and (tops & set(TESTS) or (len(tops) == 1 and all("/" in name for name in names))):
        return {top: part([name for name in names if name.startswith(top + "/")]) for top in sorted(tops)}
    return {"train": part(names)}


def part(names: list[str]) -> Part:
    """Goes down through folders that hold everything, then takes the folders for classes if there are only folders."""
    prefix = ""
    while True:
        inner = [name[len(prefix) :].partition("/") for name in names]
        tops = {top for top, _, rest in inner if rest}
        if len(tops) != 1 or not all(rest for _, _, rest in inner):
            break
        prefix += tops.pop() + "/"
    all_in_folders = all(rest for _, _, rest in inner)
    return Part(prefix, names, [top for top, _, _ in inner] if all_in_folders else None)


def known_classes(parts: Iterable[Part]) -> list[str]:
    """The class names of some splits, sorted: their places are the labels, in whichever split."""
    return sorted({name for part in parts for name in part.classes or ()})


def _source(folder: str, root: str, part: Part, classes: list[str]) -> Source:
    number = {name: place for place, name in enumerate(classes)}
    labels = np.array([number[name] for name in part.classes], np.int32) if part.classes else None

    def read(record: int) -> Image.Image:
        name = part.names[record]
        try:
            data = _bytes(root, name)
        except OSError as error:
            raise BrokenImage(name, f"can't be opened: {error.strerror or error}") from error
        return decode(data, name)

    return Source(
        name=f"folder:{folder}",
        count=len(part.names),
        labels=labels,
        classes=len(classes) if part.classes else 0,
        images=None,
        read=read,
        describe=lambda record: part.names[record],
    )


def _bytes(root: str, name: str) -> bytes:
    if is_remote(root):
        return epath.Path(root, name).read_bytes()
    with open(os.path.join(root, name), "rb") as file:
        return file.read()


def image_names(root: str) -> list[str]:
    """The names of all images below a folder, relative, sorted; from the cache while no folder below it has changed.

    A bucket keeps no times of its folders: there, the names at the top are compared, and to see changes further
    down the entry has to be deleted from the cache.
    """
    if not epath.Path(root).is_dir():
        raise UserError(f"There is no folder {root}: give folder:PATH the folder that holds the images.")
    key = f"folder {root if is_remote(root) else os.path.realpath(root)}"
    entry = cache.load(key)
    if entry is not None and _stamp(root, cache.unpack(entry["folders"])) == cache.unpack(entry["stamp"]):
        return cache.unpack(entry["names"])
    try:
        folders, stamp, names = _walk(root)
    except OSError as error:
        raise UserError(f"{root} can't be read: {error}. Make all folders in it readable.") from error
    cache.save(key, folders=cache.pack(folders), stamp=cache.pack(stamp), names=cache.pack(names))
    return names


def _stamp(root: str, folders: list[str]) -> list:
    """When a file was last added to or removed from each folder (None: gone); for a bucket, the names at its top."""
    if is_remote(root):
        return sorted(path.name for path in epath.Path(root).iterdir())
    return [_changed(os.path.join(root, folder)) for folder in folders]


def _changed(folder: str) -> int | None:
    try:
        return os.stat(folder).st_mtime_ns
    except OSError:
        return None


def _walk(root: str) -> tuple[list[str], list, list[str]]:
    """All folders below root with their stamp, and all images: relative names. Follows links, never in a circle."""
    list_one = _list_remote if is_remote(root) else _list_local
    folders, stamp, names, seen = [], [], [], set()
    level = [""]
    with ThreadPoolExecutor(LISTERS) as pool:
        while level:
            if not is_remote(root):
                level = [folder for folder in level if _is_new(os.path.join(root, folder), seen)]
                stamp += _stamp(root, level)  # before listing: what is added meanwhile leads to another scan
            found = list(pool.map(lambda folder: list_one(root, folder), level))
            folders += level
            names += [folder + name for folder, (_, files) in zip(level, found, strict=True) for name in files]
            level = [f"{folder}{name}/" for folder, (below, _) in zip(level, found, strict=True) for name in below]
    return folders, stamp if not is_remote(root) else _stamp(root, folders), sorted(names)


def _is_new(path: str, seen: set) -> bool:
    """Whether this folder has not been met on another way, by a link; remembers it."""
    status = os.stat(path)
    identity = status.st_dev, status.st_ino
    new = identity not in seen
    seen.add(identity)
    return new


def _list_local(root: str, folder: str) -> tuple[list[str], list[str]]:
    """The folders and the images in one folder."""
    with os.scandir(os.path.join(root, folder)) as entries:
        shown = sorted((entry.name, entry.is_dir()) for entry in entries if not entry.name.startswith("."))
    files = [name for name, is_folder in shown if not is_folder and name.lower().endswith(EXTENSIONS)]
    return [name for name, is_folder in shown if is_folder], files


def _list_remote(root: str, folder: str) -> tuple[list[str], list[str]]:
    """The same in a bucket, where each question "is it a folder" is a request: what is called .jpg is not asked."""
    shown = sorted(path for path in epath.Path(root, folder).iterdir() if not path.name.startswith("."))
    files = [path.name for path in shown if path.name.lower().endswith(EXTENSIONS)]
    others = [path for path in shown if not path.name.lower().endswith(EXTENSIONS)]
    return [path.name for path in others if path.is_dir()], files
