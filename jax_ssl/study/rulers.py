"""Measures networks by a ruler: a file of `evaluate/` with NEEDS, or a module of the user's own.

A file of `evaluate/` measures a Case, see evaluate/case.py: `--task=fewshot` is evaluate/fewshot.py. A module of the
user's own, `--task=mine.ruler`, has one function,

    measure(encode: Encoder, data: Probe, seed: int) -> {metric: number}

encode: a frozen network; data: the labelled images, as for kNN, in memory. Either way each network gives a row of a
table and records in results.jsonl as soon as it is measured.
"""

import functools
import importlib
import inspect
import math
import re
from collections.abc import Callable

import jax
from ml_collections import ConfigDict

from jax_ssl import config, evaluate, parts, paths
from jax_ssl.encoder import at_depth
from jax_ssl.errors import UserError
from jax_ssl.evaluate import offline
from jax_ssl.run import results
from jax_ssl.study import cases, measure

WIDTH = 10  # columns of a number, at least
BASELINES = {"network": "pixels", "trained": "untrained"}  # {what a ruler needs: what it then can't measure}


@functools.cache
def names() -> list[str]:
    """The rulers of this package: files of evaluate/ with NEEDS. They are read, as importing all takes seconds."""
    files = paths.resolve(evaluate.__path__[0]).glob("*.py")
    return sorted(file.stem for file in files if re.search(r"^NEEDS\b", file.read_text(), re.M))


def open_ruler(name: str):
    """The module of a ruler of this package."""
    return importlib.import_module(f"jax_ssl.evaluate.{name}")


def networks_of(name: str) -> tuple[str, ...]:
    """Those of measure.WEIGHTS that a ruler can measure."""
    needs = open_ruler(name).NEEDS
    return tuple(network for network in measure.WEIGHTS if not any(BASELINES.get(need) == network for need in needs))


def options_of(name: str, overrides) -> dict:
    """The options of a ruler: the keywords of its `measure`, with `--config.NAME.KEY=VALUE`. Raises UserError."""
    keywords = inspect.signature(open_ruler(name).measure).parameters.values()
    defaults = {key.name: key.default for key in keywords if key.kind is key.KEYWORD_ONLY}
    return config.override(ConfigDict({name: defaults}), overrides)[name].to_dict()


def split_overrides(overrides, tasks) -> tuple[list[str], dict[str, list[str]]]:
    """(overrides of the config, {ruler: overrides of its options}). Raises UserError for a ruler not asked for."""
    known, of_rulers, rest = names(), {}, []
    for text in overrides:
        name = text.partition("=")[0].removeprefix("--config.").partition(".")[0]
        if name not in known:
            rest.append(text)
        elif name not in tasks:
            raise UserError(f"{text} is an option of --task={name}: add that task, or leave it out.")
        else:
            of_rulers.setdefault(name, []).append(text)
    return rest, of_rulers


def measure_rows(
    name: str, networks, splits, rows: list[cases.Row], options: dict, seed: int | None = None, say=measure.print_now
) -> list[dict]:
    """Measures each row that the ruler can; prints a table, and returns the records. Raises UserError."""
    ruler, seed = open_ruler(name), networks.settings.seed if seed is None else seed
    if "labels" in ruler.NEEDS:
        cases.check_labels(splits)
    left_out = [baseline for baseline in BASELINES.values() if baseline not in networks_of(name)]
    rows = [row for row in rows if row.case.name not in left_out]
    if not rows:
        raise UserError(f"--task={name} can't measure {' or '.join(left_out)}: add a network to --which.")
    say(f"\n{measure.introduction(networks, splits)}")
    where, records, header = measure.where(networks, splits, seed), [], None
    for row in rows:
        numbers, protocol = ruler.measure(row.case, seed, **options)
        numbers = checked(numbers, name)
        cells = cells_of({metric: numbers[metric] for metric in getattr(ruler, "SHOWN", numbers) if metric in numbers})
        if header is None or not set(cells) <= set(header):
            header = list(cells)
            say(heading(name, header))
        say(table_row(row.label, cells, header))
        if "note" in protocol:
            say(protocol["note"])
        whole = measure.counts(splits) | row.protocol | {"name": name} | protocol
        records += record(networks.out, where, name, row.case.name, numbers, whole)
    return records


def cells_of(numbers: dict[str, float]) -> dict[str, float | str]:
    """The columns of a row: a metric and its deviation, `METRIC_std`, are one."""
    cells = {}
    for metric, value in numbers.items():
        spread = numbers.get(f"{metric}_std")
        if spread is not None:
            cells[f"{metric} ± std"] = f"{value:.4g} ± {spread:.2g}"
        elif not metric.endswith("_std") or metric.removesuffix("_std") not in numbers:
            cells[metric] = value
    return cells


def record(out: str, where: dict, task: str, weights: str, numbers: dict, protocol: dict) -> list[dict]:
    """The records of the numbers of a row, appended to the results in `out`. where: of `measure.where`.

    Of several processes, which all measure the same, process 0 writes them.
    """
    if jax.process_index() != 0:
        return []
    records = []
    for name, value in numbers.items():
        metric, _, k = name.partition("@")
        fields = where | dict(task=task, weights=weights, metric=metric, value=value, protocol=protocol)
        records.append(results.record_result(out, **fields | ({"k": int(k)} if k else {})))
    return records


# ---- modules of the user's own


def find(name: str) -> Callable:
    """The function `measure` of that module. Raises UserError, or CodeError if the module can't be imported."""
    return parts.import_own_module(name, "--task", "measure(encode, data, seed)").measure


def measure_by(name: str, networks, seed: int | None = None, say=measure.print_now) -> list[dict]:
    """Measures the networks by the user's own ruler `name`; prints a row for each, and returns the records."""
    ruler, settings = find(name), networks.settings
    data, seed = measure.labelled(settings, say), settings.seed if seed is None else seed
    say(f"\n{measure.introduction(networks, data)}")
    where, records, header = measure.where(networks, data, seed), [], None
    for label, encode in measure.encoders(networks, data.train_images):
        numbers = run(ruler, name, at_depth(encode, settings.feature_depth), data, seed)
        if header != list(numbers):
            header = list(numbers)
            say(heading(name, header))
        say(table_row(label, numbers, header))
        protocol = measure.counts(data) | measure.protocol_of(label, networks) | {"name": name}
        records += record(networks.out, where, name, label.partition(", ")[0], numbers, protocol)
    return records


def heading(name: str, metrics) -> str:
    """The first line of a table of numbers: the ruler's name and a column for each metric."""
    return f"{name:32}" + "".join(f"{metric:>{max(WIDTH, len(metric) + 2)}}" for metric in metrics)


def table_row(label: str, numbers: dict[str, float | str], metrics) -> str:
    """A line of it; what is not among the numbers is a dash."""
    written = {metric: value if isinstance(value, str) else f"{value:.4g}" for metric, value in numbers.items()}
    cells = {metric: written.get(metric, offline.ABSENT) for metric in metrics}
    return f"{label:32}" + "".join(f"{cell:>{max(WIDTH, len(metric) + 2)}}" for metric, cell in cells.items())


def run(ruler: Callable, name: str, encode, data, seed: int) -> dict[str, float]:
    """{metric: float} from the ruler. Raises CodeError if it fails, UserError for a result that is no finite number."""
    try:
        numbers = ruler(encode, data, seed)
    except UserError:
        raise
    except Exception as error:
        raise parts.user_code_error(f"--task={name} failed", error) from error
    return checked(numbers, name)


def checked(numbers, name: str) -> dict[str, float]:
    """What a ruler returned, as {metric: float}. Raises UserError for anything but finite numbers with names."""
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
