"""Batches made on the host by tf.data: decode, crop and flip (`hybrid`), or every operation (`host`).

The plan of a batch (records and draws) comes from numpy, so TensorFlow has no random number and no order of its own.
"""

import os
from collections.abc import Iterator

import tensorflow as tf

from jax_ssl.data.batch import FACTORS, Plan
from jax_ssl.data.broken import Broken, read_good
from jax_ssl.data.source import Source
from jax_ssl.views import host as on_host
from jax_ssl.views.cut import PLACE, cut

AHEAD = 2  # batches ready before they are asked for; more only takes memory

for kind in ("GPU", "TPU"):  # they belong to JAX; TensorFlow would take all of their memory
    tf.config.set_visible_devices([], kind)


def host_batches(plan: Plan, source: Source, broken: Broken, data, first: int) -> Iterator[dict]:
    """Endless batches from step `first` on, {group: {"image": (B, V, h, w, 3), factors...}}; raises DataError.

    data: config.data. Plans arrive a batch at a time and are taken apart, since a call from
    TensorFlow into Python costs about as much as decoding a small image.
    """
    workers = data.workers or os.cpu_count()
    cut_out = _cutter(plan, source, broken)

    def steps():
        step = first
        while True:
            record, drawn = plan.step(step)
            yield {"record": record, **drawn}
            step += 1

    def views(numbers):
        made = cut_out(numbers)
        return {name: _views(made[name], numbers[name], group, data) for name, group in plan.crops.items()}

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


def _cutter(plan: Plan, source: Source, broken: Broken):
    """-> function: the plan of one image -> {group: its views, uint8 (V, h, w, 3)}, cropped and flipped.

    One call into Python an image. Pillow lets go of the interpreter's lock while it decodes and resizes, and only the
    pixels of the views become arrays: those of a whole image would take longer than decoding it.
    """
    read, groups = read_good(source, broken), plan.crops

    def make(record, *drawn):
        image, drawn = read(int(record)), iter(drawn)
        return [cut(image, {name: next(drawn) for name in PLACE}, group) for group in groups.values()]

    def cut_out(numbers):
        drawn = [numbers[name][key] for name in groups for key in PLACE]
        made = tf.numpy_function(make, [numbers["record"], *drawn], [tf.uint8] * len(groups), stateful=False)
        shape = lambda name, group: (numbers[name]["flip"].shape[0], group[0]["size"], group[0]["size"], 3)
        return {name: tf.ensure_shape(views, shape(name, groups[name])) for name, views in zip(groups, made)}

    return cut_out


def _views(views, drawn: dict, group, data) -> dict:
    """One group of views of one image, and what the device still has to do to them."""
    if data.augment == "host":
        return {"image": on_host.finished(views, drawn, group, data.mean, data.std)}
    return {"image": views} | {name: drawn[name] for name in FACTORS}


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
