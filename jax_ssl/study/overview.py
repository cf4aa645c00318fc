"""What `evaluate` prints behind several tasks: one table, with the number of each task that decides.

Which number that is a ruler says as DECIDES; else it is its first. Of kNN it is the one at the k nearest to 20, of
layers that behind the last one. Networks that only one task has, as the cheap baselines of a puzzle, are in its own
table alone; a network trained from scratch stands below `untrained`.
"""

from jax_ssl.evaluate import offline
from jax_ssl.study import measure, rulers

UNTRAINED = ("scratch",)  # what other tasks call it; in lowshot the metric is
ADAPTED, WHOLE = "adapted", "whole"  # untrained networks: with batch statistics of the images, without an input stage
TASK, METRIC, CELL = 16, 22, 11  # columns' widths


def table(found: dict[str, list[dict]], seconds: dict[str, float], names) -> list[str]:
    """The lines of the table. found: {job: its records}, none where it failed; a job is a task, or several with commas.

    seconds: {job: how long it took}. names: of the networks, in order, as in measure.Networks.
    """
    rows = []
    for job, records in found.items():
        for number, task in enumerate(job.split(", ")):
            metric, cells = numbers_of(task, [record for record in records if record["task"] == task])
            rows.append((task, metric, cells, seconds[job] if number == 0 else None))
    columns = [column for name in names for column in ((name, ADAPTED, WHOLE) if name == "untrained" else (name,))]
    columns = [column for column in columns if any(column in cells for _, _, cells, _ in rows)]
    width = max(CELL, *(len(column) + 2 for column in columns)) if columns else CELL
    head = "".join(f"{column:>{width}}" for column in columns)
    lines = [f"{'all tasks':{TASK}}{'number that decides':{METRIC}}{head}{'seconds':>9}"]
    for task, metric, cells, spent in rows:
        written = "".join(f"{_written(cells.get(column)):>{width}}" for column in columns)
        lines.append(f"{task:{TASK}}{metric:{METRIC}}{written}{'' if spent is None else f'{spent:9.0f}'}")
    return lines


def numbers_of(task: str, records: list[dict]) -> tuple[str, dict[str, float]]:
    """(the name of the number that decides, {column: number}) of the records of a task; "not measured" without any."""
    if not records:
        return "not measured", {}
    metric, k = deciding(task, records)
    chosen = [record for record in records if record["metric"] == metric and record["k"] == k]
    name = metric if k is None else f"{metric}, k {k}"
    fresh = metric.replace("top1", UNTRAINED[0])
    beside = [("untrained", record["value"]) for record in records if record["metric"] == fresh != metric]
    return name, dict(beside) | {column_of(record): record["value"] for record in chosen}


def deciding(task: str, records: list[dict]) -> tuple[str, int | None]:
    """(metric, k) of the number of a task that decides."""
    told = [record for record in records if record["protocol"].get("decides")]
    first = (told or records)[0]["metric"]
    metric = getattr(rulers.open_ruler(task), "DECIDES", first) if task in rulers.names() else first
    if all(record["metric"] != metric for record in records):
        metric = first
    ks = {record["k"] for record in records if record["metric"] == metric}
    return metric, None if None in ks else offline.shown_k(ks)


def column_of(record: dict) -> str:
    """The column of a record: its network, or which of the untrained ones it is."""
    name, protocol = record["weights"], record["protocol"]
    if name in UNTRAINED:
        return "untrained"
    if name != "untrained":
        return name
    return ADAPTED if protocol.get("batch_statistics") else WHOLE if protocol.get("input") == measure.WHOLE else name


def _written(number: float | None) -> str:
    return offline.ABSENT if number is None else f"{number:.4g}"
