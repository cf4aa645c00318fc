"""Charts as plain SVG: curves, bars, shares of a whole, and a matrix. Colours and fonts are the page's (page.css).

Each chart says its message in `aria-label`, and the caller puts a table behind it. Series differ in colour, dash and
marker.
"""

import math
from collections.abc import Sequence
from typing import NamedTuple

from jax_ssl.study.report.html import Html, join, tag

WIDTH, HEIGHT = 340, 210
LEFT, RIGHT, TOP, BOTTOM = 46, 14, 12, 30  # around the axes
NAME = 13  # height of a name
MARKED = 30  # points of a curve up to which each gets a marker
DRAWN = 400  # points of a curve, at most: more than the pixels of a chart


PREFIXES = {1e18: "E", 1e15: "P", 1e12: "T", 1e9: "G", 1e6: "M"}


class Line(NamedTuple):
    """A curve, or a level where there is one point. name: shown beside its end where there are several."""

    name: str
    points: Sequence[tuple[float, float]]
    style: str = "s0"  # a class of page.css, and by its number a shape


def ticks(low: float, high: float, count: int = 4) -> list[float]:
    """About `count` round numbers between two numbers, both inside."""
    if not high > low:
        return [low]
    raw = (high - low) / count
    unit = 10.0 ** math.floor(math.log10(raw))
    step = unit * next(size for size in (1, 2, 2.5, 5, 10) if size * unit >= raw * 0.999)
    first = math.ceil(low / step - 1e-9)
    return [place * step for place in range(first, math.floor(high / step + 1e-9) + 1)]


def short(value: float) -> str:
    """A number of an axis or table: four digits, no exponent where it can be avoided; `1.29 T` from a million on."""
    size = next((size for size in PREFIXES if abs(value) >= size), None)
    if size:
        return f"{value / size:.3g} {PREFIXES[size]}"
    if value == 0 or 1e-3 <= abs(value) < 1e5:
        return f"{value:,.0f}" if abs(value) >= 1000 and value == round(value) else f"{value:.4g}"
    return f"{value:.3g}"


def place(value: float) -> str:
    """A coordinate, to a tenth of a pixel."""
    return f"{value:.1f}".removesuffix(".0")


def thin(points: Sequence, most: int) -> list:
    """At most `most` of the points, at equal distances, the first and the last included."""
    if len(points) <= most:
        return list(points)
    return [points[round(number * (len(points) - 1) / (most - 1))] for number in range(most)]


def svg(*content, label: str, width: int = WIDTH, height: int = HEIGHT, class_: str = "chart") -> Html:
    return tag("svg", *content, viewBox=f"0 0 {width} {height}", role="img", aria_label=label, class_=class_)


def text(x, y, content, anchor="middle", class_=None, **more) -> Html:
    return tag("text", content, x=place(x), y=place(y), text_anchor=anchor, class_=class_, **more)


def marker(shape: int, x: float, y: float, class_: str, size: float = 3.2) -> Html:
    """One of five shapes: circle, square, triangle, diamond, triangle upside down."""
    if shape % 5 == 0:
        return tag("circle", cx=place(x), cy=place(y), r=size, class_=class_)
    s = size * 1.15
    corners = [
        [(-s, -s), (s, -s), (s, s), (-s, s)], [(0, -s * 1.2), (s * 1.1, s), (-s * 1.1, s)],
        [(0, -s * 1.3), (s * 1.3, 0), (0, s * 1.3), (-s * 1.3, 0)], [(0, s * 1.2), (s * 1.1, -s), (-s * 1.1, -s)],
    ][shape % 5 - 1]  # fmt: skip
    return tag("polygon", points=" ".join(f"{place(x + dx)},{place(y + dy)}" for dx, dy in corners), class_=class_)


def axes(xs: tuple[float, float], ys: tuple[float, float], x_title: str, log_x: bool = False, height: int = HEIGHT):
    """(the SVG of both axes, x -> pixel, y -> pixel) for ranges of values."""
    inner_w, inner_h = WIDTH - LEFT - RIGHT, height - TOP - BOTTOM
    scale = math.log10 if log_x else float
    low, high = scale(xs[0]), scale(xs[1])
    to_x = lambda v: LEFT + inner_w * ((scale(v) - low) / (high - low) if high > low else 0.5)
    to_y = lambda v: TOP + inner_h * (1 - ((v - ys[0]) / (ys[1] - ys[0]) if ys[1] > ys[0] else 0.5))
    drawn = []
    for value in ticks(*ys):
        y = to_y(value)
        drawn.append(tag("line", x1=LEFT, x2=WIDTH - RIGHT, y1=place(y), y2=place(y), class_="grid"))
        drawn.append(text(LEFT - 6, y + 3.5, short(value), "end"))
    marks = log_ticks(*xs) if log_x else ticks(*xs)
    drawn += [text(to_x(value), height - BOTTOM + 14, short(value)) for value in marks]
    drawn.append(text(WIDTH - RIGHT, height - 3, x_title, "end", "quiet"))
    return join(drawn), to_x, to_y


def log_ticks(low: float, high: float) -> list[float]:
    """Numbers of a logarithmic axis: powers of ten, with 2 and 5 between where there are few."""
    first, last = math.floor(math.log10(low)), math.ceil(math.log10(high))
    factors = (1,) if last - first > 3 else (1, 2, 5)
    found = [f * 10.0**e for e in range(first, last + 1) for f in factors]
    found = [value for value in found if low * 0.999 <= value <= high * 1.001]
    return found if len(found) > 1 else ticks(low, high, 3)


def padded(values: Sequence[float]) -> tuple[float, float]:
    """The range of some values, a little larger, so that no curve lies on the frame."""
    low, high = min(values), max(values)
    room = 0.06 * (high - low) or 0.05 * abs(high) or 1.0
    return low - room, high + room


def curves(lines: Sequence[Line], label: str, x_title: str = "step") -> Html:
    """Curves over one axis. A Line of one point is a level: dashed, over the whole width, named at its right end."""
    xs = [x for line in lines for x, _ in line.points if len(line.points) > 1] or [0.0, 1.0]
    height, ys = height_for(lines), [y for line in lines for _, y in line.points]
    frame, to_x, to_y = axes((min(xs), max(xs)), padded(ys), x_title, height=height)
    drawn, names = [frame], []
    for line in lines:
        end = line.points[-1][1]
        if len(line.points) == 1:
            drawn.append(tag("line", x1=LEFT, x2=WIDTH - RIGHT, y1=place(to_y(end)), y2=place(to_y(end)),
                             class_=f"level {line.style}"))  # fmt: skip
        else:
            points = thin(line.points, DRAWN)
            path = "M" + "L".join(f"{place(to_x(x))} {place(to_y(y))}" for x, y in points)
            drawn.append(tag("path", d=path, class_=f"line {line.style}"))
            marked = points if len(points) <= MARKED else points[-1:]
            kind = int(line.style[1:])
            drawn += [marker(kind, to_x(x), to_y(y), f"dot {line.style}", 2.6) for x, y in marked]
        if len(lines) > 1:
            x = WIDTH - RIGHT if len(line.points) == 1 else to_x(line.points[-1][0])
            names.append((to_y(end) - 4, x, line.name))
    shown = [text(x + 6, y + 8, name, "start", "name") if x < WIDTH / 2 else text(x, y, name, "end", "name")
             for y, x, name in spread(names, height - BOTTOM)]  # fmt: skip
    return svg(drawn, shown, label=label, height=height)


def height_for(named: Sequence) -> int:
    """Of a chart with room for a name of each."""
    return max(HEIGHT, TOP + BOTTOM + NAME * (len(named) + 1))


def spread(names: Sequence[tuple[float, float, str]], lowest: float) -> list[tuple[float, float, str]]:
    """Names, (y, x, name), moved down or up until none covers another and none is below `lowest`; from the top."""
    placed = []
    for y, x, name in sorted(names):
        placed.append((max(y, placed[-1][0] + NAME if placed else TOP), x, name))
    for number in range(len(placed) - 1, -1, -1):
        most = placed[number + 1][0] - NAME if number + 1 < len(placed) else lowest
        placed[number] = (min(placed[number][0], most), *placed[number][1:])
    return placed


def bars(rows: Sequence[tuple[str, float, str]], label: str) -> Html:
    """Horizontal bars of per cent: (name, value, style). The name is above its bar, the value at its end."""
    step, width, room = 44, 400, 46
    high, drawn = max(value for _, value, _ in rows) or 1.0, []
    for number, (name, value, style) in enumerate(rows):
        y, length = number * step, max((width - room) * value / high, 1)
        drawn.append(text(0, y + 13, name, "start"))
        drawn.append(tag("rect", x=0, y=y + 19, width=place(length), height=15, rx=2, class_=f"bar {style}"))
        drawn.append(text(length + 7, y + 31, f"{value:.1f}", "start", "value"))
    return svg(drawn, label=label, width=width, height=len(rows) * step - 4, class_="chart bars")


def shares(parts: Sequence[tuple[str, float]], label: str) -> Html:
    """One bar cut into shares of a whole, each with its name where there is room: (name, share of 1)."""
    width, x, drawn = 400, 0.0, []
    for number, (name, share) in enumerate(parts):
        length = width * share
        drawn.append(tag("rect", x=place(x), y=0, width=place(max(length - 1.5, 0.5)), height=16,
                         class_=f"bar s{number % 8}"))  # fmt: skip
        if length > 6 * len(name) + 6:
            drawn.append(text(x + length / 2, 29, name))
        x += length
    return svg(drawn, label=label, width=width, height=32, class_="chart shares")


def matrix(counts: Sequence[Sequence[int]], names: Sequence[str], label: str) -> Html:
    """A confusion matrix: rows are true classes, shades and numbers the share of a row, in per cent."""
    cell, left, top = 38, 96, 70
    size = cell * len(names)
    drawn = []
    for row, (name, own) in enumerate(zip(names, counts)):
        total = sum(own) or 1
        drawn.append(text(left - 8, top + row * cell + cell / 2 + 4, clip(name, 14), "end"))
        x = left + row * cell + cell / 2
        drawn.append(text(x, top - 8, clip(name, 10), "start", transform=f"rotate(-45 {place(x)} {top - 8})"))
        for column, count in enumerate(own):
            share = count / total
            at = left + column * cell, top + row * cell
            kind = "cell right" if row == column else "cell"
            drawn.append(tag("rect", x=at[0] + 1, y=at[1] + 1, width=cell - 2, height=cell - 2, rx=3,
                             class_=kind, fill_opacity=f"{max(share, 0.04):.2f}"))  # fmt: skip
            if count:
                kind = "on" if share > 0.55 else None
                drawn.append(text(at[0] + cell / 2, at[1] + cell / 2 + 4, f"{100 * share:.0f}", class_=kind))
    return svg(drawn, label=label, width=left + size + 24, height=top + size + 4, class_="chart matrix")


def clip(name: str, most: int) -> str:
    """A name of at most `most` characters."""
    return name if len(name) <= most else f"{name[: most - 1]}…"


class Spot(NamedTuple):
    """A point of a scatter, with the half length of its bar (0 = none). place: says its colour and shape."""

    name: str
    x: float
    y: float
    bar: float = 0.0
    place: int = 0


def scatter(spots: Sequence[Spot], label: str, x_title: str) -> Html:
    """Spots with their names, each with its own colour and shape, over a logarithmic axis."""
    xs = [spot.x for spot in spots]
    low, high = min(xs) / 1.25, max(xs) * 1.25
    ys = padded([end for spot in spots for end in (spot.y - spot.bar, spot.y + spot.bar)])
    height = height_for(spots)
    frame, to_x, to_y = axes((low, high), ys, x_title, log_x=True, height=height)
    drawn, names = [frame], {True: [], False: []}  # names at the right and at the left of their spots
    for spot in spots:
        x, y, style = to_x(spot.x), to_y(spot.y), f"s{spot.place % 8}"
        if spot.bar:
            ends = dict(y1=place(to_y(spot.y - spot.bar)), y2=place(to_y(spot.y + spot.bar)))
            drawn.append(tag("line", x1=place(x), x2=place(x), **ends, class_=f"spread {style}"))
        drawn.append(marker(spot.place, x, y, f"dot {style}", 4.5))
        side = x < LEFT + 0.6 * (WIDTH - LEFT - RIGHT)
        names[side].append((y + 4, x + (9 if side else -9), clip(spot.name, 22)))
    shown = []
    for side, own in names.items():
        for (at, from_x, _), (y, x, name) in zip(sorted(own), spread(own, height - BOTTOM)):
            if abs(at - y) > NAME:  # it is moved: a line leads to it
                x += 14 if side else -14
                drawn.append(tag("line", x1=place(from_x - 4 if side else from_x + 4), y1=place(at - 4),
                                 x2=place(x - 2 if side else x + 2), y2=place(y - 4), class_="grid"))  # fmt: skip
            shown.append(text(x, y, name, "start" if side else "end", "name"))
    return svg(drawn, shown, label=label, height=height)
