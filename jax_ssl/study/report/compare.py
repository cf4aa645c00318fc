"""One page over several runs: their accuracies against time and work, with the same axes; seeds of a run are joined.

Only numbers of one protocol are put beside each other. Where the protocols of the runs differ, each has its own table,
and what differs is said.
"""

import json
import math

from jax_ssl import paths
from jax_ssl.errors import UserError
from jax_ssl.study.report import charts, facts, page, sections, summary
from jax_ssl.study.report.charts import Line, Spot
from jax_ssl.study.report.groups import Group, Point, differing, grouped, points_of, protocol_key
from jax_ssl.study.report.html import Html, behind, table, tag
from jax_ssl.study.report.sections import figure, section

TASKS = {"knn": "kNN", "linear": "Linear probe", "finetune": "Fine-tuning"}
NAMED = 3  # runs that are named as equally good
MANY = 8  # runs from which the curves are behind a line to open
SHOWN = 60  # cells of the table of configs, above which the reader opens it


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
            best, *others = sorted(most, key=lambda point: -point.mean)
            close = [point.group.name for point in others if best.mean - point.mean < max(best.error, best.deviation)]
            more = f" and {len(close) - NAMED} more" if len(close) > NAMED else ""
            near = f"; within its error: {', '.join(close[:NAMED])}{more}" if close else ""
            rest = f" {len(found)} protocols are in use: not all numbers can be compared." if len(found) > 1 else ""
            return f"On {name}, {best.group.name} is best of {len(most)}: {spread_text(best)} %{near}.{rest}"
    return "No two of these runs have a number of the same protocol."


def spread_text(point: Point) -> str:
    more = f" ± {point.deviation:.1f}" if len(point.values) > 1 else ""
    return f"{point.mean:.1f}{more}"


def runs_table(groups: list[Group]) -> Html:
    machines = [hardware(group) for group in groups]
    several = len(set(machines)) > 1
    worked = any(not math.isnan(group.work) for group in groups)
    header = ("run", "method", "seeds", "steps", "seconds", *["FLOPs"] * worked, *["hardware"] * several)
    rows = [(named(group.name), group.runs[0].method, ", ".join(str(run.config.get("seed", 0)) for run in group.runs),
             f"{group.runs[0].step:,}", f"{group.seconds:,.0f}", *[flops_text(group.work)] * worked,
             *[machine] * several)
            for group, machine in zip(groups, machines)]  # fmt: skip
    note = ("The runs were made on different hardware, so their seconds can't be compared." if several else
            f"All were made on the same hardware: {machines[0]}.")  # fmt: skip
    told = "Seconds are those of steps and of waiting for images."
    told += " FLOPs are those of the matrix products and the convolutions of all steps." * worked
    whole = table(header, rows, "Runs", range(3, 5 + worked))
    return section("runs", "Runs", whole, tag("p", f"{note} {told}", class_="fine"))


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
    baselines = [r for r in summary.newest(baselines) if r.get("task") == name and r.get("value") is not None]
    if not found:
        return None
    if len(found) == 1:
        ((key, points),) = found.items()
        return section(name, title, protocol_part(title, points, baselines_of(key, baselines)))
    rows = [(field, *values) for field, values in differing(list(found))]
    alone = [points[0] for points in list(found.values())[1:] if len(points) == 1]
    shared = [f"protocol {number}" for number in range(1, len(found) - len(alone) + 1)]
    header = ("field", *shared, *(named(point.group.name) for point in alone))
    told = f"{len(found)} protocols were used, and their numbers are not joined. They differ in:"
    content = [tag("p", told, " ", ", ".join(field.replace("_", " ") for field, *_ in rows), "."),
               behind("The protocols", table(header, rows, f"Protocols of {title}"))]  # fmt: skip
    for number, (key, points) in enumerate(found.items(), 1):
        if len(points) > 1 or number == 1:
            own = protocol_part(f"{title}, protocol {number}", points, baselines_of(key, baselines))
            content += [tag("h3", f"Protocol {number}"), own]
    if alone:
        content += [tag("h3", "Alone in their protocol"), runs_of(alone, [], f"{title}, of runs with other protocols")]
    return section(name, title, content)


def baselines_of(key: str, baselines: list[dict]) -> list[dict]:
    return [record for record in baselines if protocol_key(record) == key]


def runs_of(points: list[Point], baselines: list[dict], caption: str) -> Html:
    """A table of runs, with what was measured of them: their untrained networks, several seeds. Baselines are last."""
    compared, several = any(p.before is not None for p in points), any(len(p.values) > 1 for p in points)
    rows = []
    for point in points:
        before = ("–", "–") if point.before is None else (
            f"{point.before:.1f}", f"{point.mean - point.before:+.1f}".replace("-", "−"))  # fmt: skip
        each = ", ".join(f"{value:.1f}" for value in point.values)
        rows.append((named(point.group.name), *[before[0]] * compared, spread_text(point), *[before[1]] * compared,
                     *[each] * several))  # fmt: skip
    for record in baselines:
        own = (f"{100 * record['value']:.1f}", *["–", "–"] * compared, *[""] * several)
        rows.append((summary.network_name(record), *own))
    header = ("run", *["untrained, %"] * compared, "trained, %" if compared else "accuracy, %", *["rise"] * compared,
              *["each seed"] * several)  # fmt: skip
    return table(header, rows, caption, range(1, 4 if compared else 2))


def protocol_part(title: str, points: list[Point], baselines: list[dict]) -> list[Html]:
    """The table of one protocol, the best first and baselines last, and its charts."""
    whole = runs_of(sorted(points, key=lambda point: -point.mean), baselines, f"{title}, of each run")
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
    drawn = tag("div", [one for one in panels if one is not None], class_="charts wide")
    if not any(panels):
        return None
    return section("curves", "Curves", behind(f"Curves of {len(groups)} runs", drawn) if len(groups) > MANY else drawn)


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
