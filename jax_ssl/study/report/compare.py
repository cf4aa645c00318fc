"""One page over several runs: their accuracies against time and work, with the same axes; seeds of a run are joined.

Only numbers of one protocol are put beside each other. Where the protocols of the runs differ, each has its own table,
and what differs is said.
"""

import itertools
import json
import math
from typing import NamedTuple

import jax
import numpy as np

from jax_ssl import config, paths
from jax_ssl.errors import UserError
from jax_ssl.plan import compile, flops
from jax_ssl.study.report import charts, facts, numbers, page, sections, summary
from jax_ssl.study.report.charts import Line, Spot
from jax_ssl.study.report.facts import Facts
from jax_ssl.study.report.html import Html, behind, table, tag
from jax_ssl.study.report.sections import figure, section

TASKS = {"knn": "kNN", "linear": "Linear probe", "finetune": "Fine-tuning"}
SHOWN = 60  # cells of the table of configs, above which the reader opens it
ASIDE = (*summary.CHOSEN, "hardware")  # of a protocol: what may differ between numbers that are compared


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

    @property
    def mean(self) -> float:
        return float(np.mean(self.values))

    @property
    def deviation(self) -> float:
        """The standard deviation over seeds, 0 for one."""
        return float(np.std(self.values, ddof=1)) if len(self.values) > 1 else 0.0


def write(folders: list, out, with_work: bool = True, baselines: list[dict] = ()):
    """Writes the page over these runs to a file. Raises UserError for a folder that is no run, or is given twice.

    with_work: with FLOPs, for which the program of each is traced, some seconds of work. baselines: records of raw
    pixels or of an untrained network that belong to no run.
    """
    resolved = [str(paths.resolve(folder)) for folder in folders]
    if len(set(resolved)) < len(folders) or len(folders) < 2:
        raise UserError("--compare needs the folders of two runs or more, each once.")
    groups = grouped([facts.read(folder) for folder in folders], with_work)
    path = paths.resolve(out)
    paths.write(path, compare_page(groups, baselines))
    return path


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
        settings = config.of_run(run.folder)
        settings.mesh.fsdp = 1
        _, _, traced = compile.trace(settings, jax.devices()[:1])
    except Exception:  # a run of another version, or on images that are not here: all else can be compared
        return math.nan
    return flops.count(traced.jaxpr) * run.step


# ---- which numbers may stand beside each other


def protocol_key(record: dict) -> str:
    """What two numbers must have in common to be compared, as JSON."""
    protocol = {key: value for key, value in summary.protocol_of(record).items() if key not in ASIDE}
    protocol |= {key: value for key, value in record.items() if key not in (*numbers.KNOWN, *ASIDE)}
    return json.dumps(protocol | {"data": record.get("data"), "split": record.get("split"), "k": record.get("k")},
                      sort_keys=True, default=str)  # fmt: skip


def points_of(groups: list[Group], task: str) -> dict[str, list[Point]]:
    """{protocol: points} of a task."""
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
            found.setdefault(key, []).append(Point(group, [gain.after for gain in gains], mean))
    return found


def differing(keys: list[str]) -> list[tuple[str, list[str]]]:
    """[(field, its value in each protocol)] of the fields in which protocols differ."""
    protocols = [json.loads(key) for key in keys]
    fields = sorted({field for protocol in protocols for field in protocol})
    rows = [(field, [json.dumps(protocol[field]) if field in protocol else "–" for protocol in protocols])
            for field in fields]  # fmt: skip
    return [(field, values) for field, values in rows if len(set(values)) > 1]


# ---- the page


def compare_page(groups: list[Group], baselines: list[dict] = ()) -> str:
    parts = [task_section(name, title, points_of(groups, name), baselines) for name, title in TASKS.items()]
    parts += [curves(groups), runs_table(groups), config_table(groups)]
    title = f"{sum(len(group.runs) for group in groups)} runs compared"
    header = tag("header", tag("p", "comparison", class_="kicker"), tag("h1", title),
                 tag("p", headline(groups), class_="result"))  # fmt: skip
    return page.document(title, header, [part for part in parts if part is not None])


def headline(groups: list[Group]) -> str:
    """Who is best, of those that may be compared; and what may not."""
    for task, name in (("knn", "kNN"), ("linear", "the linear probe")):
        found = points_of(groups, task)
        most = max(found.values(), key=len, default=[])
        if len(most) > 1:
            best = max(most, key=lambda point: point.mean)
            rest = f" {len(found)} protocols are in use: not all numbers can be compared." if len(found) > 1 else ""
            return f"On {name}, {best.group.name} is best of {len(most)}: {spread_text(best)} %.{rest}"
    return "No two of these runs have a number of the same protocol."


def spread_text(point: Point) -> str:
    more = f" ± {point.deviation:.1f}" if len(point.values) > 1 else ""
    return f"{point.mean:.1f}{more}"


def runs_table(groups: list[Group]) -> Html:
    machines = [hardware(group) for group in groups]
    several = len(set(machines)) > 1
    header = ("run", "method", "seeds", "steps", "seconds", "FLOPs", *["hardware"] * several)
    rows = [(named(group.name), group.runs[0].method, ", ".join(str(run.config.get("seed", 0)) for run in group.runs),
             f"{group.runs[0].step:,}", f"{group.seconds:,.0f}", flops_text(group.work), *[machine] * several)
            for group, machine in zip(groups, machines)]  # fmt: skip
    note = ("The runs were made on different hardware, so their seconds can't be compared." if several else
            f"All were made on the same hardware: {machines[0]}.")  # fmt: skip
    told = ("Seconds are those of steps and of waiting for images. FLOPs are those of the matrix products and the "
            "convolutions of all steps.")  # fmt: skip
    return section("runs", "Runs", table(header, rows, "Runs", (3, 4, 5)), tag("p", f"{note} {told}", class_="fine"))


def named(name: str) -> Html:
    """The name of a run in a table, which is not broken at its hyphens."""
    return tag("span", name, class_="word")


def flops_text(work: float) -> str:
    return "–" if math.isnan(work) else charts.short(work)


def hardware(group: Group) -> str:
    found = {summary.protocol_of(r).get("hardware") for run in group.runs for r in run.results}
    found |= {run.started.get("hardware") for run in group.runs}
    return "; ".join(sorted(filter(None, found))) or "not recorded"


def task_section(name: str, title: str, found: dict[str, list[Point]], baselines: list[dict]) -> Html | None:
    """A table and two charts for each protocol; and in what the protocols differ, if there are several."""
    baselines = [record for record in summary.newest(baselines) if record.get("task") == name]
    if not found:
        return None
    content, several = [], len(found) > 1
    if several:
        rows = [(field, *values) for field, values in differing(list(found))]
        header = ("field", *(f"protocol {number}" for number in range(1, len(found) + 1)))
        told = "These numbers were measured by different protocols, and are not joined. They differ in:"
        content += [tag("p", told), table(header, rows, f"Protocols of {title}")]
    for number, (key, points) in enumerate(found.items(), 1):
        if several:
            content.append(tag("h3", f"Protocol {number}"))
        content += protocol_part(title, points, [record for record in baselines if protocol_key(record) == key])
    return section(name, title, content)


def protocol_part(title: str, points: list[Point], baselines: list[dict]) -> list[Html]:
    """The table of one protocol, the best first and baselines last, and its charts."""
    best = sorted(points, key=lambda point: -point.mean)
    rows = [(named(point.group.name), "–" if point.before is None else f"{point.before:.1f}", spread_text(point),
             "–" if point.before is None else f"{point.mean - point.before:+.1f}".replace("-", "−"),
             ", ".join(f"{value:.1f}" for value in point.values)) for point in best]  # fmt: skip
    rows += [(summary.network_name(record), f"{100 * record['value']:.1f}", "–", "–", "–") for record in baselines]
    header = ("run", "untrained, %", "trained, %", "rise", "each seed")
    plots = []
    for x_title, x_of in (("seconds of training", lambda g: g.seconds), ("FLOPs", lambda g: g.work)):
        spots = [Spot(p.group.name, x_of(p.group), p.mean, p.deviation, p.group.place)
                 for p in points if x_of(p.group) > 0]  # fmt: skip
        if len(spots) > 1:
            told = "; ".join(f"{spot.name} {spot.y:.1f} % at {charts.short(spot.x)}" for spot in spots)
            chart = charts.scatter(spots, f"{title} against {x_title}: {told}", x_title)
            bars = "; bars: deviation over seeds" if any(spot.bar for spot in spots) else ""
            note = f"per cent against {x_title}, on a logarithmic axis{bars}"
            data = [(s.name, charts.short(s.x), f"{s.y:.1f}") for s in spots]
            behind_it = behind("Table", table(("run", x_title, "per cent"), data, f"{title}, {x_title}", (1, 2)))
            plots.append(figure(chart, title, note, behind_it))
    whole = table(header, rows, f"{title} of each run", (1, 2, 3))
    return [whole, tag("div", plots, class_="charts wide") if plots else None]


def curves(groups: list[Group]) -> Html | None:
    """Metrics of all runs over the same axes; losses of one method each, as others can't be compared."""
    panels = []
    for name, title in (("knn", "kNN, %"), ("linear", "Linear probe, %"),
                        ("feature_std", "Spread of the features")):  # fmt: skip
        panels.append(curve_of(groups, name, title))
    for method in dict.fromkeys(group.runs[0].method for group in groups):
        own = [group for group in groups if group.runs[0].method == method]
        panels.append(curve_of(own, "loss", f"Loss of {method}"))
    panels = [one for one in panels if one is not None]
    return section("curves", "Curves", tag("div", panels, class_="charts wide")) if panels else None


def curve_of(groups: list[Group], name: str, title: str) -> Html | None:
    """One metric of the first seed of each group."""
    lines = []
    for group in groups:
        scale = 100 if name in ("knn", "linear") else 1
        points = [(step, scale * value) for step, value in group.runs[0].series(name)]
        if len(points) > 1:
            lines.append(Line(group.name, points, f"s{group.place % 8}"))
    if not lines:
        return None
    told = "; ".join(summary.direction(line.name, line.points) for line in lines)
    behind_it = sections.curve_table(title, [(line.name, line.points) for line in lines])
    return figure(charts.curves(lines, told), title, "The first seed of each.", behind_it)


def config_table(groups: list[Group]) -> Html:
    """The keys in which the configs differ."""
    flat = [facts.flat(group.runs[0].config) for group in groups]
    keys = sorted({key for own in flat for key in own} - {"seed"})
    show = lambda own, key: json.dumps(own[key]) if key in own else "–"
    rows = [(key, *values) for key in keys if len(set(values := [show(own, key) for own in flat])) > 1]
    if not rows:
        return section("config", "Config", tag("p", "The configs are the same."))
    header = ("key", *(named(group.name) for group in groups))
    told = f"{len(rows)} keys in which the runs differ"
    whole = table(header, rows, "Configs")
    many = len(groups) * len(rows) > SHOWN
    return section("config", "Config", behind(told, whole) if many else [tag("p", f"{told}:"), whole])
