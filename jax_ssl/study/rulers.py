"""Measures a run by a ruler (a measure of features) of the user's own: `evaluate --task=mine.ruler`.

It is a Python module with one function,

    measure(encode: Encoder, data: Probe, seed: int) -> {metric: number}

encode: a frozen network; data: the labelled images, the same as for kNN and the linear probe. Each network of the run,
and the untrained one, gives a row and records in results.jsonl as soon as it is measured.
"""

import math
from collections.abc import Callable

import jax

from jax_ssl import parts
from jax_ssl.encoder import at_depth
from jax_ssl.errors import UserError
from jax_ssl.run import results
from jax_ssl.study import measure

WIDTH = 10  # columns of a number, at least


def find(name: str) -> Callable:
    """The function `measure` of that module. Raises UserError, or CodeError if the module can't be imported."""
    return parts.import_own_module(name, "--task", "measure(encode, data, seed)").measure


def measure_by(
    name: str, folder: str, wanted=measure.WEIGHTS, seed: int | None = None, say=measure.print_now, overrides=()
) -> list[dict]:
    """Measures the run's networks by the ruler `name`; prints a row for each, and returns the records."""
    ruler, settings = find(name), measure.load_config(folder, overrides)
    wanted = [weights for weights in wanted if weights != "pixels"]
    saved, data = measure.open_saved(settings, folder, wanted, say), measure.labelled(settings, say)
    seed = settings.seed if seed is None else seed
    where = dict(data=measure.name_of(settings), split=data.split, k=None, step=saved.step, seed=seed)
    say(f"\n{measure.introduction(settings, folder, saved, data)}")
    counts = dict(train_images=len(data.train_images), test_images=len(data.test_images), hardware=measure.hardware())
    records, header = [], None
    for label, encode in measure.encoders(settings, saved, data.train_images):
        numbers = run(ruler, name, at_depth(encode, settings.feature_depth), data, seed)
        widths = [max(WIDTH, len(metric) + 2) for metric in numbers]
        if header != list(numbers):
            header = list(numbers)
            say(f"{name:32}" + "".join(f"{metric:>{width}}" for metric, width in zip(numbers, widths)))
        say(f"{label:32}" + "".join(f"{value:>{width}.4g}" for value, width in zip(numbers.values(), widths)))
        weights, _, statistics = label.partition(", ")
        protocol = counts | ({"batch_statistics": statistics} if statistics else {})
        protocol |= {"feature_depth": settings.feature_depth} if settings.feature_depth else {}
        for metric, value in numbers.items():
            # All processes measure the same, and process 0 records it.
            if jax.process_index() == 0:
                records.append(results.record_result(folder, name, weights, metric, value, protocol=protocol, **where))
    return records


def run(ruler: Callable, name: str, encode, data, seed: int) -> dict[str, float]:
    """{metric: float} from the ruler. Raises CodeError if it fails, UserError for a result that is no finite number."""
    try:
        numbers = ruler(encode, data, seed)
    except UserError:
        raise
    except Exception as error:
        raise parts.user_code_error(f"--task={name} failed", error) from error
    try:
        found = {str(metric): float(value) for metric, value in numbers.items()}
    except (AttributeError, TypeError, ValueError):
        found = {}
    if not found:
        raise UserError(f"--task={name} gave {numbers!r:.80}: measure has to return a dict, {{metric: number}}.")
    wrong = [metric for metric, value in found.items() if not math.isfinite(value)]
    if wrong:
        raise UserError(f"--task={name} gave {found[wrong[0]]} for {wrong[0]}: a result is a finite number.")
    return found
