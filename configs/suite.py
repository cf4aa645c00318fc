"""What a suite of small runs is made of; the suites are in ablations.py."""

from typing import NamedTuple

# Only the end is measured: each probe in between would cost 5 % of the run.
AT_THE_END = {"probe_every": 0, "picture_every": 0}


class Cell(NamedTuple):
    """One run of a suite, for each seed."""

    overrides: dict  # config key -> value
    config: str = ""  # "" = the suite's
    x: float | None = None  # value on the horizontal axis; None = cells are drawn side by side
    line: str = ""  # cells with the same name here are one line in the plot
    baseline: str = ""  # "pixels" or "untrained": measured without training, and drawn as a line


class Suite(NamedTuple):
    """One claim and the cells that show it."""

    title: str
    claim: str  # one sentence
    source: str  # who claimed it, where
    config: str
    cells: dict[str, Cell]  # by label
    axis: str  # label of the horizontal axis
    numbers: tuple[str, ...]  # columns, see study/cell.py, or any name in metrics.jsonl; the first one is plotted
    budget: str  # of one cell
    overrides: dict = {}  # of all cells
    seconds: float = 0.0  # of training steps, from which the length of each cell follows; 0 = the epochs of its config
    probes: int = 0  # kNN and linear probe so often in a cell that has `seconds`
    chart: str = "points"  # or years: three numbers in the order of x; or curves: kNN against seconds
    caption: str = ""  # what the table can't show
