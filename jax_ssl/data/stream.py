"""Batches made on the host by tf.data: decode, crop and flip (`hybrid`), or every operation (`host`).

The records and random numbers of a batch come from NumPy, so TensorFlow draws no random number and no order.
"""

import os
from collections.abc import Iterator

import tensorflow as tf

from jax_ssl.data.batch import FACTORS, Plan
from jax_ssl.data.broken import Broken, skipping_reader
from jax_ssl.data.source import Source
from jax_ssl.views import host as on_host
from jax_ssl.views.cut import PLACE, cut_views

PREFETCH = 2  # batches made ahead of time; more only takes memory

for kind in ("GPU", "TPU"):  # JAX uses these; TensorFlow would reserve all of their memory
    tf.config.set_visible_devices([], kind)


def host_batches(plan: Plan, source: Source, broken: Broken, data, first: int) -> Iterator[dict]:
    """Endless batches from step `first` on: {group: {"image": (B, V, h, w, 3), factors...}}, with this host's share B.

    "image" is uint8 in mode `hybrid`, and float32 without factors in mode `host`. data: config.data. Raises DataError
    and LostError as `Broken.check` does. TensorFlow asks Python for the plan of a whole batch at a time, because a call
    into Python costs about as much as decoding a small image.
    """
    workers = data.workers or os.cpu_count()
    cut_out = _view_maker(plan, source, broken)

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
    dataset = dataset.batch(plan.share, drop_remainder=True).prefetch(PREFETCH).with_options(_options(workers))
    return _check_each(dataset.as_numpy_iterator(), broken)


def _check_each(batches: Iterator[dict], broken: Broken) -> Iterator[dict]:
    """The same batches; raises the error of `Broken.check`, which tf.data would replace by an error of its own."""
    while True:
        try:
            batch = next(batches)
        except tf.errors.OpError:
            broken.check()
            raise
        broken.check()
        yield batch


def _view_maker(plan: Plan, source: Source, broken: Broken):
    """-> function: the plan of one image -> {group: its views, uint8 (V, h, w, 3)}, cropped and flipped.

    One call into Python per image. Pillow releases the interpreter lock while it decodes and resizes. Only the pixels
    of the views are copied to arrays: to copy those of a whole image takes longer than to decode it.
    """
    read, groups = skipping_reader(source, broken), plan.crops

    def make(record, *drawn):
        image, drawn = read(int(record)), iter(drawn)
        return [cut_views(image, {name: next(drawn) for name in PLACE}, group) for group in groups.values()]

    def cut_out(numbers):
        drawn = [numbers[name][key] for name in groups for key in PLACE]
        made = tf.numpy_function(make, [numbers["record"], *drawn], [tf.uint8] * len(groups), stateful=False)
        shape = lambda name, group: (numbers[name]["flip"].shape[0], group[0]["size"], group[0]["size"], 3)
        return {name: tf.ensure_shape(views, shape(name, groups[name])) for name, views in zip(groups, made)}

    return cut_out


def _views(views, drawn: dict, group, data) -> dict:
    """One group of views of one image, and in mode `hybrid` the factors for the device."""
    if data.augment == "host":
        return {"image": on_host.finish_views(views, drawn, group, data.mean, data.std)}
    return {"image": views} | {name: drawn[name] for name in FACTORS}


def _signature(plan: Plan) -> dict:
    """The TensorSpecs of what `steps` yields: those of a one-image plan, with the host's share as their first axis."""
    record, drawn = plan._replace(share=1).step(0)
    return tf.nest.map_structure(
        lambda array: tf.TensorSpec((plan.share, *array.shape[1:]), array.dtype), {"record": record, **drawn}
    )


def _options(workers: int) -> tf.data.Options:
    """tf.data without autotuning, whose buffers can fill a host's memory. After big_vision's input_pipeline.py."""
    options = tf.data.Options()
    options.deterministic = True
    options.autotune.enabled = False
    options.experimental_optimization.inject_prefetch = False
    options.threading.private_threadpool_size = workers
    options.threading.max_intra_op_parallelism = 1
    return options
