import re

import numpy as np
import pytest

from jax_ssl.study.report import charts
from jax_ssl.study.report.charts import Line


def test_ticks_are_round_numbers_inside():
    assert charts.ticks(0, 1) == pytest.approx([0, 0.25, 0.5, 0.75, 1])
    assert charts.ticks(-3, 61) == pytest.approx([0, 20, 40, 60])
    assert charts.ticks(2, 2) == [2]
    assert charts.log_ticks(30, 4000) == pytest.approx([50, 100, 200, 500, 1000, 2000])


def test_a_curve_keeps_its_ends_and_its_message():
    points = [(float(step), 1 / step) for step in range(1, 5000)]
    drawn = charts.curves([Line("", points)], "loss falls <fast>")
    path = re.search(r'd="M([^"]*)"', drawn)[1].split("L")
    xs, ys = np.array([pair.split() for pair in path], float).T
    assert len(path) == charts.DRAWN and 'aria-label="loss falls &lt;fast&gt;"' in drawn and 'role="img"' in drawn
    assert xs[0] == charts.LEFT and xs[-1] == charts.WIDTH - charts.RIGHT
    assert ys[0] < ys[-1] and 0 < ys.min() and ys.max() < charts.HEIGHT


def test_series_differ_in_more_than_colour():
    drawn = charts.curves([Line(str(n), [(0, n), (1, n)], f"s{n}") for n in range(3)], "three")
    assert len(set(re.findall(r'class="line (s\d)"', drawn))) == 3
    assert "<circle" in drawn and len(set(re.findall(r"<polygon", drawn))) == 1


def test_names_at_the_end_of_curves_do_not_cover_each_other():
    names = [(50, 0, "a"), (51, 0, "b"), (49, 0, "c"), (90, 0, "d"), (180, 0, "e"), (178, 0, "f")]
    ys = [y for y, _, _ in charts.spread(names, 180)]
    assert min(np.diff(ys)) >= 13 and max(ys) == 180 and ys[0] == 49


def test_bars_and_shares_are_as_long_as_their_numbers():
    widths = [float(w) for w in re.findall(r'width="([\d.]+)"', charts.bars([("a", 50, "x"), ("b", 25, "y")], "m"))]
    assert widths[0] == pytest.approx(2 * widths[1], rel=0.01)
    parts = re.findall(r'width="([\d.]+)"', charts.shares([("a", 0.75), ("b", 0.25)], "m"))
    assert float(parts[0]) == pytest.approx(3 * float(parts[1]), rel=0.05)


def test_a_matrix_shows_per_cent_of_rows():
    drawn = charts.matrix([[3, 1], [0, 0]], ["cat", "a very long name of a class"], "m")
    assert ">75<" in drawn and ">25<" in drawn and "a very long n…" in drawn
    assert drawn.count("<rect") == 4 and drawn.count("cell right") == 2
