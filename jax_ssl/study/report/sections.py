"""The first parts of the page, from the folder of a run: its result, health and curves."""

import shlex

from jax_ssl.study.report import charts, summary
from jax_ssl.study.report.charts import Line
from jax_ssl.study.report.facts import Facts
from jax_ssl.study.report.html import Html, behind, table, tag

ROWS = 40  # of the table behind a curve
CURVES = {  # {metric: (title, what a reader should know)}
    "loss": ("Loss", "What training makes small. Losses of different methods can't be compared."),
    "feature_std": ("Spread of the features", "Near 1: images get different features. Near 0: all get the same one."),
    "rankme": ("RankMe", "How many directions the features use."),
    "learning_rate": ("Learning rate", "Of that step."),
    "grad_norm": ("Norm of the gradient", "A jump is a sign of an unstable run."),
    "images_per_second": ("Images per second", "Without the time of measuring, drawing and saving."),
}
FIRST = "feature_std", "rankme"  # of CURVES: what stands open beside loss and accuracies
MARKS = {"good": "✓", "look": "△", "bad": "✕"}
WORDS = {"good": "good", "look": "look at this", "bad": "bad"}


def section(name: str, title: str, *content) -> Html:
    heading = tag("h2", title, id=f"{name}-title")
    return tag("section", heading, *content, id=name, aria_labelledby=f"{name}-title")


def figure(chart: Html, title: str, note: str, *tables) -> Html:
    """A chart with its title above, what to know below, and a table behind it."""
    return tag("figure", tag("figcaption", tag("strong", title), " ", tag("span", note)), chart, *tables)


def header(facts: Facts) -> Html:
    notes = [tag("p", line) for line in summary.remarks(facts)]
    return tag(
        "header", tag("p", facts.name, class_="kicker"), tag("h1", f"{facts.method} on {images_name(facts)}"),
        tag("p", summary.headline(facts), class_="result"), tag("div", notes, class_="remarks"),
    )  # fmt: skip


def images_name(facts: Facts) -> str:
    """What a title calls the training images: the name of a data set, the last part of a path."""
    kind, _, name = str(facts.data.get("name") or facts.config["data"]["name"]).partition(":")
    known = {"embedded": "the embedded photographs", "synthetic": "synthetic images"}
    parts = [part for part in name.split("/") if part]
    return known.get(kind) or next((part for part in reversed(parts) if part != "train"), kind)


def result(facts: Facts) -> Html:
    """Bars of each task that has an accuracy, and what was trained."""
    panels = []
    for task, title in (("knn", "kNN"), ("linear", "Linear probe"), ("pretext", "Its own puzzle")):
        rows = summary.rows(facts.results, task)
        if rows:
            panels.append(bar_panel(title, rows))
    facts_list = [tag("div", tag("dt", name), tag("dd", fact)) for name, fact in facts.introduction.items()]
    told = facts.started.get("hardware") or next((summary.protocol_of(r).get("hardware") for r in facts.results
                                                  if summary.protocol_of(r).get("hardware")), "")  # fmt: skip
    total = sum(facts.account.values())
    if total:
        facts_list.append(tag("div", tag("dt", "time"), tag("dd", summary.clock(total), f" on {told}" if told else "")))
    advice = None
    if not panels:
        does = tag("code", f"evaluate --run={folder_of(facts)}")
        advice = tag("p", "Not measured with baselines yet: ", does, " does that.")
    return section("result", "Result", advice, tag("div", panels, class_="pair"), tag("dl", facts_list, class_="facts"))


def folder_of(facts: Facts) -> str:
    """The run's folder as a command names it: as it was started, or `runs/NAME`."""
    words = shlex.split(facts.started.get("command", ""))
    own = [word.partition("=")[2] for word in words if word.startswith("--workdir=")]
    return shlex.quote(own[0] if own else f"runs/{facts.name}")


def bar_panel(title: str, rows) -> Html:
    values = [(row.label, 100 * row.value, "trained" if row.record["weights"] in ("student", "teacher") else "base")
              for row in rows]  # fmt: skip
    k = f", k = {rows[0].record['k']}" if rows[0].record.get("k") else ""
    told = "; ".join(f"{name} {value:.1f} %" for name, value, _ in values)
    behind_it = table(("network", "per cent"), [(name, f"{value:.1f}") for name, value, _ in values], title, (1,))
    note = f"accuracy in per cent{k}, on held-out images"
    return figure(charts.bars(values, f"{title}: {told}"), title, note, behind("Table", behind_it))


def health(facts: Facts) -> Html:
    rows = [
        tag("li", tag("span", MARKS[one.state], class_="mark", aria_hidden="true"),
            tag("span", tag("strong", one.name), tag("span", f" ({WORDS[one.state]})", class_="unseen"), ": ",
                one.sentence), class_=one.state)
        for one in summary.health(facts)
    ]  # fmt: skip
    notes = [line[4:].strip() for line in facts.log if line.startswith("note ")]
    rows += [tag("li", tag("span", "i", class_="mark", aria_hidden="true"), tag("span", note), class_="note")
             for note in dict.fromkeys(notes)]  # fmt: skip
    return section("health", "Health", tag("ul", rows, class_="health"), time_chart(facts.account))


def time_chart(account: dict[str, float]) -> Html | None:
    total = sum(account.values())
    if not total:
        return None
    parts = sorted(((name, seconds / total) for name, seconds in account.items() if seconds >= 0.005 * total),
                   key=lambda part: (-part[1], part[0]))  # fmt: skip
    told = ", ".join(f"{name} {100 * share:.0f} %" for name, share in parts)
    rows = [(name, f"{account[name]:.1f}", f"{100 * share:.1f}") for name, share in parts]
    behind_it = behind("Table", table(("kind", "seconds", "per cent"), rows, "Where the time went", (1, 2)))
    return figure(charts.shares(parts, f"Where the time went: {told}"), "Where the time went", told, behind_it)


def curves(facts: Facts) -> Html:
    """The curves that every reader asks for, and behind them all others that were logged."""
    logged = sorted({name for line in facts.metrics for name in line} - {"step"})
    puzzles = [name for name in logged if name.startswith("pretext_")]
    first = [curve(facts, "loss"), accuracy_curve(facts), *(curve(facts, name) for name in [*puzzles, *FIRST])]
    first = [one for one in first if one is not None]
    shown = "loss", "knn", "linear", "uniform_loss", "data_wait", *puzzles, *FIRST
    rest = [*CURVES, *(name for name in logged if name not in CURVES)]
    rest = [name for name in rest if name not in shown]
    others = [one for name in rest if (one := curve(facts, name)) is not None]
    if not first:
        return section("curves", "Curves", tag("p", "Fewer than two steps were logged."))
    more = behind(f"{len(others)} more curves", tag("div", others, class_="charts")) if others else None
    return section("curves", "Curves", tag("div", first, class_="charts"), more)


def curve(facts: Facts, name: str) -> Html | None:
    """The curve of one metric, None if it was logged less than twice."""
    points = facts.series(name)
    if len(points) < 2:
        return None
    title, note = CURVES.get(name, (name.replace("pretext_", "own puzzle: ").replace("_", " "), ""))
    lines, uniform = [Line("", points)], facts.series("uniform_loss")
    if name == "loss" and uniform:
        lines.append(Line("output without information", uniform[-1:], "s7"))
    chart = charts.curves(lines, summary.direction(title, points))
    return figure(chart, title, note, curve_table(title, [("value", points)]))


def accuracy_curve(facts: Facts) -> Html | None:
    """kNN and linear probe while it trained, with the levels of the baselines that were measured."""
    found = {"kNN": facts.series("knn"), "linear": facts.series("linear")}
    found = {name: [(step, 100 * value) for step, value in points] for name, points in found.items() if len(points) > 1}
    if not found:
        return None
    lines = [Line(name, points, f"s{number}") for number, (name, points) in enumerate(found.items())]
    own = summary.gain(summary.rows(facts.results, "knn"))
    levels = {"kNN, untrained": own and own.before, "kNN, raw pixels": own and own.pixels}
    lines += [Line(name, [(0, level)], "s7") for name, level in levels.items() if level is not None]
    told = "; ".join(summary.direction(name, points) for name, points in found.items())
    title = "kNN and linear probe"
    note = "Per cent of held-out images, while it trains."
    return figure(charts.curves(lines, told), title, note, curve_table(title, list(found.items())))


def curve_table(title: str, series) -> Html:
    steps = charts.thin(sorted({step for _, points in series for step, _ in points}), ROWS)
    by_step = [dict(points) for _, points in series]
    rows = [(f"{step:,}", *(charts.short(own[step]) if step in own else "–" for own in by_step)) for step in steps]
    header = ("step", *(name for name, _ in series))
    return behind("Table", table(header, rows, title, range(len(header))))
