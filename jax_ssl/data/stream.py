"""Batches made on the host by tf.data: decode, crop and flip (`hybrid`), or every operation (`host`).

The plan of a batch (records and draws) comes from numpy, so TensorFlow has no random number and no order of its own.
"""

import os
from collections.abc import Iterator

import tensorflow as tf

from jax_ssl.data import ops
from jax_ssl.data.broken import Broken, read_good
from jax_ssl.data.pipeline import FACTORS, Plan
from jax_ssl.data.sources import Source

AHEAD = 2  # batches ready before they are asked for; more only takes memory

for kind in ("GPU", "TPU"):  # they belong to JAX; TensorFlow would take all of their memory
    tf.config.set_visible_devices([], kind)


def host_batches(plan: Plan, source: Source, broken: Broken, data, first: int) -> Iterator[dict]:
    """Endless batches from step `first` on, {group: {"image": (B, V, h, w, 3), factors...}}; raises DataError.

    data: config.data. Plans arrive a batch at a time and are taken apart, since a call from
    TensorFlow into Python costs about as much as decoding a small image.
    """
    workers = data.workers or os.cpu_count()
    pixels = _from_memory(source) if source.images is not None else _from_files(source, broken)

    def steps():
        step = first
        while True:
            record, drawn = plan.step(step)
            yield {"record": record, **drawn}
            step += 1

    def views(numbers):
        image = pixels(numbers["record"])
        return {name: _views(image, numbers[name], group, data) for name, group in plan.crops.items()}

    dataset = tf.data.Dataset.from_generator(steps, output_signature=_signature(plan))
    dataset = dataset.unbatch().map(views, num_parallel_calls=workers, deterministic=True)
    dataset = dataset.batch(plan.share, drop_remainder=True).prefetch(AHEAD).with_options(_options(workers))
    return _checked(dataset.as_numpy_iterator(), broken)


def _checked(batches: Iterator[dict], broken: Broken) -> Iterator[dict]:
    """The same batches; too many broken records end them here, in the thread that asks, as what they are."""
    while True:
        try:
            batch = next(batches)
        except tf.errors.OpError:
            broken.check()
            raise
        broken.check()
        yield batch


def _views(image, drawn: dict, group, data) -> dict:
    """One group of views of one image, and what the device still has to do to them."""
    shown = {"image": ops.host_views(image, drawn, group, data.augment, data.mean, data.std)}
    return shown if data.augment == "host" else shown | {name: drawn[name] for name in FACTORS}


def _from_memory(source: Source):
    images = tf.constant(source.images)
    return lambda record: tf.gather(images, record)


def _from_files(source: Source, broken: Broken):
    read = read_good(source, broken)

    def pixels(record):
        image = tf.numpy_function(read, [record], tf.uint8, stateful=False)
        return tf.ensure_shape(image, (None, None, 3))

    return pixels


def _signature(plan: Plan) -> dict:
    """What `steps` yields, for TensorFlow: the arrays of a one-image plan with the host's share as their first axis."""
    record, drawn = plan._replace(share=1).step(0)
    return tf.nest.map_structure(
        lambda array: tf.TensorSpec((plan.share, *array.shape[1:]), array.dtype), {"record": record, **drawn}
    )


def _options(workers: int) -> tf.data.Options:
    """Nothing automatic: autotuned buffers are what eats a host's memory. After big_vision's input_pipeline.py."""
    options = tf.data.Options()
    options.deterministic = True
    options.autotune.enabled = False
    options.experimental_optimization.inject_prefetch = False
    options.threading.private_threadpool_size = workers
    options.threading.max_intra_op_parallelism = 1
    return options
