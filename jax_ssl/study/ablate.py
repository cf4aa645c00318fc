"""Suites of small runs with several seeds: each has one claim, one table and one plot. See configs/ablations.py.

A finished cell is one line of WORKDIR/ablations.jsonl and is not run again; an interrupted cell goes on in its own run
folder, WORKDIR/SUITE/CELL-SEED.
"""

import contextlib
import difflib
import math
import os
import re
import select
import signal

import jax
import numpy as np
from etils import epath

from jax_ssl import config, paths
from jax_ssl.errors import UserError, sentence_of
from jax_ssl.run import identity, metrics, outputs, results, stop
from jax_ssl.run.checks import check
from jax_ssl.study import budget, charts
from jax_ssl.study.cell import PROBED, Job, run_cell
from jax_ssl.study.report import compare

NOTE = "Mean ± standard deviation over seeds (each). kNN (k = 20) and linear: %, of the better of student and teacher."
FORMATS = dict.fromkeys(PROBED, lambda value: f"{100 * value:.1f}")
FORMATS |= {"images": "{:,.0f}".format, "tflop": "{:,.1f}".format, "seconds": "{:.0f}".format}
NAMES = PROBED | {"tflop": "TFLOP", "weights": "read"}  # of columns


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


def jobs(name: str, workdir: str, seeds: str, overrides, seconds: float | None = None) -> list[Job]:
    """All cells with the first seed, then all with the next: so early results can be compared already.

    seconds: of each cell, None = those of the suite. Raises UserError for a mistake in any cell, before the first runs.
    """
    suite, numbers, made = find(name), seeds.split(","), []
    if seconds is not None and not (suite.seconds and 0 < seconds < math.inf):
        remedy = "give a positive number" if suite.seconds else f"cells of {name} have --config.epochs"
        raise UserError(f"--seconds={seconds:g}: {remedy}.")
    seconds = suite.seconds if seconds is None else seconds
    if not all(number.isdecimal() for number in numbers) or len(set(map(int, numbers))) < len(numbers):
        raise UserError(f"--seeds={seeds}: give different whole numbers with commas, such as --seeds=0,1.")
    if paths.is_remote(workdir):
        raise UserError(f"--workdir={workdir}: ablations are kept in a local folder.")
    varied = {"seed", *(key for cell in suite.cells.values() for key in cell.overrides), *["epochs"] * bool(seconds)}
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
            made.append(Job(label, seed, [f"--config={spec}", *flags], settings, folder, seconds, cell.baseline))
    for job in made:
        identity.check_writable(job.folder)
        known = budget.read(job.folder, seconds) if seconds else None
        settings = budget.limited(job.flags, known, suite.probes) if known else job.settings
        identity.check_config(job.folder, config.to_dict(settings), say=lambda note: None)
    return made


def finished(name: str, made: list[Job], path: epath.Path) -> dict:
    """{cell: {seed: newest record}} of the records whose config, but for the seed, is that of the job in `made`.

    A key that was added since has its default in the record, as where a run is resumed.
    """
    known = {job.cell: (config.to_dict(job.settings), job.seconds) for job in made}
    found = {cell: {} for cell in known}
    for record in sorted(paths.json_lines(path), key=lambda record: record["seed"]):
        cell, seed = record["cell"], record["seed"]
        own, seconds = known.get(cell, ({}, 0.0))
        same = (record["suite"], record.get("budget", 0.0)) == (name, seconds) and cell in known
        if same and identity.same_config(record["config"], own | {"seed": seed}):
            found[cell][seed] = record
    return found


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


def run(name: str, workdir: str, seeds: str = "0", overrides=(), seconds: float | None = None) -> None:
    """Runs the cells that are not finished, and prints one line each; then writes the report. Raises UserError."""
    made, suite, root = jobs(name, workdir, seeds, overrides, seconds), find(name), paths.resolve(workdir)
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
                values = "  ".join(f"{NAMES.get(k, k)} {number_text(k, v)}" for k, v in record["numbers"].items())
                print(f"{values}  {record['seconds']:.0f} s", flush=True)
    except KeyboardInterrupt:
        print("\nstopped, all saved; the same command goes on from here", flush=True)
    finally:
        print()
        report(name, suite, finished(name, made, file), root, setting)
        compare_runs([job.folder for job in made], root / f"{name}.html")


def compare_runs(folders: list[epath.Path], out: epath.Path) -> None:
    """Writes the page over those runs that were measured, without their FLOPs; nothing for fewer than two.

    Any error is one line: the suite itself is finished, and recorded.
    """
    measured = [folder for folder in folders if (folder / "results.jsonl").exists()]
    runs = [folder for folder in measured if (folder / "config.json").exists()]  # cells of baselines train nothing
    if len(runs) < 2:
        return
    try:
        baselines = [record for folder in measured if folder not in runs for record in results.read_results(folder)]
        print(f"its runs on one page: {compare.write(runs, out, with_work=False, baselines=baselines)}")
    except Exception as error:
        print(f"there is no page over these runs: {sentence_of(error)}")


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
    return value if isinstance(value, str) else FORMATS.get(name, "{:.3f}".format)(value)


def summary(name: str, values: list) -> str:
    """`42.1 ± 0.4 (41.8, 42.4)`; `1 of 2` for yes and no; words as they are."""
    if not values or isinstance(values[0], bool):
        return f"{sum(values)} of {len(values)}" if values else "-"
    if isinstance(values[0], str):
        return ", ".join(dict.fromkeys(values))
    mean, each = number_text(name, np.mean(values)), ", ".join(number_text(name, value) for value in values)
    return mean if len(values) == 1 else f"{mean} ± {number_text(name, np.std(values, ddof=1))} ({each})"


def table(suite, found: dict) -> str:
    """A Markdown table of cells by numbers, with aligned columns. found: {cell: {seed: record}}."""
    dated = suite.chart == "years"
    rows = [["cell", *["year"] * dated, "seeds", *(NAMES.get(name, name) for name in suite.numbers)]]
    for cell in charts.chronological(suite) if dated else suite.cells:
        year = [f"{suite.cells[cell].x:g}" if suite.cells[cell].x else ""] * dated
        own = found[cell]
        rows.append([cell, *year, str(len(own)), *(summary(n, charts.values_of(own, n)) for n in suite.numbers)])
    widths = [max(map(len, column)) for column in zip(*rows)]
    rows.insert(1, ["-" * width for width in widths])
    return "\n".join("| " + " | ".join(f"{text:{w}}" for text, w in zip(row, widths)) + " |" for row in rows)


def report(name: str, suite, found: dict, root: epath.Path, setting: str) -> None:
    """Prints the table of all finished runs and writes NAME.md and NAME.png.

    found: as in `table`. setting: from `settings_line`; it tells readers what differs from the suite.
    """
    records = [record for own in found.values() for record in own.values()]
    if not records:
        return
    minutes, hardware = sum(r["seconds"] for r in records) / 60, "; ".join({r["hardware"]: 0 for r in records})
    spent = f"{len(records)} runs, {minutes:.0f} minutes of training, on {hardware}."
    claimed = [f"# {suite.title}", f"{suite.claim} ({suite.source})"]
    parts = [*claimed, table(suite, found), NOTE, suite.caption, setting, spent]
    (root / f"{name}.md").write_text("\n\n".join([*filter(None, parts), f"![{name}]({name}.png)\n"]))
    charts.plot(suite, found, root / f"{name}.png", setting)
    print(f"{parts[2]}\n\n{NOTE}\n{setting}\nin {root}/{name}.md, drawn in {root}/{name}.png")
