"""Runs that differ in their seed alone, and which of their numbers may stand beside each other."""

import itertools
import json
import math
from typing import NamedTuple

import numpy as np

from jax_ssl import config
from jax_ssl.study import cost
from jax_ssl.study.report import numbers, summary
from jax_ssl.study.report.facts import Facts

ASIDE = "hardware", "decides"  # of a protocol: what may differ between numbers that are compared


class Group(NamedTuple):
    """Runs that differ in their seed alone. seconds: of training; work: FLOPs, NaN if unknown; both of one run.

    place: among all groups, which says its colour.
    """

    name: str
    runs: list[Facts]
    seconds: float
    work: float
    place: int = 0


class Point(NamedTuple):
    """The accuracies of a group at one task under one protocol, in per cent, one for each seed."""

    group: Group
    values: list[float]
    before: float | None  # of the untrained network
    error: float  # one standard error of a value, by the number of test images; 0 = not known

    @property
    def mean(self) -> float:
        return float(np.mean(self.values))

    @property
    def deviation(self) -> float:
        """The standard deviation over seeds, 0 for one."""
        return float(np.std(self.values, ddof=1)) if len(self.values) > 1 else 0.0


def grouped(runs: list[Facts], with_work: bool = True) -> list[Group]:
    """The runs, those that differ in their seed alone together, in the order of their first one."""
    found = {}
    for run in runs:
        key = json.dumps(run.config | {"seed": None}, sort_keys=True)
        found.setdefault(key, []).append(run)
    names = unique([common_name(own) for own in found.values()])
    work = work_of if with_work else lambda run: math.nan
    return [Group(name, own, float(np.mean([training_seconds(run) for run in own])), work(own[0]), place)
            for place, (name, own) in enumerate(zip(names, found.values()))]  # fmt: skip


def common_name(runs: list[Facts]) -> str:
    """`simclr-0` and `simclr-1` are `simclr`; a single run keeps its name."""
    names = [run.name for run in runs]
    shared = "".join(letters[0] for letters in itertools.takewhile(lambda some: len(set(some)) == 1, zip(*names)))
    return names[0] if len(names) == 1 else shared.rstrip("-_. ") or names[0]


def unique(names: list[str]) -> list[str]:
    """The names, with a number where one is there twice."""
    return [name if names.count(name) == 1 else f"{name} ({names[: place + 1].count(name)})"
            for place, name in enumerate(names)]  # fmt: skip


def training_seconds(run: Facts) -> float:
    """Seconds of steps and of waiting for images, without compiling, measuring, drawing and what restarts cost."""
    return run.account.get("step", 0.0) + run.account.get("data", 0.0)


def work_of(run: Facts) -> float:
    """FLOPs of all steps of a run, by tracing its program on one device; NaN where this version can't make it."""
    try:
        of_step = cost.flops_of_step(config.of_run(run.folder))
    except Exception:  # a run of another version, or on images that are not here: all else can be compared
        return math.nan
    return math.nan if of_step is None else of_step * run.step


def protocol_key(record: dict) -> str:
    """What two numbers must have in common to be compared, as JSON."""
    protocol = {key: value for key, value in summary.comparable(record).items() if key not in ASIDE}
    protocol |= {key: value for key, value in record.items() if key not in (*numbers.KNOWN, *ASIDE)}
    return json.dumps(protocol | {"data": record.get("data"), "split": record.get("split"), "k": record.get("k")},
                      sort_keys=True, default=str)  # fmt: skip


def points_of(groups: list[Group], task: str) -> dict[str, list[Point]]:
    """{protocol: points} of a task, the protocol of most runs first."""
    found = {}
    for group in groups:
        own = {}
        for run in group.runs:
            rows = summary.rows(run.results, task)
            gain = summary.gain(rows)
            if gain is not None:
                best = next(row for row in rows if row.record["weights"] == gain.network)
                own.setdefault(protocol_key(best.record), []).append(gain)
        for key, gains in own.items():
            before = [gain.before for gain in gains if gain.before is not None]
            mean = float(np.mean(before)) if before else None
            error = max(map(summary.standard_error, gains))
            found.setdefault(key, []).append(Point(group, [gain.after for gain in gains], mean, error))
    return dict(sorted(found.items(), key=lambda item: -len(item[1])))


def differing(keys: list[str]) -> list[tuple[str, list[str]]]:
    """[(field, its value in each protocol)] of the fields in which protocols differ."""
    protocols = [json.loads(key) for key in keys]
    fields = sorted({field for protocol in protocols for field in protocol})
    rows = [(field, [json.dumps(protocol[field]) if field in protocol else "–" for protocol in protocols])
            for field in fields]  # fmt: skip
    return [(field, values) for field, values in rows if len(set(values)) > 1]
