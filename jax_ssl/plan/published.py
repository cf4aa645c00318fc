"""The bound of a plan beside what was measured and published for the same config on the same pod.

A bound that is slower than somebody's run is wrong; how much faster it is says how far real runs stay below the data
sheet. The runs stand in `published.json`, the bounds come from recorded plans.
"""

import json
from pathlib import Path

RUNS = Path(__file__).with_name("published.json")


def compare(plans: list[dict]) -> list[dict]:
    """The published runs, each with `bound`, images/s, and `by`, what bounds it; None and "" without a recorded plan.

    plans: reports of `plan`.
    """
    known = {(plan["config"], plan["topology"]): plan for plan in plans if plan.get("bound")}
    runs = json.loads(RUNS.read_text())
    for run in runs:
        plan = known.get((run["config"], run["topology"]))
        run["bound"] = plan["batch_size"] / plan["bound"]["step_seconds"] if plan else None
        run["by"] = plan["bound"]["by"] if plan else ""
    return runs


def table(plans: list[dict]) -> str:
    """One line a run, in Markdown: published and bound in images/s, and how many times faster that is; then notes."""
    lines = ["| run | published | pod | images/s | bound | times | by |", "|---|---|---|---|---|---|---|"]
    for run in compare(plans):
        bound = "-" if run["bound"] is None else f"{run['bound']:,.0f}"
        times = "-" if run["bound"] is None else f"{run['bound'] / run['images_per_second']:.1f}"
        measured = f"{run['images_per_second']:,}"
        cells = [run["run"], run["published"], run["topology"], measured, bound, times, run["by"]]
        lines.append("| " + " | ".join(cells) + " |")
    notes = [f"{run['run']}: {run['note']}." for run in compare(plans) if "note" in run]
    return "\n\n".join(["\n".join(lines), *notes])
