"""All images of a source decoded to one size and kept in memory, for `data.augment=device`; cached between runs."""

import contextlib
import os
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor

import numpy as np
from PIL import Image

from jax_ssl.data import cache
from jax_ssl.data.broken import Broken, skipping_reader
from jax_ssl.data.source import Source
from jax_ssl.errors import UserError

LIMIT = 32_000_000_000  # bytes of pixels; what a device can really hold, it says itself


def with_images(source: Source, size: int, workers: int, broken: Broken, square: Callable, progress) -> Source:
    """The source with `images` uint8 (count, H, W, 3); in the place of an unreadable one is the next readable one.

    size: 0 for images that have one size already, else every image is made `square(image, size)`, uint8 (size, size,
    3). They are decoded once, and then mapped from the cache while no file changes. progress: as in `open_data`. Raises
    UserError where sizes differ or all of them take more than LIMIT.
    """
    read = skipping_reader(source, broken)
    array = lambda image: square(image, size) if size else np.asarray(image)
    shape = array(read(0)).shape
    total = source.count * int(np.prod(shape))
    if total > LIMIT:
        raise UserError(
            f"data.augment='device' keeps all images in device memory, and the {source.count:,} of {source.name} would "
            f"take {total / 1e9:.0f} GB: set data.augment='hybrid', or a smaller data.resident_size."
        )

    def decode_all() -> np.ndarray:
        images = np.empty((source.count, *shape), np.uint8)

        def fill(record: int) -> None:
            image = read(record)
            if not size and image.size != shape[1::-1]:
                raise UserError(_sizes_differ(source, shape, image))
            images[record] = array(image)

        with contextlib.ExitStack() as stack:
            pool = stack.enter_context(ThreadPoolExecutor(workers or os.cpu_count()))
            counter = stack.enter_context(progress("decoding all images, once", source.count)) if progress else None
            for _ in pool.map(fill, range(source.count)):
                if counter:
                    counter.add(1)
        return images

    state = source.state() if source.state else ""
    images = cache.load_or_make(f"resident {source.identity} {state} {size}", decode_all) if state else decode_all()
    return source._replace(images=images)


def _sizes_differ(source: Source, shape: tuple, image: Image.Image) -> str:
    return (
        f"data.augment='device' keeps all images in device memory, so they must have one size, and {source.name} has "
        f"{shape[1]}x{shape[0]} and {image.width}x{image.height}: set data.augment='hybrid', or data.resident_size=256 "
        "for squares of 256 pixels."
    )
