"""Runs one cell of a suite of small runs: trains it, measures it, and returns its record."""

import contextlib
import datetime
import os
from typing import NamedTuple

from etils import epath

from jax_ssl import config, paths, train
from jax_ssl.evaluate import offline
from jax_ssl.study import budget, cases, evaluation, frozen, measure
from jax_ssl.study.cost import seconds_up_to

# Fractions, measured at the end on the frozen network, or by fine-tuning it; shown in per cent.
PROBED = {"knn": "kNN", "linear": "linear", "finetune": "fine-tuned"}
EPOCHS = 20  # of fine-tuning


class Job(NamedTuple):
    """One cell with one seed."""

    cell: str
    seed: int
    flags: list[str]  # the config, and the overrides of suite, cell and user, as `train` takes them
    settings: object  # the config that they make
    folder: epath.Path  # of the run
    seconds: float = 0.0  # of training steps; 0 = as many epochs as the config says
    baseline: str = ""  # "pixels" or "untrained": nothing is trained


def run_cell(name: str, suite, job: Job, stopped) -> dict:
    """Trains and measures one cell; returns its record. Raises KeyboardInterrupt if `stopped()` after a signal."""
    numbers, known = set(suite.numbers), {}
    with open(os.devnull, "w") as nothing, contextlib.redirect_stdout(nothing):  # the run's lines are in its log.txt
        settings = job.settings
        if job.seconds and not job.baseline:
            known = budget.read(job.folder, job.seconds) or budget.measure(settings, job.seconds, job.folder)
            settings = budget.limited(job.flags, known, suite.probes)
        if stopped() or not (job.baseline or train.train(settings, str(job.folder))) or stopped():
            raise KeyboardInterrupt
        results = measure_baseline(job, numbers) if job.baseline else measure_trained(job, numbers)
    lines = paths.json_lines(job.folder / "metrics.jsonl")
    log = "" if job.baseline else (job.folder / "log.txt").read_text()
    steps = lines[-1]["step"] if lines else 0
    times = seconds_up_to(lines)
    spent = {"images": steps * settings.batch_size, "seconds": times[-1]} if steps else {}
    spent |= {"tflop": steps * known["flops"] / 1e12} if known else {}
    record = dict(
        suite=name, cell=job.cell, seed=job.seed, config=config.to_dict(job.settings), overrides=job.flags,
        numbers=collect_numbers(lines, log, results, suite.numbers, spent), steps=steps, budget=job.seconds,
        seconds=round(times[-1], 2), date=datetime.date.today().isoformat(), hardware=measure.hardware(),
    )  # fmt: skip
    if suite.probes:
        record["curve"] = curve_of(lines, job.seconds / known["steps"]) if known else []
    return record


def curve_of(lines: list[dict], seconds: float) -> list[list]:
    """[second of the budget, kNN, linear probe or None] of each time that a run was measured.

    lines: of metrics.jsonl. seconds: of a step, as timed before the run: work that others gave this machine since makes
    the run longer, but not its schedule.
    """
    return [[round(seconds * line["step"], 2), line["knn"], line.get("linear")] for line in lines if "knn" in line]


def measure_trained(job: Job, numbers: set) -> list[dict]:
    """The records of a run's student and teacher, and of the better of both, by its linear probe, fine-tuned."""
    if not PROBED.keys() & numbers:
        return []
    folder = str(job.folder)
    found = frozen.measure_frozen(folder, wanted=measure.TRAINED)
    if "finetune" in numbers:
        chosen = measure.open_run(folder).only((better(found),))
        found += evaluation.measure_finetuned(chosen, epochs=EPOCHS, scratch=False)
    return found


def measure_baseline(job: Job, numbers: set) -> list[dict]:
    """The records of raw pixels, or of the untrained network, also trained from scratch on few labels."""
    settings, folder = job.settings, str(job.folder)
    fresh = {"params": measure.untrained_state(settings).params}
    networks = measure.Networks(settings, folder, folder, 0, (job.baseline,), fresh)
    splits = cases.labelled(settings)
    found = frozen.measure_rows(networks, splits, cases.rows_of(networks, splits), offline.TASKS)
    if "finetune" in numbers and job.baseline == "untrained":
        found += evaluation.measure_finetuned(networks, epochs=EPOCHS)
    return found


def better(results: list[dict]) -> str:
    """Which of student and teacher has the better linear probe, or kNN where there is none."""
    task = "linear" if any(r["task"] == "linear" for r in results) else "knn"
    return max((r for r in results if r["task"] == task), key=lambda r: r["value"])["weights"]


def collect_numbers(lines: list[dict], log: str, results: list[dict], names, spent=()) -> dict:
    """{name: number or None} of a run. lines: of metrics.jsonl; log: log.txt; results: what was measured at the end.

    spent: {name: number} of what the run took.
    """
    numbers = {name: value for line in lines for name, value in line.items()} | dict(spent)  # the last of each
    numbers["collapsed"] = "looks collapsed" in log
    k = offline.shown_k(r["k"] for r in results if r["k"])
    for task in PROBED:
        numbers[task] = max((r["value"] for r in results if r["task"] == task and r["k"] in (None, k)), default=None)
    if {"student", "teacher"} & {r["weights"] for r in results}:
        numbers["weights"] = better([r for r in results if r["k"] in (None, k)])
    return {name: numbers.get(name) for name in names}
