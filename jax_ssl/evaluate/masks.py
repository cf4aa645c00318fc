"""Images with a mask of classes for each pixel, from a folder in one of three layouts.

    FOLDER/images/train/a.jpg    FOLDER/masks/train/a.png         and val: any set; 255 in a mask is not counted
    FOLDER/images/training/...   FOLDER/annotations/training/...  and validation: ADE20k; 0 and 255 are not counted
    FOLDER/JPEGImages/a.jpg      FOLDER/SegmentationClass/a.png   and ImageSets/Segmentation/{train,val}.txt: VOC; 255

A mask is a PNG whose values are numbers of classes: grey, or with a palette, whose colours do not matter.
"""

import io
from typing import NamedTuple

import numpy as np
from PIL import Image

from jax_ssl import paths
from jax_ssl.errors import UserError
from jax_ssl.views.sizes import Size, sides

IMAGES = (".jpg", ".jpeg", ".png", ".webp")


class Masked(NamedTuple):
    """Pairs of files (image, mask), of a training and of a validation set; `ignored` are classes that don't count."""

    train: list
    test: list
    ignored: tuple[int, ...]
    layout: str


def find(folder: str) -> Masked:
    """The pairs of a folder, sorted by name. Raises UserError where it has no such layout, or a mask is missing."""
    root = paths.resolve(folder)
    if (root / "SegmentationClass").is_dir():
        lists = [root / "ImageSets" / "Segmentation" / f"{split}.txt" for split in ("train", "val")]
        missing = [str(path) for path in lists if not path.exists()]
        if missing:
            raise UserError(f"{folder} looks like VOC and lacks {missing[0]}: give the whole VOCdevkit/VOC2012.")
        names = [path.read_text().split() for path in lists]
        pairs = [
            [(root / "JPEGImages" / f"{name}.jpg", root / "SegmentationClass" / f"{name}.png") for name in split]
            for split in names
        ]
        return Masked(*pairs, (255,), "voc")
    for masks, splits, ignored, layout in (
        ("annotations", ("training", "validation"), (0, 255), "ade20k"),
        ("masks", ("train", "val"), (255,), "folder"),
    ):
        if (root / masks).is_dir():
            return Masked(*(_pairs(root, masks, split) for split in splits), ignored, layout)
    raise UserError(
        f"{folder} has no masks: give a folder with images/train, masks/train, images/val and masks/val, or ADE20k or "
        "VOC as they come."
    )


def _pairs(root, masks: str, split: str) -> list:
    """(image, mask) for each image of a split."""
    folder = root / "images" / split
    found = sorted(folder.iterdir()) if folder.is_dir() else []
    images = [path for path in found if path.suffix.lower() in IMAGES]
    if not images:
        raise UserError(f"{folder} has no images: put the {split} images there, and their masks into {masks}/{split}.")
    pairs = [(path, root / masks / split / f"{path.stem}.png") for path in images]
    missing = [mask for _, mask in pairs if not mask.exists()]
    if missing:
        raise UserError(f"{missing[0]} is missing: each image needs a mask of its name, as PNG.")
    return pairs


def read(pair, size: Size) -> tuple[np.ndarray, np.ndarray]:
    """An image uint8 (H, W, 3) and its mask uint8 (H, W), both squashed to that size: bicubic, and nearest.

    Raises UserError for a mask of another size than its image, or one in colours.
    """
    image, mask = (Image.open(io.BytesIO(path.read_bytes())) for path in pair)
    if image.size != mask.size:
        raise UserError(
            f"{pair[1]} is {mask.width} x {mask.height} pixels and its image {image.width} x {image.height}: a mask "
            "has one number for each pixel of its image, so make them of one size."
        )
    if mask.mode not in ("P", "L", "1", "I", "I;16"):
        raise UserError(f"{pair[1]} is in colours ({mask.mode}): a mask has a number of a class for each pixel.")
    height, width = sides(size)
    image = image.convert("RGB").resize((width, height), Image.Resampling.BICUBIC)
    return np.asarray(image), np.asarray(mask.resize((width, height), Image.Resampling.NEAREST)).astype(np.uint8)
