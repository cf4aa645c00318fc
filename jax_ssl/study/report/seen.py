"""The parts of the page that show what the network sees: nearest neighbours, the map, and the confusion."""

import json
import math

import numpy as np
from PIL import Image

from jax_ssl.evaluate import offline
from jax_ssl.study.report import charts
from jax_ssl.study.report.features import NEAREST, Seen
from jax_ssl.study.report.html import Html, behind, table, tag
from jax_ssl.study.report.pictures import data_uri, jpeg
from jax_ssl.study.report.sections import figure, section

QUERIES = 10  # rows of nearest neighbours, at most
TILE = 48  # pixels of a thumbnail of the map, at most
SPRITE_BYTES = 1_500_000  # before base64
MATRIX = 20  # classes of a drawn confusion matrix, at most
PAIRS = 12  # most confused pairs of classes that are listed
GRID = 10_000  # the map's coordinates are whole numbers up to this


def class_name(names: list[str], label: int) -> str:
    return names[label] if 0 <= label < len(names) else f"class {label}"


def queries(seen: Seen) -> list[int]:
    """The first image of each class, of at most QUERIES classes; without labels images at equal distances."""
    if seen.labels is None:
        return charts.thin(range(len(seen.images)), QUERIES)
    firsts = np.unique(seen.labels, return_index=True)[1].tolist()
    return charts.thin(firsts, QUERIES)


def neighbours(seen: Seen, names: list[str]) -> Html:
    """Rows of a query and its nearest images, those of the same class marked."""
    nearest = lambda query: [neighbour(seen, names, query, place) for place in range(seen.neighbours.shape[1])]
    rows = [
        tag("li", thumbnail(seen, names, query, "query"), tag("ol", [tag("li", one) for one in nearest(query)]))
        for query in queries(seen)
    ]
    which = "The first image of each class" if seen.labels is not None else "Images at equal distances"
    told = [tag("p", f"{which}, and the {seen.neighbours.shape[1]} images whose features are nearest to it by cosine, "
                f"among {seen.about}. The network is the {seen.network}. They were not chosen by hand.")]  # fmt: skip
    if seen.labels is not None:
        chance = float(np.square(np.bincount(seen.labels) / len(seen.labels)).sum())
        told.append(tag("p", f"Over all {len(seen.images):,} images, {100 * seen.same:.1f} % of the {NEAREST} nearest "
                        f"have the same class; by chance {100 * chance:.1f} % would."))  # fmt: skip
    return section("neighbours", "Nearest neighbours", told, tag("ul", rows, class_="queries"))


def thumbnail(seen: Seen, names: list[str], number: int, kind: str, note: str = "") -> Html:
    """An image with its class below."""
    label = class_name(names, int(seen.labels[number])) if seen.labels is not None else ""
    alt = ", ".join(filter(None, [kind, label, seen.files[number], note]))
    picture = Image.fromarray(seen.images[number])
    image = tag("img", src=data_uri(jpeg(picture, 88)), alt=alt, title=seen.files[number] or None, width=64, height=64)
    return tag("figure", image, tag("figcaption", label) if label else None, class_=kind.replace(" ", "-"))


def neighbour(seen: Seen, names: list[str], query: int, place: int) -> Html:
    number, cosine = int(seen.neighbours[query, place]), f"cosine {seen.similarities[query, place]:.2f}"
    if seen.labels is None:
        return thumbnail(seen, names, number, "neighbour", cosine)
    same = seen.labels[number] == seen.labels[query]
    return thumbnail(seen, names, number, "same class" if same else "other class", cosine)


def sprite(images: np.ndarray) -> tuple[str, int, int]:
    """(one JPEG of all thumbnails as a data URI, the side of each, how many in a row), small enough for the page."""
    for side, quality in ((TILE, 82), (32, 82), (32, 60), (24, 50), (16, 50)):
        tiles = offline.shrink(images, side)
        own, columns = tiles.shape[1], math.ceil(math.sqrt(len(tiles)))
        rows = math.ceil(len(tiles) / columns)
        sheet = np.zeros((rows * columns, own, own, 3), np.uint8)
        sheet[: len(tiles)] = tiles
        page = sheet.reshape(rows, columns, own, own, 3).swapaxes(1, 2).reshape(rows * own, columns * own, 3)
        coded = jpeg(Image.fromarray(page), quality)
        if len(coded) <= SPRITE_BYTES:
            break
    return data_uri(coded), own, columns


def map_data(seen: Seen, names: list[str]) -> str:
    """What the page's program needs, as JSON that can stand inside a script element."""
    image, side, columns = sprite(seen.images)
    points = seen.plane.points - seen.plane.points.min(0)  # each axis fills the canvas: its unit means nothing
    points = np.round(points / np.maximum(points.max(0), 1e-12) * GRID).astype(int)
    data = {
        "x": points[:, 0].tolist(), "y": points[:, 1].tolist(), "near": seen.neighbours.tolist(),
        "cosines": np.round(seen.similarities, 3).tolist(), "clusters": seen.clusters.tolist(),
        "labels": None if seen.labels is None else seen.labels.tolist(), "files": seen.files,
        "names": [class_name(names, label) for label in range(int(seen.labels.max()) + 1)]
        if seen.labels is not None else [], "sprite": image, "side": side, "columns": columns,
    }  # fmt: skip
    text = json.dumps(data, sort_keys=True, separators=(",", ":"))
    return text.replace("&", "\\u0026").replace("<", "\\u003c").replace(">", "\\u003e")


def plane_map(seen: Seen, names: list[str]) -> Html:
    """The map: a canvas that page.js draws, its controls, what is chosen, and a table of the classes."""
    trust = "" if math.isnan(seen.plane.trust) else f" Trustworthiness {seen.plane.trust:.3f} (1 is best)."
    told = (f"Each point is one of {seen.about}; near points have similar features, and distances between far groups "
            f"mean nothing. Made by {seen.plane.method}.{trust}")  # fmt: skip
    colours = [tag("label", tag("input", type="radio", name="colour", value=value, checked=checked), f" {text}")
               for value, text, checked in (("labels", "class", True), ("clusters", "cluster of k-means", False))
               if value == "clusters" or seen.labels is not None]  # fmt: skip
    hint = ("Point at an image to see it, click to choose it. Arrow keys go to the nearest image in that direction, "
            "Home to the first, Escape lets go. Buttons, the keys + and −, or Ctrl and the wheel zoom; drag what is "
            "enlarged. With room enough, points become pictures.")  # fmt: skip
    buttons = [tag("button", sign, type="button", id=f"zoom-{name}", aria_label=says)
               for name, sign, says in (("in", "+", "Zoom in"), ("out", "−", "Zoom out"), ("all", "1:1", "Show all"))]
    stage = tag(
        "div", tag("canvas", id="plane", tabindex="0", role="application", aria_label="Map of images by their features",
                   aria_describedby="plane-hint", width="900", height="640"),
        tag("div", buttons, id="zoom", role="group", aria_label="Zoom of the map"),
        tag("div", tag("canvas", id="hover-image", width="96", height="96"), tag("span", id="hover-text"), id="hover",
            hidden=True, aria_hidden="true"), class_="stage")  # fmt: skip
    side = tag("div", tag("fieldset", tag("legend", "Colour by"), colours), tag("div", id="legend", role="group",
               aria_label="Show one group"), tag("div", tag("p", "Nothing is chosen.", class_="quiet"), id="chosen",
               role="region", aria_label="Chosen image", aria_live="polite"), class_="side")  # fmt: skip
    without = tag("noscript", tag("p", "The map needs JavaScript. The table has its numbers."))
    script = tag("script", Html(map_data(seen, names)), type="application/json", id="seen")
    content = tag("div", stage, side, class_="map")
    return section("map", "Map", tag("p", told), tag("p", hint, id="plane-hint", class_="fine"), without, content,
                   group_table(seen, names), script)  # fmt: skip


def group_table(seen: Seen, names: list[str]) -> Html:
    """For each class, or cluster: its images, how many of their neighbours are of it, and which other comes next."""
    groups = seen.clusters if seen.labels is None else seen.labels
    name = (lambda one: f"cluster {one + 1}") if seen.labels is None else (lambda one: class_name(names, one))
    rows = []
    for one in np.unique(groups).tolist():
        near = groups[seen.neighbours[groups == one]].ravel()
        others = np.bincount(near[near != one], minlength=int(groups.max()) + 1)
        other = name(int(others.argmax())) if others.any() else "–"
        rows.append((name(one), f"{(groups == one).sum():,}", f"{100 * (near == one).mean():.1f}", other))
    header = ("group", "images", f"of their {NEAREST} nearest in the same group, %", "most frequent other group")
    return behind("Table", table(header, rows, "Groups of the map", (1, 2)))


def confusion(seen: Seen, names: list[str]) -> Html | None:
    """Which classes the probe takes for which: a matrix for few classes, the worst pairs for any number."""
    if seen.confusion is None:
        return None
    counts, probe, accuracy = seen.confusion
    wrong = counts * (1 - np.eye(len(counts), dtype=int))
    shares = wrong / np.maximum(counts.sum(1, keepdims=True), 1)
    order = np.argsort(-shares, axis=None, kind="stable")[:PAIRS]
    pairs = [(row, column) for row, column in zip(*np.unravel_index(order, shares.shape)) if wrong[row, column]]
    name = lambda one: class_name(names, int(one))
    rows = [(name(row), name(column), str(wrong[row, column]), f"{100 * shares[row, column]:.0f}")
            for row, column in pairs]  # fmt: skip
    told = f"The {probe} on the frozen features is right for {100 * accuracy:.1f} % of the test images."
    if rows:
        told += f" The most frequent confusion: {rows[0][3]} % of the class {rows[0][0]} are taken for {rows[0][1]}."
    pairs = table(("is", "taken for", "images", "% of it"), rows, "Confused pairs", (2, 3))
    worst = tag("div", tag("h3", "Confused most often"), pairs) if rows else None
    content = [tag("p", told)]
    present = np.flatnonzero(counts.sum(0) + counts.sum(1))
    if len(present) <= MATRIX:
        few, labels = counts[np.ix_(present, present)], [class_name(names, one) for one in present.tolist()]
        chart = charts.matrix(few.tolist(), labels, told)
        cells = [(label, *(str(count) for count in own)) for label, own in zip(labels, few.tolist())]
        full = behind("Table", table(("is / taken for", *labels), cells, "Confusion, numbers of images",
                      range(1, len(labels) + 1)))  # fmt: skip
        drawn = figure(chart, "Each class", "Rows are the true class; per cent of each row.", full)
        return section("confusion", "Confusion", content, tag("div", drawn, worst, class_="pair"))
    return section("confusion", "Confusion", content, worst)
