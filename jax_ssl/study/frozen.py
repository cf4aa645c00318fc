"""The table of kNN and linear probe of a run or a file, beside raw pixels and the untrained network.

Each number is printed and recorded as soon as it is measured, so that a later error does not lose it. If something
can't be measured, one sentence says why; if nothing can, a UserError does.
"""

from typing import NamedTuple

import jax

from jax_ssl.data.split import Probe, Splits
from jax_ssl.errors import UserError
from jax_ssl.evaluate import knn, linear, offline
from jax_ssl.run import results
from jax_ssl.study import cases, measure


class Line(NamedTuple):
    """A line of the table: a network, its measures, and their records, which are also in results.jsonl."""

    row: cases.Row
    measured: offline.Measured
    records: list[dict]


class Table(NamedTuple):
    """A measured table, with the networks and the images that were opened for it."""

    networks: measure.Networks
    splits: Splits
    lines: list[Line]


def measure_frozen(folder: str, tasks=offline.TASKS, wanted=None, say=measure.print_now, overrides=()) -> list[dict]:
    """`measure_rows` of a run and its baselines. wanted: of measure.WEIGHTS, None = all. Raises UserError."""
    networks = measure.choose(measure.open_run(folder, overrides, say=say), wanted, say)
    splits = cases.labelled(networks.settings, say)
    return measure_rows(networks, splits, cases.rows_of(networks, splits, say), tasks, say=say)


def measure_rows(networks, splits, rows: list[cases.Row], tasks, seed=None, say=measure.print_now) -> list[dict]:
    """The records of `measure_table`."""
    return [record for line in measure_table(networks, splits, rows, tasks, seed, say).lines for record in line.records]


def measure_table(networks, splits, rows: list[cases.Row], tasks, seed=None, say=measure.print_now) -> Table:
    """Measures kNN and linear probe (or one) of each row, prints a table and returns it.

    seed: of the probe, default the run's. Raises UserError.
    """
    tasks = tuple(task for task in offline.TASKS if task in tasks)
    seed = networks.settings.seed if seed is None else seed
    say(f"\n{measure.introduction(networks, splits)}")
    say(offline.heading(tasks))
    lines, notes = [], []
    for row in rows:
        case = row.case
        labels = Probe(None, case.train.labels, None, case.test.labels, case.classes)
        measured = offline.measure_features(case.train.features, case.test.features, labels, seed, tasks)
        say(offline.row(row.label, measured, tasks))
        lines.append(Line(row, measured, record_row(networks, splits, row, measured, seed)))
        notes += [note for note in measured.notes if note not in notes]
    if not any(line.records for line in lines):
        raise UserError(f"Nothing could be measured. {' '.join(notes)}")
    for note in notes:
        say(note)
    return Table(networks, splits, lines)


def record_row(networks, splits, row: cases.Row, measured: offline.Measured, seed: int) -> list[dict]:
    """The records of one row. Process 0 appends them to results.jsonl."""
    common = measure.where(networks, splits, seed) | dict(weights=row.case.name, metric="top1")
    shared = measure.counts(splits) | {"frozen": True} | row.protocol
    of_knn = shared | knn.PROTOCOL | {"temperature": knn.TEMPERATURE}
    found = [dict(task="knn", value=value, k=k, protocol=of_knn) for k, value in measured.knn.items()]
    if measured.linear:
        chosen = {key: measured.linear[key] for key in ("learning_rate", "epochs", "held_out_top1")}
        found.append(
            dict(task="linear", value=measured.linear["top1"], k=None, protocol=shared | linear.PROTOCOL | chosen)
        )
    if jax.process_index() != 0:
        return [record | common for record in found]
    return [results.record_result(networks.out, **common | record) for record in found]
