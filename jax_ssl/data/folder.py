"""Folders of images, on a disk or in a bucket: found once, remembered, read defensively. No TensorFlow on a disk.

    PATH/CLASS/any/depth/IMAGE              labelled; a tenth of each class is held out as `test`
    PATH/train/..., PATH/test|val/...       splits as they are, each with or without classes, however they are called
    PATH/IMAGE, PATH/...                    anything else: images without labels

`layout` has the rules, `listing` finds the names; what was understood and what is left out is in `Source.about`.
"""

import os
import zlib

import numpy as np
from PIL import Image

from jax_ssl.data.about import About, digest, listed, printable, sentence
from jax_ssl.data.classes import Part
from jax_ssl.data.decode import KINDS, decode
from jax_ssl.data.disk import read_bytes
from jax_ssl.data.layout import understand
from jax_ssl.data.listing import Listing, left_out, list_images
from jax_ssl.data.source import Source, split_apart
from jax_ssl.errors import UserError
from jax_ssl.paths import resolve


def open_folder(folder: str, split: str) -> Source:
    """The images below a folder; see the head of this file. folder: a path, ~ and gs:// included."""
    root = os.fspath(resolve(folder))
    listing = found_in(root, folder)
    name = f"folder:{printable(folder)}"
    layout = understand(tuple(listing.names), name)
    train, test = layout.train, layout.test
    classes = sorted({*(train.classes or ()), *(test.classes if test else ())})
    inside = f"{train.place}/" if train.place and "*" not in train.place else ""
    about = About(name, train.place, test.place if test else "", layout.notes,
                  (*left_out(listing, inside), *layout.left_out))  # fmt: skip
    if split in ("train", "test") and test:
        text = sentence(about, len(train.names), len(set(train.classes or ())), len(test.names))
        return _source(name, root, train if split == "train" else test, classes)._replace(about=text)
    if split in ("train", "test"):
        keys = np.array([zlib.crc32(os.fsencode(name)) for name in train.names])
        return split_apart(_source(name, root, train, classes), split, keys, about)
    if split not in layout.others:
        known = ", ".join(sorted({"train", "test", *layout.others}))
        raise UserError(f"{name} has no split {split!r}: choose one of {known}.")
    part = layout.others[split]
    classes = classes if set(part.classes or ()) <= set(classes) else sorted(set(part.classes))
    about = about._replace(train_in=part.place, notes=part.notes)
    text = sentence(about, len(part.names), len(set(part.classes or ())), None)
    return _source(name, root, part, classes)._replace(about=text)


def found_in(root: str, shown: str) -> Listing:
    """What is below a folder, which the user calls `shown`. Raises UserError where no image is, with what else is."""
    listing = list_images(root)
    if not listing.names:
        there = left_out(listing, "")
        raise UserError(
            f"{printable(shown)} holds no images{f' but {listed(there)}' if there else ''}: put {KINDS} files there, "
            "in folders or not."
        )
    return listing


def _source(name: str, root: str, part: Part, classes: list[str]) -> Source:
    number = {name: place for place, name in enumerate(classes)}
    labels = np.array([number[name] for name in part.classes], np.int32) if part.classes else None

    def read(record: int) -> Image.Image:
        return decode(read_bytes(root, part.names[record]), part.names[record])

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
    )
