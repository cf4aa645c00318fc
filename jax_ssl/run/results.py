"""results.jsonl: the numbers that are measured of a run, one line each."""

import functools

from jax_ssl import paths
from jax_ssl.run.metrics import json_line, plain_number


def folder_of(weights) -> str:
    """The folder of the results of a file of weights, where no other is given."""
    return f"results/{paths.resolve(weights).stem}"


def record_result(
    workdir,
    task: str,
    weights: str,
    metric: str,
    value: float,
    data: str,
    split: str,
    k: int | None,
    protocol: dict,
    step: int,
    seed: int,
) -> dict:
    """Appends one number to results.jsonl and returns the record. Values are fractions: 0.612, not 61.2.

    weights: "pixels", "untrained", "student", "teacher" or a name; k: None where the task has none. If the folder can't
    be written to, as that of a colleague's run, one sentence says so and the record is returned all the same.
    """
    record = dict(task=task, weights=weights, metric=metric, value=plain_number(value), data=data, split=split)
    record |= dict(k=k, protocol=protocol, step=int(step), seed=int(seed))
    path = paths.resolve(workdir) / "results.jsonl"
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        before = path.read_bytes() if path.exists() else b""
        whole = before[: before.rfind(b"\n") + 1]  # without a last line that a kill cut short
        if whole != before:
            path.write_bytes(whole)
        paths.append(path, json_line(record))
    except Exception as error:
        if paths.reason(error) is None:
            raise
        print_once(f"not recorded, because {path} can't be written ({paths.reason(error)})")
    return record


@functools.cache
def print_once(sentence: str) -> None:
    """Prints a sentence, unless this process has printed it before."""
    print(sentence, flush=True)


def read_results(workdir) -> list[dict]:
    """All records of results.jsonl, oldest first, without a last one that a kill cut short."""
    return paths.json_lines(paths.resolve(workdir) / "results.jsonl")
