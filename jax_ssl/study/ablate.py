"""Suites of small runs with several seeds: each has one claim, one table and one plot. See configs/ablations.py.

A finished cell is one line of WORKDIR/ablations.jsonl and is not run again; an interrupted cell goes on in its own run
folder, WORKDIR/SUITE/CELL-SEED.
"""

import contextlib
import datetime
import difflib
import math
import os
import re
import select
import signal
import textwrap
from typing import NamedTuple

import jax
import numpy as np
from etils import epath

from jax_ssl import config, paths, train
from jax_ssl.errors import UserError
from jax_ssl.run import identity, metrics, outputs, stop
from jax_ssl.run.checks import check
from jax_ssl.study import frozen, measure

PROBED = {"knn": "kNN", "linear": "linear"}  # fractions, measured on the frozen network; shown in per cent
NOTE = "Mean ± standard deviation over seeds (each). kNN (k = 20) and linear: %, of the better of student and teacher."


class Job(NamedTuple):
    """One cell with one seed."""

    cell: str
    seed: int
    flags: list[str]  # the config, and the overrides of suite, cell and user, as `train` takes them
    settings: object  # the config that they make
    folder: epath.Path  # of the run


def suites() -> dict:
    """All suites by name."""
    config.folder()  # makes the configs importable from a checkout
    from jax_ssl.configs import ablations

    return ablations.SUITES


def find(name: str):
    """The suite of that name. Raises UserError, with the most similar name."""
    if name not in suites():
        near = difflib.get_close_matches(name, suites(), 1)
        hint = f"did you mean {near[0]!r}?" if near else f"choose one of {', '.join(suites())}."
        raise UserError(f"There is no --suite={name}; {hint}")
    return suites()[name]


def listing(name: str = "") -> str:
    """A text of all suites, or of the one of that name, with claims and cells. Raises UserError."""
    lines = []
    for title, suite in ({name: find(name)} if name else suites()).items():
        lines += ["", f"{title}: {suite.claim}", f"  {suite.source}", f"  a run: {suite.budget}"]
        for label, cell in suite.cells.items():
            changes = " ".join(f"{key}={value}" for key, value in cell.overrides.items())
            lines.append(f"  {label:{max(map(len, suite.cells))}}  {cell.config or suite.config}  {changes}")
    return "\n".join(lines[1:])


def jobs(name: str, workdir: str, seeds: str, overrides) -> list[Job]:
    """All cells with the first seed, then all with the next: so early results can be compared already.

    Raises UserError for a mistake in any of them, before the first one runs.
    """
    suite, numbers, made = find(name), seeds.split(","), []
    if not all(number.isdecimal() for number in numbers) or len(set(map(int, numbers))) < len(numbers):
        raise UserError(f"--seeds={seeds}: give different whole numbers with commas, such as --seeds=0,1.")
    if paths.is_remote(workdir):
        raise UserError(f"--workdir={workdir}: ablations are kept in a local folder.")
    varied = {"seed", *(key for cell in suite.cells.values() for key in cell.overrides)}
    for key in (flag.partition("=")[0].removeprefix("--config.") for flag in overrides):
        if key in varied:
            raise UserError(f"--config.{key} is what the cells of {name} differ in: override another key.")
    for seed in map(int, numbers):
        for label, cell in suite.cells.items():
            spec, own = cell.config or suite.config, suite.overrides | cell.overrides | {"seed": seed}
            flags = [*(f"--config.{key}={value!r}" for key, value in own.items()), *overrides]
            settings = config.load(spec, flags)
            check(settings, jax.device_count())
            folder = paths.resolve(workdir) / name / f"{re.sub('[^0-9A-Za-z+.]+', '_', label)}-{seed}"
            made.append(Job(label, seed, [f"--config={spec}", *flags], settings, folder))
    for job in made:
        identity.check_writable(job.folder)
        identity.check_config(job.folder, config.to_dict(job.settings), say=lambda note: None)
    return made


def finished(name: str, made: list[Job], path: epath.Path) -> dict:
    """{cell: {seed: newest record}} of the records whose config, but for the seed, is that of the job in `made`."""
    configs = {job.cell: config.to_dict(job.settings) for job in made}
    found = {cell: {} for cell in configs}
    for record in sorted(paths.json_lines(path), key=lambda record: record["seed"]):
        cell, seed = record["cell"], record["seed"]
        if record["suite"] == name and record["config"] == configs.get(cell, {}) | {"seed": seed}:
            found[cell][seed] = record
    return found


def collect_numbers(lines: list[dict], log: str, results: list[dict], names) -> dict:
    """{name: number or None} of a run. lines: of metrics.jsonl; log: log.txt; results: from `measure_frozen`."""
    numbers = {name: value for line in lines for name, value in line.items()}  # the last of each
    numbers["collapsed"] = "looks collapsed" in log
    k = min((r["k"] for r in results if r["k"]), key=lambda k: abs(k - 20), default=None)  # 20 if the set allows it
    for task in PROBED:
        numbers[task] = max((r["value"] for r in results if r["task"] == task and r["k"] in (None, k)), default=None)
    return {name: numbers.get(name) for name in names}


def run_cell(name: str, suite, job: Job, stopped) -> dict:
    """Trains and measures one cell; returns its record. Raises KeyboardInterrupt if `stopped()` after a signal."""
    with open(os.devnull, "w") as nothing, contextlib.redirect_stdout(nothing):  # the run's lines are in its log.txt
        if stopped() or not train.train(job.settings, str(job.folder)) or stopped():
            raise KeyboardInterrupt
        probed = PROBED.keys() & set(suite.numbers)
        results = frozen.measure_frozen(str(job.folder), wanted=("student", "teacher")) if probed else []
    lines, log = paths.json_lines(job.folder / "metrics.jsonl"), (job.folder / "log.txt").read_text()
    steps = np.diff([0, *(line["step"] for line in lines)])
    # Of all steps and not of this call: an interrupted cell was run by several calls.
    seconds = sum(count * line.get("step_seconds", 0) for count, line in zip(steps, lines))
    return dict(
        suite=name, cell=job.cell, seed=job.seed, config=config.to_dict(job.settings), overrides=job.flags,
        numbers=collect_numbers(lines, log, results, suite.numbers), steps=lines[-1]["step"],
        seconds=round(float(seconds), 1), date=datetime.date.today().isoformat(), hardware=measure.hardware(),
    )  # fmt: skip


@contextlib.contextmanager
def watch_signals():
    """Yields a function that returns whether a signal to stop came. Outside of training, a signal interrupts at once.

    Training handles signals itself, and after a signal in its last step it looks finished. So each signal also writes a
    byte to a pipe, which the function reads.
    """
    read_end, write_end = os.pipe()
    os.set_blocking(write_end, False)
    handlers = {s: signal.signal(s, signal.default_int_handler) for s in stop.signals()}
    before = signal.set_wakeup_fd(write_end)
    try:
        yield lambda: bool(select.select([read_end], [], [], 0)[0])
    finally:
        signal.set_wakeup_fd(before)
        for number, handler in handlers.items():
            signal.signal(number, handler)
        os.close(read_end)
        os.close(write_end)


def run(name: str, workdir: str, seeds: str = "0", overrides=()) -> None:
    """Runs the cells that are not finished, and prints one line each; then writes the report. Raises UserError."""
    made, suite, root = jobs(name, workdir, seeds, overrides), find(name), paths.resolve(workdir)
    file = outputs.check_file("--workdir", str(root / "ablations.jsonl"))
    setting = settings_line(made, overrides)
    metrics.trim(file, math.inf)  # drops a last line that a kill cut short
    print(f"{suite.claim}\na run: {suite.budget}; logs: {root}/{name}/*/log.txt\n{setting}", flush=True)
    try:
        with watch_signals() as stopped:
            for number, job in enumerate(made, 1):
                cell = f"{job.cell:{max(map(len, suite.cells))}}"
                print(f"[{number}/{len(made)}] {cell}  seed {job.seed}", end="  ", flush=True)
                record = finished(name, made, file)[job.cell].get(job.seed)
                if record is None:
                    record = run_cell(name, suite, job, stopped)
                    paths.append(file, metrics.json_line(record))
                    jax.clear_caches()  # the next cell has programs of its own
                values = "  ".join(f"{PROBED.get(k, k)} {number_text(k, v)}" for k, v in record["numbers"].items())
                print(f"{values}  {record['seconds']:.0f} s", flush=True)
    except KeyboardInterrupt:
        print("\nstopped, all saved; the same command goes on from here", flush=True)
    finally:
        print()
        report(name, suite, finished(name, made, file), root, setting)


def settings_line(made: list[Job], overrides) -> str:
    """A sentence: the images of the cells, and the overrides of the user that change the suite."""
    changed = {}
    for job in made:
        spec, *flags = job.flags
        spec, own = spec.removeprefix("--config="), flags[: len(flags) - len(overrides)]
        suite = config.load(spec, own)
        changed |= {flag: 0 for flag in overrides if config.load(spec, [*own, flag]) != suite}
    images = ", ".join({job.settings.data.name: 0 for job in made})
    return f"Images: {images}." + (f" Other than in the suite: {' '.join(changed)}." if changed else "")


def number_text(name: str, value) -> str:
    """A number of a table as text: per cent for those in PROBED, yes or no, "-" for None."""
    if value is None or isinstance(value, bool):
        return {None: "-", True: "yes", False: "no"}[value]
    return f"{100 * value:.1f}" if name in PROBED else f"{value:.3f}"


def values_of(records: dict, name: str) -> list:
    """The values of one number, of all seeds that have it."""
    return [r["numbers"][name] for r in records.values() if r["numbers"].get(name) is not None]


def summary(name: str, values: list) -> str:
    """`42.1 ± 0.4 (41.8, 42.4)`; `1 of 2` for yes and no."""
    if not values or isinstance(values[0], bool):
        return f"{sum(values)} of {len(values)}" if values else "-"
    mean, each = number_text(name, np.mean(values)), ", ".join(number_text(name, value) for value in values)
    return mean if len(values) == 1 else f"{mean} ± {number_text(name, np.std(values, ddof=1))} ({each})"


def table(suite, found: dict) -> str:
    """A Markdown table of cells by numbers, with aligned columns. found: {cell: {seed: record}}."""
    rows = [["cell", "seeds", *(PROBED.get(name, name) for name in suite.numbers)]]
    for cell, own in found.items():
        rows.append([cell, str(len(own)), *(summary(name, values_of(own, name)) for name in suite.numbers)])
    widths = [max(map(len, column)) for column in zip(*rows)]
    rows.insert(1, ["-" * width for width in widths])
    return "\n".join("| " + " | ".join(f"{text:{w}}" for text, w in zip(row, widths)) + " |" for row in rows)


def plot(suite, found: dict, path: epath.Path, setting: str = "") -> None:
    """Draws the first number of the suite: a point for each seed, a bar at the mean."""
    from matplotlib.figure import Figure  # imported late, as it takes half a second

    figure, name, lines = Figure(figsize=(8, 4.5), layout="constrained"), suite.numbers[0], {}
    axes = figure.subplots()
    for place, (label, cell) in enumerate(suite.cells.items()):
        values = np.array(values_of(found[label], name)) * (100 if name in PROBED else 1)
        if len(values):
            lines.setdefault(cell.line, []).append((place if cell.x is None else cell.x, values))
    for number, (line, points) in enumerate(lines.items()):
        for x, values in points:
            axes.plot([x] * len(values), values, "o", color=f"C{number}", alpha=0.5, markeredgewidth=0)
        xs, means = zip(*((x, values.mean()) for x, values in points))
        axes.plot(xs, means, "_-" if line else "_", ms=20, color=f"C{number}", label=line or "mean over seeds")
    if any(cell.x is None for cell in suite.cells.values()):
        axes.set(xticks=range(len(suite.cells)), xlim=(-0.5, len(suite.cells) - 0.5))
        axes.set_xticklabels([textwrap.fill(label, 16, break_long_words=False) for label in suite.cells])
    else:
        places = [cell.x for cell in suite.cells.values()]
        if max(places) > 8 * min(places):  # a logarithmic axis for lengths of queues, not for ratios and depths
            axes.set_xscale("log", base=2)
        axes.xaxis.set_major_formatter("{x:,g}")
    label = f"{PROBED[name]}, %" if name in PROBED else name.replace("_", " ")
    below = "\n".join([suite.axis, *textwrap.wrap(setting, 90)])
    axes.set(xlabel=below, ylabel=label, title=textwrap.fill(suite.claim, 70))
    axes.spines[["top", "right"]].set_visible(False)
    axes.legend(*axes.get_legend_handles_labels(), frameon=False)  # with handles, an empty legend is no warning
    paths.save_picture(figure, path)


def report(name: str, suite, found: dict, root: epath.Path, setting: str) -> None:
    """Prints the table of all finished runs and writes NAME.md and NAME.png.

    found: as in `table`. setting: from `settings_line`; it tells readers what differs from the suite.
    """
    records = [record for own in found.values() for record in own.values()]
    if not records:
        return
    minutes, hardware = sum(r["seconds"] for r in records) / 60, "; ".join({r["hardware"]: 0 for r in records})
    spent = f"{len(records)} runs, {minutes:.0f} minutes of training, on {hardware}."
    parts = [f"# {suite.title}", f"{suite.claim} ({suite.source})", table(suite, found), NOTE, setting, spent]
    (root / f"{name}.md").write_text("\n\n".join([*parts, f"![{name}]({name}.png)\n"]))
    plot(suite, found, root / f"{name}.png", setting)
    print(f"{parts[2]}\n\n{NOTE}\n{setting}\nin {root}/{name}.md, drawn in {root}/{name}.png")
