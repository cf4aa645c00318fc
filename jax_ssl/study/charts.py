"""The charts of suites of small runs: points and lines of cells, methods by year, and curves over time.

found: {label of a cell: {seed: record}} of the finished runs, see cell.py.
"""

import textwrap

import numpy as np
from etils import epath

from jax_ssl import paths
from jax_ssl.study.cell import PROBED

COLOURS = ("#0072B2", "#D55E00", "#009E73", "#CC79A7")  # of Okabe and Ito, told apart by colour-blind people too
MARKERS = "os^D"


def values_of(records: dict, name: str) -> list:
    """The values of one number, of all seeds that have it."""
    return [r["numbers"][name] for r in records.values() if r["numbers"].get(name) is not None]


def chronological(suite) -> list[str]:
    """The labels of the cells in the order of their x; baselines, which have none, come first."""
    return sorted(suite.cells, key=lambda label: suite.cells[label].x or 0)


def plot(suite, found: dict, path: epath.Path, setting: str = "") -> None:
    """Draws the chart of a suite. setting: a sentence on how its cells were run."""
    {"points": points, "years": years, "curves": curves}[suite.chart](suite, found, path, setting)


def points(suite, found: dict, path: epath.Path, setting: str) -> None:
    """Draws the first number of the suite: a point for each seed, a bar at the mean."""
    from matplotlib.figure import Figure  # imported late, as it takes half a second

    figure, name, lines = Figure(figsize=(8, 4.5), layout="constrained"), suite.numbers[0], {}
    axes = figure.subplots()
    for place, (label, cell) in enumerate(suite.cells.items()):
        values = np.array(values_of(found[label], name)) * (100 if name in PROBED else 1)
        if len(values):
            lines.setdefault(cell.line, []).append((place if cell.x is None else cell.x, values))
    for number, (line, own) in enumerate(lines.items()):
        for x, values in own:
            axes.plot([x] * len(values), values, "o", color=f"C{number}", alpha=0.5, markeredgewidth=0)
        xs, means = zip(*((x, values.mean()) for x, values in own))
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
    axes.set(ylabel=label)
    axes.legend(*axes.get_legend_handles_labels(), frameon=False)  # with handles, an empty legend is no warning
    finish(figure, axes, suite, path, setting)


def finish(figure, axes, suite, path: epath.Path, setting: str) -> None:
    """Writes claim, axis and setting around the chart, and saves it."""
    axes.set_xlabel("\n".join([suite.axis, *textwrap.wrap(setting, 90)]))
    figure.suptitle(textwrap.fill(suite.claim, 70))
    for each in figure.axes:
        each.spines[["top", "right"]].set_visible(False)
    paths.save_picture(figure, path)


def years(suite, found: dict, path: epath.Path, setting: str) -> None:
    """Draws each of the PROBED numbers in a panel: a point for each seed, methods by year, baselines as lines."""
    from matplotlib.figure import Figure

    names = [name for name in PROBED if name in suite.numbers]
    figure = Figure(figsize=(10, 2.4 * len(names) + 1.8), layout="constrained")
    panels = figure.subplots(len(names), 1, sharex=True, squeeze=False)[:, 0]
    methods = [label for label in chronological(suite) if not suite.cells[label].baseline]
    for axes, name, colour, marker in zip(panels, names, COLOURS, MARKERS):
        for place, label in enumerate(methods):
            values = [100 * value for value in values_of(found[label], name)]
            axes.plot([place] * len(values), values, marker, color=colour)
        for label, style in zip((label for label in suite.cells if suite.cells[label].baseline), ("--", ":")):
            values = values_of(found[label], name)
            if values:
                scratch = "untrained network, trained on the same labels" if name == "finetune" else label
                axes.axhline(100 * np.mean(values), color="0.3", linestyle=style, label=scratch)
        axes.set(ylabel=f"{PROBED[name]}, %")
        axes.grid(axis="y", color="0.9")
        axes.legend(*axes.get_legend_handles_labels(), frameon=False, loc="best", fontsize="small")
        of_years = [suite.cells[label].x for label in methods]
        for place in range(1, len(methods)):
            if of_years[place] != of_years[place - 1]:
                axes.axvline(place - 0.5, color="0.85", linewidth=1)
    mark_years(panels[0], of_years)
    panels[-1].set(xticks=range(len(methods)), xlim=(-0.5, len(methods) - 0.5))
    panels[-1].set_xticklabels(methods, rotation=45, ha="right", rotation_mode="anchor")
    finish(figure, panels[-1], suite, path, setting)


def mark_years(axes, of_years: list) -> None:
    """Writes each year above the middle of its methods."""
    for year in dict.fromkeys(of_years):
        places = [place for place, own in enumerate(of_years) if own == year]
        where = (np.mean(places), 1.02)
        axes.text(*where, f"{year:g}", transform=axes.get_xaxis_transform(), ha="center", va="bottom")


def curves(suite, found: dict, path: epath.Path, setting: str) -> None:
    """Draws kNN and linear probe of the student against the minutes of training steps, a line for each cell."""
    from matplotlib.figure import Figure

    figure = Figure(figsize=(9, 4.5), layout="constrained")
    panels = figure.subplots(1, 2, sharex=True)
    for (label, records), colour, marker in zip(found.items(), COLOURS, MARKERS):
        trained = {seed: record["curve"] for seed, record in records.items() if record["curve"]}
        for seed, curve in trained.items():
            minutes, *measured = zip(*((seconds / 60, *rest) for seconds, *rest in curve))
            for axes, values in zip(panels, measured):
                shown = [np.nan if value is None else 100 * value for value in values]
                name = label if seed == min(trained) else None
                axes.plot(minutes, shown, marker + "-", color=colour, markersize=4, label=name)
    for axes, name in zip(panels, ("knn", "linear")):
        axes.set(xlabel=suite.axis, ylabel=f"{PROBED[name]}, %")
        axes.grid(axis="y", color="0.9")
    panels[0].legend(*panels[0].get_legend_handles_labels(), frameon=False)
    finish(figure, panels[0], suite, path, setting)
