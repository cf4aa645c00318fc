"""Our bound beside what was measured and published for the same config on the same pod.

A bound that is slower than somebody's run is wrong; how much faster it is says how far real runs stay below the data
sheet. The runs stand in `published.json`, the bounds come from the recorded plans, `seals --record=PLAN.json`.
"""

import json
from pathlib import Path

from jax_ssl import seals
from jax_ssl.plan.report import aligned

RUNS = Path(__file__).with_name("published.json")


def read() -> list[dict]:
    """The published runs, each with `bound`: images/s of the recorded plan, None where none was recorded."""
    plans = {(plan["config"], plan["topology"]): plan for plan in seals.read("plans.jsonl")}
    runs = json.loads(RUNS.read_text())
    for run in runs:
        plan = plans.get((run["config"], run["topology"]), {})
        run["bound"] = plan["batch_size"] / plan["bound"]["step_seconds"] if plan.get("bound") else None
        run["by"] = plan["bound"]["by"] if plan.get("bound") else ""
    return runs


def table() -> str:
    """One line a run: published and bound in images/s, and how many times faster the bound is."""
    number = lambda value: "-" if value is None else f"{value:,.0f}"
    rows = [("run", ["pod", "published", "images/s", "bound", "times", "by"])]
    for run in read():
        times = "-" if run["bound"] is None else f"{run['bound'] / run['images_per_second']:.1f}"
        cells = [run["topology"], run["published"], number(run["images_per_second"]), number(run["bound"]), times]
        rows.append((run["run"], [*cells, run["by"] or "-"]))
    return "\n".join(aligned(rows))
