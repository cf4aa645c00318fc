"""The table of which method has earned which seal, built from recorded evidence and from nothing else.

Evidence lies in tests/seals/, one JSON object a line, and says where it came from:
    tests.jsonl  outcomes of tests marked `seal`, written by `pytest --record-seals`
    plans.jsonl  compilations for a described pod, `python -m jax_ssl seals --record=PLAN.json`
    runs.jsonl   trained and measured runs, `python -m jax_ssl seals --record=RUN_FOLDER`
A seal without a record stays open; so does one whose newest record failed.
"""

import datetime
import json
from pathlib import Path

from jax_ssl import paths, published
from jax_ssl.errors import UserError

SEALS = ("runs", "faithful", "any mesh", "fits its pod", "learns", "shows itself")
FOLDER = Path(__file__).parents[1] / "tests" / "seals"
README = Path(__file__).parents[1] / "README.md"
BEGIN, END = "<!-- seals: begin -->", "<!-- seals: end -->"
# Methods whose frozen features are known to be weak: they are fine-tuned as well.
FINE_TUNED = ("mae", "simmim", "beit", "dvae", "context_encoder")
# Raw pixels stand beside all on kNN; joint-embedding and self-distillation have to beat them, these need not.
BESIDE_PIXELS = (*FINE_TUNED, "ijepa")
SEEDS = 2


def methods() -> list[str]:
    """The file name is the registry."""
    return sorted(path.stem for path in (Path(__file__).parent / "methods").glob("*.py") if path.stem != "__init__")


def read(name: str) -> list[dict]:
    path = FOLDER / name
    return [json.loads(line) for line in path.read_text().splitlines()] if path.exists() else []


def write(name: str, records: list[dict]) -> None:
    FOLDER.mkdir(exist_ok=True)
    (FOLDER / name).write_text("".join(json.dumps(record, sort_keys=True) + "\n" for record in records))


def today() -> str:
    return datetime.date.today().isoformat()


def merge(name: str, new: list[dict], key) -> None:
    """Replaces the records with the same key, keeps the others, in a stable order."""
    records = {key(record): record for record in [*read(name), *new]}
    write(name, [records[k] for k in sorted(records)])


def record(path: str, name: str = "") -> None:
    """Keeps a run's folder or a plan's JSON file as evidence; name: how the run's config was called."""
    path = paths.resolve(path)
    if path.suffix == ".json" and path.is_file():
        record_plans(json.loads(path.read_text()))
    elif (path / "config.json").exists():
        record_run(path, name)
    else:
        raise UserError(f"{path} is neither a run's folder nor a JSON file that `plan --out` wrote.")


def record_plans(plans) -> None:
    """One record for each (config, topology)."""
    plans = plans if isinstance(plans, list) else [plans]
    keep = [{"date": today()} | plan for plan in plans]
    merge("plans.jsonl", keep, key=lambda plan: (plan["method"], plan["config"], plan["topology"]))


def record_run(folder, name: str) -> None:
    """Keeps the newest number of each kind that a run was given, and what it took."""
    settings = json.loads((folder / "config.json").read_text())
    results, numbers = paths.json_lines(folder / "results.jsonl"), {}
    if not results:
        raise UserError(f"{folder} has no results: run `python -m jax_ssl evaluate --run={folder}` first.")
    for result in results:
        k = f"@{result['k']}" if result["k"] else ""
        statistics = result["protocol"].get("batch_statistics")
        numbers[f"{result['task']}{k} {result['weights']}{', ' + statistics if statistics else ''}"] = result["value"]
    steps = paths.json_lines(folder / "metrics.jsonl")
    seconds = settings["log_every"] * sum(line.get("step_seconds", 0) for line in steps)
    new = dict(
        method=settings["method"]["name"], config=name or folder.name, seed=settings["seed"], date=today(),
        hardware=results[-1]["protocol"].get("hardware", ""), seconds=round(seconds), steps=results[-1]["step"],
        data=results[-1]["data"], batch_size=settings["batch_size"], results=numbers,
        feature_depth=max(result["protocol"].get("feature_depth", 0) for result in results),
    )  # fmt: skip
    merge("runs.jsonl", [new], key=lambda run: (run["method"], run["config"], run["seed"]))


def learned(method: str, numbers: dict) -> bool:
    """The bar of the fifth seal, for one run."""
    untrained = lambda task: max(value for name, value in numbers.items() if name.startswith(f"{task} untrained"))
    trained = lambda task: max(numbers[key] for key in (f"{task} student", f"{task} teacher") if key in numbers)
    try:
        bars = [
            trained("knn@20") > untrained("knn@20"),
            trained("linear") > untrained("linear"),
            trained("linear") > numbers["linear pixels"],
        ]
        if method in FINE_TUNED:
            bars.append(trained("finetune") > numbers["finetune scratch"])
        if method not in BESIDE_PIXELS:
            bars.append(trained("knn@20") > numbers["knn@20 pixels"])
    except (KeyError, ValueError):  # a number is missing: the seal stays open
        return False
    return all(bars)


def holds(method: str) -> list[bool]:
    """The six seals of a method, by the evidence."""
    tests = [record for record in read("tests.jsonl") if record["method"] == method]
    by_test = lambda seal: [r["passed"] for r in tests if r["seal"] == seal]
    plans = [plan["fits"] for plan in read("plans.jsonl") if plan["method"] == method]
    runs = [run for run in read("runs.jsonl") if run["method"] == method]
    seeds = {run["seed"] for run in runs if learned(method, run["results"])}
    passed = lambda outcomes: bool(outcomes) and all(outcomes)
    return [
        passed(by_test(1)), passed(by_test(2)), passed(by_test(3)),
        any(plans), len(seeds) >= SEEDS, passed(by_test(6)),
    ]  # fmt: skip


def table() -> str:
    """Methods by seals, in Markdown, aligned for a terminal too."""
    width = max(map(len, methods()))
    lines = [f"| {'method':{width}} | " + " | ".join(f"{i + 1} {seal}" for i, seal in enumerate(SEALS)) + " |"]
    lines.append(f"|{'-' * (width + 2)}|" + "|".join("-" * (len(seal) + 4) for seal in SEALS) + "|")
    for method in methods():
        cells = [f"{'yes' if held else 'open':{len(seal) + 2}}" for held, seal in zip(holds(method), SEALS)]
        lines.append(f"| {method:{width}} | " + " | ".join(cells) + " |")
    return "\n".join(lines)


def evidence() -> str:
    """The runs and plans behind seals four and five, in Markdown."""
    lines = ["| run | seed | data | steps | seconds | kNN k=20: pixels, untrained, trained | linear: the same | "
             "fine-tuned: scratch, trained |", "|---|---|---|---|---|---|---|---|"]  # fmt: skip
    percent = lambda values: ", ".join("-" if value is None else f"{100 * value:.1f}" for value in values)
    for run in read("runs.jsonl"):
        numbers = run["results"]
        best = lambda prefix, n=numbers: max((v for k, v in n.items() if k.startswith(prefix)), default=None)
        trained = lambda task, b=best: max(filter(None, (b(f"{task} student"), b(f"{task} teacher"))))
        three = lambda task, n=numbers, b=best, t=trained: percent(
            [n.get(f"{task} pixels"), b(f"{task} untrained"), t(task)]
        )
        tuned = percent([numbers.get("finetune scratch"), best("finetune student")])
        name = f"`{run['config']}`" + (f", behind block {run['feature_depth']}" if run.get("feature_depth") else "")
        lines.append(f"| {name} | {run['seed']} | {run['data']} | {run['steps']} | {run['seconds']} | "
                     f"{three('knn@20')} | {three('linear')} | {tuned if best('finetune') else ''} |")  # fmt: skip
    lines += ["", "| paper preset | pod | HBM a device, GiB | says the TPU compiler | images/s a chip, at most | by | "
              "chip-hours, at least | compiled in |", "|---|---|---|---|---|---|---|---|"]  # fmt: skip
    for plan in read("plans.jsonl"):
        used, usable = (plan["memory"][key] / 2**30 for key in ("total", "usable"))
        bound, cost = plan.get("bound"), plan.get("cost")
        most = f"{bound['images_per_second_per_chip']:,.0f} | {bound['by']}" if bound else " | "
        least = f"{cost['chip_hours']:,.0f}" if cost else ""
        lines.append(f"| `{plan['config']}` | {plan['topology']} | {used:.2f} of {usable:.2f} | "
                     f"{'fits' if plan['fits'] else 'does not fit'} | {most} | {least} | "
                     f"{plan['compile_seconds']:.0f} s{', quickly' if plan.get('quick') else ''} |")  # fmt: skip
    return "\n".join([*lines, "", published.table(read("plans.jsonl"))])


def refresh() -> str:
    """Writes table and evidence between the markers of the README, where there is one; returns the table."""
    if README.exists() and BEGIN in README.read_text():
        before, rest = README.read_text().split(BEGIN)
        after = rest.split(END)[1]
        README.write_text(f"{before}{BEGIN}\n{table()}\n\n{evidence()}\n{END}{after}")
    return table()
