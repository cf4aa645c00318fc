"""What a method has to know of all training images before its first step: counted in one pass, and kept.

A Method names it in `tallies`: {entry of `extra`: function(images, uint8 (n, S, S, 3)) -> numbers}, which are summed
over the training set. They are part of the state from then on, so that a run that goes on has the same; beside that
they lie in the cache, for the next run on the same images. Of a very large set every k-th image is counted.
"""

import json
import os
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor

import jax
import numpy as np

from jax_ssl import config as configs
from jax_ssl.data import cache, pipeline
from jax_ssl.data.decode import BrokenImage
from jax_ssl.run.progress import Counter

SAMPLE = 64  # images that a method looks at before anything else
COUNTED = 50_000  # images, at most, that are counted
CHUNK = 256  # images at once


def look(method, config, source) -> None:
    """Shows a method some of the training images. Raises UserError where they can't teach it anything."""
    if method.look:
        records = spread(source.count, SAMPLE)
        for images in views(source, records, side(config), config.data.workers):
            method.look(images)


def count(method, state, config, source, say, alive=lambda: None):
    """The state before the first step, with the method's tallies of the training images in its `extra`.

    say: told how far it is. alive: called for each chunk.
    """
    if not method.tallies:
        return state
    key = f"tallies {source.identity} {side(config)} {json.dumps(configs.to_dict(config)['method'], sort_keys=True)}"
    found = cache.load(key)
    if found is None:
        records = spread(source.count, COUNTED)
        say(f"counting over {len(records):,} training images, once: {', '.join(method.tallies)}")
        with Counter("counting", len(records), say) as counter:
            told = lambda images: (counter.add(len(images)), alive())
            found = summed(method.tallies, views(source, records, side(config), config.data.workers), told)
        cache.save(key, **found)
    placed = {name: jax.device_put(np.asarray(found[name], leaf.dtype), leaf.sharding)
              for name, leaf in state.extra.items() if name in method.tallies}  # fmt: skip
    return state.replace(extra=state.extra | placed)


def summed(tallies, chunks, told=lambda images: None) -> dict[str, np.ndarray]:
    """{name: sum over all images}, in double, as a million pixels and one more are the same in single.

    told: called with each chunk.
    """
    totals, compiled = {}, {name: jax.jit(function) for name, function in tallies.items()}
    for images in chunks:
        for name, function in compiled.items():
            totals[name] = totals.get(name, 0.0) + np.asarray(function(images), np.float64)
        told(images)
    return totals


def side(config) -> int:
    """The side of the views, in pixels, at which images are looked at."""
    return config.data.crops["views"][0]["size"]


def spread(total: int, most: int) -> np.ndarray:
    """Record numbers, evenly spread, at most so many."""
    return np.arange(0, total, -(-total // most))


def views(source, records: np.ndarray, size: int, workers: int) -> Iterator[np.ndarray]:
    """Centres of those records, uint8 (n, size, size, 3), in chunks; those that can't be read are left out."""

    def view(record):
        try:
            return pipeline.centre_crop(source.read(int(record)), size, 1.0)
        except BrokenImage:  # the pipeline counts it and says so
            return None

    with ThreadPoolExecutor(workers or os.cpu_count()) as pool:
        for start in range(0, len(records), CHUNK):
            read = [image for image in pool.map(view, records[start : start + CHUNK]) if image is not None]
            if read:
                yield np.stack(read)
