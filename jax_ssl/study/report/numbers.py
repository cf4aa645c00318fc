"""The numbers of a run: a small table for each task, and behind these every record with its whole protocol."""

import json
import math

from jax_ssl.study.report import charts, summary
from jax_ssl.study.report.facts import Facts
from jax_ssl.study.report.html import Html, behind, table, tag
from jax_ssl.study.report.sections import section

KNOWN = ("task", "weights", "metric", "value", "data", "split", "k", "protocol", "step", "seed")
IN_A_NAME = "batch_statistics", "input"  # of a protocol: what `summary.network_name` says


def numbers(facts: Facts) -> Html:
    """What was measured, a table for each task; behind them the long table."""
    records = summary.newest(facts.results)
    if not records:
        return section("numbers", "Numbers", tag("p", "results.jsonl has no numbers yet."))
    tasks = {}
    for record in records:
        tasks.setdefault(record.get("task", ""), []).append(record)
    tables = [task_table(task, own) for task, own in tasks.items()]
    header = ("measured", "network", "value", "images", "protocol", "step", "seed")
    whole = table(header, [number_row(record) for record in records], "All numbers", (2, 5, 6))
    return section("numbers", "Numbers", tag("div", tables, class_="tables"),
                   behind(f"All {len(records)} numbers, each with its whole protocol", whole))  # fmt: skip


def task_table(task: str, records: list[dict]) -> Html:
    """Networks by measures of one task. What all share of their protocol is below, what differs is in the row."""
    fields = [fields_of(record) for record in records]
    shared = {name: value for name, value in fields[0].items() if all(own.get(name) == value for own in fields)}
    per_cent = all(record.get("metric") in summary.PER_CENT for record in records)
    rows, columns = {}, {}
    for record, own in zip(records, fields):
        differs = {name: value for name, value in own.items() if name not in (*shared, "decides", *IN_A_NAME)}
        column = columns.setdefault(column_name(record, per_cent), len(columns))
        rows.setdefault((summary.network_name(record), text_of(differs)), {})[column] = shown_value(record)
    cells = [(row_name(*key), *(own.get(column, "–") for column in columns.values())) for key, own in rows.items()]
    name = summary.TASKS.get(task, task.replace("_", " "))
    title = name if name[:1] != name[:1].lower() or name == "kNN" else name[:1].upper() + name[1:]
    title += ", accuracy in per cent" if per_cent else ""
    whole = table(("network", *columns), cells, f"{title}, of each network", range(1, len(columns) + 1))
    told = text_of({name: value for name, value in shared.items() if name != "decides"})
    return tag("div", tag("h3", title), whole, tag("p", f"Protocol: {told}.", class_="fine"))


def fields_of(record: dict) -> dict:
    """The protocol of a record, and all else that has to be the same where numbers are compared."""
    other = {key: value for key, value in record.items() if key not in KNOWN}
    images = f"{record.get('data', '')}, {record.get('split', '')}"
    place = {"images": images, "step": record.get("step", 0), "seed": record.get("seed", 0)}
    return place | other | summary.comparable(record)


def column_name(record: dict, per_cent: bool) -> str:
    """`k = 20` or `recall, k = 5`: the measure of a record. per_cent: whether all of the table are accuracies."""
    metric = {"top1": "accuracy"}.get(record.get("metric"), str(record.get("metric")).replace("_", " "))
    k = f"k = {record['k']}" if record.get("k") else ""
    name = ", ".join(filter(None, [metric if metric != "accuracy" or not k else "", k]))
    return f"{name}, %" if record.get("metric") in summary.PER_CENT and not per_cent else name


def row_name(network: str, differs: str):
    return [network, tag("span", differs, class_="fine")] if differs else network


def shown_value(record: dict) -> str:
    value = record.get("value")
    if not isinstance(value, int | float):
        return "–"
    return f"{100 * value:.1f}" if record.get("metric") in summary.PER_CENT else charts.short(value)


def number_row(record: dict) -> tuple:
    return (
        summary.task_name(record), summary.network_name(record), shown_value(record),
        f"{record.get('data', '')}, {record.get('split', '')}", tag("span", protocol_text(record), class_="fine"),
        f"{record.get('step', 0):,}", record.get("seed", ""),
    )  # fmt: skip


def protocol_text(record: dict) -> str:
    """The protocol of a record, and any other field."""
    return text_of({key: value for key, value in record.items() if key not in KNOWN} | summary.protocol_of(record))


def text_of(fields: dict) -> str:
    """`train images 5,000; frozen; temperature 0.07; ...`, the hardware last."""
    parts = []
    for key, value in sorted(fields.items(), key=lambda field: field[0] == "hardware"):
        name = key.replace("_", " ")
        parts.append(name if value is True else f"not {name}" if value is False else f"{name} {plain_value(value)}")
    return "; ".join(parts)


def plain_value(value) -> str:
    if isinstance(value, float):
        return charts.short(value) if math.isfinite(value) else str(value)
    return f"{value:,}" if isinstance(value, int) else value if isinstance(value, str) else json.dumps(value)
