"""A folder of images, on a disk or in a bucket, as a `Source`. No TensorFlow for folders on a disk.

    PATH/CLASS/any/depth/IMAGE              labelled; a tenth of each class is held out as `test`
    PATH/train/..., PATH/test|val/...       splits, under many names, each with or without classes
    PATH/IMAGE, PATH/...                    anything else: images without labels

`listing` finds the files, `layout` decides what they are. `Source.about` says what was found and what is left out.
"""

import os
import zlib

import numpy as np
from PIL import Image

from jax_ssl.data.about import About, digest, join_names, printable, source_line
from jax_ssl.data.classes import Part
from jax_ssl.data.decode import KINDS, decode
from jax_ssl.data.disk import read_bytes
from jax_ssl.data.layout import layout_of
from jax_ssl.data.listing import Listing, describe_left_out, list_images
from jax_ssl.data.source import Source, train_or_test
from jax_ssl.errors import UserError
from jax_ssl.paths import changes, is_remote, resolve


def open_folder(folder: str, split: str) -> Source:
    """A split of the images below a folder; see the top of this file.

    folder: a path; ~ and gs:// are allowed. split: `train`, `test`, or the name of a split's folder. Raises UserError
    where there are no images, the folder is not clear, or it has no such split.
    """
    root = os.fspath(resolve(folder))
    listing = find_images(root, folder)
    name = f"folder:{printable(folder)}"
    layout = layout_of(tuple(listing.names), name)
    train, test = layout.train, layout.test
    classes = sorted({*(train.classes or ()), *(test.classes if test else ())})
    inside = f"{train.place}/" if train.place and "*" not in train.place else ""
    about = About(name, train.place, test.place if test else "", layout.notes,
                  (*describe_left_out(listing, inside), *layout.left_out))  # fmt: skip
    if split in ("train", "test") and test:
        text = source_line(about, len(train.names), len(set(train.classes or ())), len(test.names))
        return _source(name, root, train if split == "train" else test, classes)._replace(about=text)
    if split in ("train", "test"):
        keys = np.array([zlib.crc32(os.fsencode(name)) for name in train.names])
        return train_or_test(_source(name, root, train, classes), split, keys, about)
    if split not in layout.others:
        known = ", ".join(sorted({"train", "test", *layout.others}))
        raise UserError(f"{name} has no split {split!r}: choose one of {known}.")
    part = layout.others[split]
    classes = classes if set(part.classes or ()) <= set(classes) else sorted(set(part.classes))
    about = about._replace(train_in=part.place, notes=part.notes)
    text = source_line(about, len(part.names), len(set(part.classes or ())), None)
    return _source(name, root, part, classes)._replace(about=text)


def find_images(root: str, folder: str) -> Listing:
    """The files below `root`. folder: the same as the user wrote it. Raises UserError if none is an image."""
    listing = list_images(root)
    if not listing.names:
        there = describe_left_out(listing, "")
        raise UserError(
            f"{printable(folder)} holds no images{f' but {join_names(there)}' if there else ''}: put {KINDS} files "
            "there, in folders or not."
        )
    return listing


def _source(name: str, root: str, part: Part, classes: list[str]) -> Source:
    number = {name: place for place, name in enumerate(classes)}
    labels = np.array([number[name] for name in part.classes], np.int32) if part.classes else None

    def read(record: int, *reduction) -> Image.Image:
        return decode(read_bytes(root, part.names[record]), part.names[record], *reduction)

    return Source(
        name=name,
        count=len(part.names),
        labels=labels,
        classes=len(classes) if part.classes else 0,
        images=None,
        read=read,
        describe=lambda record: printable(part.names[record]),
        class_names=tuple(map(printable, classes)) if part.classes else (),
        identity=digest("\0".join(part.names), labels if labels is not None else "no labels"),
        state=None if is_remote(root) else lambda: state_of(root, part.names),
    )


def state_of(root: str, names: list[str]) -> str:
    """A digest of where files lie, their sizes and when they were changed: that of a `Source`."""
    return digest(root, *(f"{size} {changed}" for size, changed in changes(root, names)))
