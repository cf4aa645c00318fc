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
from jax_ssl.evaluate import offline
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
        if header != list(numbers):
            header = list(numbers)
            say(heading(name, header))
        say(row(label, numbers, header))
        weights = label.partition(", ")[0]
        protocol = counts | measure.protocol_of(label, encode, settings.feature_depth)
        for metric, value in numbers.items():
            # All processes measure the same, and process 0 records it.
            if jax.process_index() == 0:
                records.append(results.record_result(folder, name, weights, metric, value, protocol=protocol, **where))
    return records


def heading(name: str, metrics) -> str:
    """The first line of a table of numbers: the ruler's name and a column for each metric."""
    return f"{name:32}" + "".join(f"{metric:>{max(WIDTH, len(metric) + 2)}}" for metric in metrics)


def row(label: str, numbers: dict[str, float], metrics) -> str:
    """A line of it; what is not among the numbers is a dash."""
    cells = {metric: f"{numbers[metric]:.4g}" if metric in numbers else offline.ABSENT for metric in metrics}
    return f"{label:32}" + "".join(f"{cell:>{max(WIDTH, len(metric) + 2)}}" for metric, cell in cells.items())


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
