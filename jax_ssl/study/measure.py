"""Measures the frozen encoders of a run, and as baselines raw pixels and the untrained network.

Each number is printed and recorded as soon as it is measured, so that a later error does not lose it. If something
can't be measured, one sentence says why; if nothing can, a UserError does.
"""

import functools
import platform
from collections.abc import Iterator
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from ml_collections import ConfigDict

from jax_ssl import config, core, parts, paths, train
from jax_ssl.data import pipeline
from jax_ssl.encoder import Encoder, adapt, at_depth, freeze
from jax_ssl.errors import UserError
from jax_ssl.evaluate import offline
from jax_ssl.run import checkpoints, checks, results

WEIGHTS = ("pixels", "untrained", "student", "teacher")
print_now = functools.partial(print, flush=True)


def load_config(folder: str, overrides=()) -> ConfigDict:
    """The config of a run, with overrides of how it is measured. Raises UserError, also if there is no run."""
    settings = config.override_measuring(config.of_run(folder), overrides)
    checks.check_measuring(settings)
    return settings


def untrained_state(settings) -> core.TrainState:
    """The state before the first step, the same that training with this config and seed starts from."""
    method, tx, _ = train.build(settings, examples=settings.batch_size)
    return jax.jit(functools.partial(new_state, settings, method, tx))(jax.random.key(settings.seed))


def new_state(settings, method: core.Method, tx, key) -> core.TrainState:
    """`core.create` on views of zeros. Use it in jax.jit, where XLA removes the forward pass, or jax.eval_shape."""
    shapes = {
        name: (settings.batch_size, sum(recipe["count"] for recipe in group), group[0]["size"], group[0]["size"], 3)
        for name, group in settings.data.crops.items()
    }
    return core.create(method, tx, key, {name: jnp.zeros(shape) for name, shape in shapes.items()})


class Saved(NamedTuple):
    """A run's newest good checkpoint. names: the wanted networks that it has, in the order of WEIGHTS."""

    arrays: dict
    step: int
    names: tuple[str, ...]


def open_saved(settings, folder: str, wanted, say=print_now) -> Saved:
    """The Saved of a run. Raises UserError if it has none of the `wanted` networks; says so if it lacks one of them."""
    arrays, step = checkpoints.load_raw(f"{folder}/checkpoints", names=("params", "teacher", "extra"))
    lacking = {"teacher"} if "backbone" not in arrays.get("teacher", {}) else set()
    names = tuple(name for name in WEIGHTS if name in wanted and name not in lacking)
    if not names:
        raise UserError(f"{folder} is a run of {settings.method.name}, without a teacher: take --weights=student.")
    if lacking & set(wanted) and set(wanted) != set(WEIGHTS):
        say(f"{settings.method.name} has no teacher: it is left out")
    return Saved(arrays, step, names)


def encoders(settings, saved: Saved, images) -> Iterator[tuple[str, Encoder]]:
    """Yields (name for a table, Encoder) for the networks of `saved`.

    An untrained network with batch norm is yielded twice, with its initial statistics and with those of `images`.
    """
    backbone, sizes = parts.make_backbone(settings), parts.images_of(settings)
    for name in saved.names:
        if name == "untrained":
            encode = freeze(backbone, untrained_state(settings), **sizes)
            yield name, encode
            adapted = adapt(encode, images)
            if adapted is not encode:
                yield "untrained, statistics adapted", adapted
        elif name != "pixels":
            yield name, freeze(backbone, saved.arrays, name, **sizes)


def labelled(settings, say=print_now) -> pipeline.Probe:
    """The labelled images to measure on. Raises UserError if there are none."""
    data = pipeline.open_probe(settings, say)
    if data is None:
        raise UserError("There are no labels to measure with: set --config.data.probe.name to a labelled set.")
    return data


def introduction(settings, folder: str, saved: Saved, data: pipeline.Probe) -> str:
    """A line on the run, its network and the images that it is measured on; a second line for a note on the images."""
    count = sum(np.size(x) for x in jax.tree.leaves(saved.arrays["params"]["backbone"]))
    sentence = (
        f"{folder} at step {saved.step:,}: {settings.model.name} of {count / 1e6:.2f} M parameters, "
        f"{settings.method.name}; measured on {data.about or name_of(settings)}: {len(data.train_images):,} labelled "
        f"images of {len(np.unique(data.train_labels)):,} classes to learn from, {len(data.test_images):,} to test on"
    )
    return f"{sentence}\n{data.note}" if data.note else sentence


def name_of(settings) -> str:
    """The name of the data set that is measured on."""
    return settings.data.probe.name or settings.data.name


def measure_frozen(
    folder: str, tasks=offline.TASKS, wanted=WEIGHTS, seed=None, say=print_now, overrides=()
) -> list[dict]:
    """Measures kNN and linear probe (or one) of a run and its baselines. Prints a table, returns the records.

    The records are also in results.jsonl. wanted: of WEIGHTS. seed: of the probe, default the run's. Raises UserError.
    """
    tasks = tuple(task for task in offline.TASKS if task in tasks)
    settings = load_config(folder, overrides)
    saved = open_saved(settings, folder, wanted, say)
    data = labelled(settings, say)
    seed = settings.seed if seed is None else seed
    say(f"\n{introduction(settings, folder, saved, data)}")
    say(offline.heading(tasks))
    records, notes = [], []
    for weights, label, measured, protocol in rows(settings, saved, data, seed, tasks):
        say(offline.row(label, measured, tasks))
        records += record_row(folder, weights, measured, settings, data, saved.step, seed, protocol)
        notes += [note for note in measured.notes if note not in notes]
    if not records:
        raise UserError(f"Nothing could be measured. {' '.join(notes)}")
    for note in notes:
        say(note)
    return records


def rows(settings, saved: Saved, data, seed: int, tasks) -> Iterator[tuple[str, str, offline.Measured, dict]]:
    """Yields the rows of the table, each measured when it is asked for: (weights, label, numbers, protocol)."""
    if "pixels" in saved.names:
        side = offline.PIXELS_SIDE
        shrunk = {"resized_to": side} if data.train_images.shape[1] > side else {}
        label = f"raw pixels{f', at {side} x {side}' if shrunk else ''}"
        pixels = offline.pixels(data, settings.data.mean, settings.data.std)
        yield "pixels", label, offline.measure_features(*pixels, data, seed, tasks), shrunk
        del pixels
    depth = settings.feature_depth
    for label, encode in encoders(settings, saved, data.train_images):
        weights, _, statistics = label.partition(", ")
        protocol = {"feature_depth": depth} if depth else {}
        protocol |= {"batch_statistics": statistics} if statistics else {}
        yield weights, label, offline.measure(at_depth(encode, depth), data, seed, tasks=tasks), protocol


def record_row(folder, weights: str, measured: offline.Measured, settings, data, step, seed, protocol) -> list[dict]:
    """The records of one row. Process 0 appends them to results.jsonl."""
    common = dict(weights=weights, metric="top1", data=name_of(settings), split=data.split, step=step, seed=seed)
    where = dict(train_images=len(data.train_images), test_images=len(data.test_images), frozen=True)
    where |= {"hardware": hardware()} | protocol
    found = [
        dict(task="knn", value=value, k=k, protocol=where | {"temperature": 0.07}) for k, value in measured.knn.items()
    ]
    if measured.linear:
        chosen = {key: measured.linear[key] for key in ("learning_rate", "epochs")}
        chosen |= {"optimiser": "sgd", "selection": "a tenth of the training features"}
        found.append(dict(task="linear", value=measured.linear["top1"], k=None, protocol=where | chosen))
    if jax.process_index() != 0:
        return [record | common for record in found]
    return [results.record_result(folder, **record, **common) for record in found]


def hardware() -> str:
    """Number and kind of the devices, the processor and the version of jax, as text."""
    kinds = sorted({device.device_kind for device in jax.devices()})
    return f"{jax.device_count()} x {', '.join(kinds)}, {platform.machine()}, jax {jax.__version__}"


def has_table(folder: str) -> bool:
    """Whether results.jsonl has numbers of the last step of a run, and not only of an earlier one."""
    lines = paths.json_lines(paths.resolve(folder) / "metrics.jsonl")
    step = lines[-1].get("step") if lines else None
    return any(
        record.get("step") == step and record.get("weights") == "student" and record.get("task") in offline.TASKS
        for record in results.read_results(folder)
    )


def measure_at_end(folder: str, say=print_now) -> None:
    """Measures a finished run. Any error is only a warning, as the run itself is finished and saved."""
    try:
        measure_frozen(folder, say=say)
    except Exception as error:
        cause = (
            str(error)
            if isinstance(error, UserError)
            else f"{type(error).__name__}: {str(error).partition(chr(10))[0]}"
        )
        say(f"The run is finished and saved, but not measured: {cause} (evaluate --run={folder} tries again)")
