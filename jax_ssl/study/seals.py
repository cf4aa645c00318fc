"""The table of which method has which seal, made from recorded evidence only.

Evidence is in jax_ssl/study/evidence/, one JSON object per line:
    tests.jsonl  outcomes of tests marked `seal`, written by `pytest --record-seals`
    plans.jsonl  compilations for a described pod, `python -m jax_ssl seals --record=PLAN.json`
    runs.jsonl   trained and measured runs, `python -m jax_ssl seals --record=RUN_FOLDER`
A seal without a record is open; so is one whose newest record failed. The evidence is installed with the package, and
can only be written in a checkout. Incomplete records are refused when they are recorded, and ignored when they are
read.
"""

import datetime
import json
from pathlib import Path

from jax_ssl import paths
from jax_ssl.errors import UserError
from jax_ssl.plan import published

SEALS = ("runs", "faithful", "any mesh", "fits its pod", "learns", "shows itself")
FOLDER = Path(__file__).with_name("evidence")
CHECKOUT = Path(__file__).parents[2]
EVIDENCE = CHECKOUT / "docs" / "evidence.md"
BEGIN, END = "<!-- seals: begin -->", "<!-- seals: end -->"
# Methods whose frozen features are known to be weak: they are fine-tuned as well.
FINE_TUNED = ("mae", "simmim", "beit", "dvae", "context_encoder")
# These may be fine-tuned instead, if their linear probe does not beat raw pixels: they have seen grey images alone.
FINE_TUNED_OR_LINEAR = ("colorization",)
# These train on a puzzle, and have to solve it better than chance and than its cheap baselines.
PRETEXT = ("rotnet", "jigsaw", "colorization", "context_encoder", "cpc")
# Raw pixels are measured on kNN beside all methods; these methods need not beat them.
BESIDE_PIXELS = (*FINE_TUNED, "ijepa", *PRETEXT)
SEEDS = 2
# Numbers and keys without which a run or a plan is refused.
NEEDED_OF_A_RUN = tuple(f"{task} {who}" for task in ("knn@20", "linear") for who in ("pixels", "untrained", "trained"))
NEEDED_OF_A_PLAN = ("method", "config", "topology", "memory", "fits", "compile_seconds", "batch_size")


def methods() -> list[str]:
    """The names of all methods: those of the files in jax_ssl/methods."""
    return sorted(path.stem for path in (Path(__file__).parents[1] / "methods").glob("*.py") if path.stem != "__init__")


def read(name: str) -> list[dict]:
    """The records of a file of evidence, [] if there is no file. Raises UserError for a line that is not JSON."""
    return read_lines(FOLDER / name, "restore it from git")


def read_lines(path, remedy: str) -> list[dict]:
    """The objects of a file with one per line, [] if there is no file. Raises UserError, with the remedy."""
    records = []
    for number, line in enumerate(path.read_text().splitlines() if path.exists() else (), 1):
        try:
            records.append(dict(json.loads(line)))
        except (ValueError, TypeError):
            raise UserError(f"Line {number} of {path} is no JSON object: {remedy}.") from None
    return records


def write(name: str, records: list[dict]) -> None:
    FOLDER.mkdir(exist_ok=True)
    (FOLDER / name).write_text("".join(json.dumps(record, sort_keys=True) + "\n" for record in records))


def today() -> str:
    return datetime.date.today().isoformat()


def merge(name: str, new: list[dict], key) -> None:
    """Adds records to a file of evidence, sorted by key; they replace records with the same key."""
    records = {key(record): record for record in [*read(name), *new]}
    write(name, [records[k] for k in sorted(records)])


def record(path: str, name: str = "") -> None:
    """Records a run's folder or a plan's JSON file as evidence; name: the --config of the run.

    Raises UserError if it can't be recorded or is incomplete.
    """
    if not (CHECKOUT / "setup.py").is_file():
        raise UserError(
            "seals --record writes into a checkout, and this is an installed package: clone the repository, install it "
            "with `pip install -e .`, and record there."
        )
    place = paths.resolve(path)
    if place.suffix == ".json" and place.is_file():
        try:
            plans = json.loads(place.read_text())
        except ValueError:
            raise UserError(f"{path} is no JSON: give what `python -m jax_ssl plan --out` wrote.") from None
        record_plans(plans, path)
    elif (place / "config.json").exists():
        record_run(place, name)
    else:
        raise UserError(f"{path} is neither a run's folder nor a JSON file that `plan --out` wrote.")


def record_plans(plans, path: str) -> None:
    """Records plans, one for each (config, topology). path: their file, for messages. Raises UserError."""
    plans = plans if isinstance(plans, list) else [plans]
    for plan in plans:
        missing = [key for key in NEEDED_OF_A_PLAN if key not in plan] if isinstance(plan, dict) else ["method"]
        if missing:
            raise UserError(f"{path} holds no plan, for it has no {missing[0]}: give what `plan --config --out` wrote.")
        check_method(plan["method"], path)
    keep = [{"date": today()} | plan for plan in plans]
    merge("plans.jsonl", keep, key=lambda plan: (plan["method"], plan["config"], plan["topology"]))


def record_run(folder, name: str) -> None:
    """Records the newest number of each kind of a run, its steps and seconds. Raises UserError if one is missing."""
    command = f"run `python -m jax_ssl evaluate --run={folder}` first"
    try:
        settings = json.loads((folder / "config.json").read_text())
    except ValueError:
        raise UserError(f"{folder}/config.json is no JSON: restore it from the command that started the run.") from None
    results = read_lines(folder / "results.jsonl", "remove that line")
    results = [result for result in results if result["task"] != "layers"]  # a number for each depth
    if not results:
        raise UserError(f"{folder} has no results: {command}.")
    numbers, puzzle = {named(result): result["value"] for result in results}, puzzle_of(results)
    missing = [need for need in NEEDED_OF_A_RUN if best(numbers, *need.split(" ")) is None]
    if settings["method"]["name"] in PRETEXT and "student" not in puzzle_numbers(numbers, puzzle):
        missing.append("its own puzzle (--task=pretext)")
    if missing:
        raise UserError(f"{folder} can't be evidence without {missing[0]}: {command}, with all of its weights.")
    steps = read_lines(folder / "metrics.jsonl", "remove that line")
    seconds = settings["log_every"] * sum(line.get("step_seconds", 0) for line in steps)
    new = dict(
        method=settings["method"]["name"], config=name or folder.name, seed=settings["seed"], date=today(),
        hardware=results[-1]["protocol"].get("hardware", ""), seconds=round(seconds), steps=results[-1]["step"],
        data=results[-1]["data"], batch_size=settings["batch_size"], results=numbers,
        feature_depth=max(result["protocol"].get("feature_depth", 0) for result in results), puzzle=puzzle,
    )  # fmt: skip
    check_method(new["method"], folder)
    merge("runs.jsonl", [new], key=lambda run: (run["method"], run["config"], run["seed"]))


def named(result: dict) -> str:
    """The name of a number of results.jsonl in a record: its task, and its weights with what is special about them."""
    protocol, task = result["protocol"], result["task"]
    more = task == "pretext" or result["metric"] != "top1"
    task += f" {result['metric']}" * more + f"@{result['k']}" * bool(result["k"])
    whole = protocol.get("input") if "whole" in protocol.get("input", "") else None
    return ", ".join(filter(None, [f"{task} {result['weights']}", protocol.get("batch_statistics"), whole]))


def puzzle_of(results: list[dict]) -> dict | None:
    """The number that decides a pretext method's puzzle, {"metric", "better"}; None without one."""
    deciding = [result for result in results if result["protocol"].get("decides")]
    return {"metric": deciding[-1]["metric"], "better": deciding[-1]["protocol"]["better"]} if deciding else None


def check_method(name: str, path) -> None:
    """Raises UserError for a method of the user's own, as seals are only for the methods of this library."""
    if name not in methods():
        raise UserError(f"{path} is of the method {name}: seals are for those in jax_ssl/methods.")


def whole_plans() -> list[dict]:
    """The recorded plans with all keys in NEEDED_OF_A_PLAN."""
    return [plan for plan in read("plans.jsonl") if not set(NEEDED_OF_A_PLAN) - set(plan)]


def best(numbers: dict, task: str, who: str) -> float | None:
    """The highest number of a task, None if there is none.

    who: "pixels", "scratch", "untrained" (with either batch statistics) or "trained" (student or teacher).
    """
    starts = [f"{task} {name}" for name in (("student", "teacher") if who == "trained" else (who,))]
    found = [value for name, value in numbers.items() if name.startswith(tuple(starts))]
    return max((value for value in found if value is not None), default=None)


def has_learned(method: str, numbers: dict, puzzle: dict | None = None) -> bool:
    """Whether one run meets the conditions of the fifth seal, "learns"; False if a number is missing.

    puzzle: which of a pretext method's own numbers decides, {"metric", "better"}.
    """

    def beats(task: str, below: str) -> bool:
        pair = best(numbers, task, "trained"), best(numbers, task, below)
        return None not in pair and pair[0] > pair[1]

    bars = [("knn@20", "untrained"), ("linear", "untrained"), ("linear", "pixels")]
    bars += [("finetune", "scratch")] if method in FINE_TUNED else []
    bars += [("knn@20", "pixels")] if method not in BESIDE_PIXELS else []
    if method in FINE_TUNED_OR_LINEAR and beats("finetune", "scratch"):
        bars.remove(("linear", "pixels"))
    return all(beats(*bar) for bar in bars) and (method not in PRETEXT or solved(numbers, puzzle))


def puzzle_numbers(numbers: dict, puzzle: dict | None) -> dict:
    """{who: number} of the metric that decides a puzzle, of a record's numbers; {} without a puzzle."""
    if puzzle is None:
        return {}
    start = f"pretext {puzzle['metric']} "
    return {name.removeprefix(start): value for name, value in numbers.items() if name.startswith(start)}


def solved(numbers: dict, puzzle: dict | None) -> bool:
    """Whether a trained network beats chance, the untrained one and every baseline at its puzzle, one at least."""
    found = puzzle_numbers(numbers, puzzle)
    trained, others = found.pop("student", None), found
    if trained is None or not set(others) - {"chance", "untrained"}:
        return False
    return all(trained > other if puzzle["better"] == "higher" else trained < other for other in others.values())


def seals_of(method: str) -> list[bool]:
    """Whether a method has each of the six SEALS, by the evidence."""
    tests = [record for record in read("tests.jsonl") if record["method"] == method]
    by_test = lambda seal: [r["passed"] for r in tests if r["seal"] == seal]
    fits = [plan["fits"] for plan in whole_plans() if plan["method"] == method]
    runs = [run for run in read("runs.jsonl") if run["method"] == method]
    seeds = {run["seed"] for run in runs if has_learned(method, run["results"], run.get("puzzle"))}
    passed = lambda outcomes: bool(outcomes) and all(outcomes)
    return [
        passed(by_test(1)), passed(by_test(2)), passed(by_test(3)),
        any(fits), len(seeds) >= SEEDS, passed(by_test(6)),
    ]  # fmt: skip


def table() -> str:
    """A Markdown table of methods by seals, with aligned columns."""
    width = max(map(len, methods()))
    lines = [f"| {'method':{width}} | " + " | ".join(f"{i + 1} {seal}" for i, seal in enumerate(SEALS)) + " |"]
    lines.append(f"|{'-' * (width + 2)}|" + "|".join("-" * (len(seal) + 4) for seal in SEALS) + "|")
    for method in methods():
        cells = [f"{'yes' if has_it else 'open':{len(seal) + 2}}" for has_it, seal in zip(seals_of(method), SEALS)]
        lines.append(f"| {method:{width}} | " + " | ".join(cells) + " |")
    return "\n".join(lines)


def evidence() -> str:
    """Markdown tables of the runs and plans that seals four and five are based on."""
    lines = ["## Runs", ""]
    lines += ["| run | seed | data | steps | seconds | kNN k=20: pixels, untrained, trained | linear: the same | "
              "fine-tuned: scratch, trained | own puzzle: best baseline, trained |",
              "|---|---|---|---|---|---|---|---|---|"]  # fmt: skip
    percent = lambda values: ", ".join("-" if value is None else f"{100 * value:.1f}" for value in values)
    for run in read("runs.jsonl"):
        three = lambda task, numbers=run["results"]: percent(
            [best(numbers, task, who) for who in ("pixels", "untrained", "trained")]
        )
        tuned = [best(run["results"], "finetune", who) for who in ("scratch", "trained")]
        name = f"`{run['config']}`" + (f", behind block {run['feature_depth']}" if run.get("feature_depth") else "")
        lines.append(f"| {name} | {run['seed']} | {run['data']} | {run['steps']} | {run['seconds']} | "
                     f"{three('knn@20')} | {three('linear')} | {percent(tuned) if any(tuned) else ''} | "
                     f"{told_puzzle(run)} |")  # fmt: skip
    lines += ["", "## Plans", ""]
    lines += ["| paper preset | pod | HBM a device, GiB | says the TPU compiler | images/s a chip, at most | by | "
              "chip-hours, at least | compiled in |", "|---|---|---|---|---|---|---|---|"]  # fmt: skip
    for plan in whole_plans():
        gibibytes = lambda count: "?" if count is None else f"{count / 2**30:.2f}"  # a refusal may give no figure
        used, usable = (gibibytes(plan["memory"][key]) for key in ("total", "usable"))
        bound, cost = plan.get("bound"), plan.get("cost")
        most = f"{bound['images_per_second_per_chip']:,.0f} | {bound['by']}" if bound else " | "
        least = f"{cost['chip_hours']:,.0f}" if cost else ""
        lines.append(f"| `{plan['config']}` | {plan['topology']} | {used} of {usable} | "
                     f"{'fits' if plan['fits'] else 'does not fit'} | {most} | {least} | "
                     f"{plan['compile_seconds']:.0f} s{', quickly' if plan.get('quick') else ''} |")  # fmt: skip
    return "\n".join([*lines, "", "## Published runs", "", published.table(whole_plans())])


def told_puzzle(run: dict) -> str:
    """A run's own puzzle in a cell: the metric, the best of what it has to beat and whose that is, and its own."""
    puzzle = run.get("puzzle")
    found = puzzle_numbers(run["results"], puzzle)
    if len(found) < 2 or "student" not in found:
        return ""
    trained, pick = found.pop("student"), max if puzzle["better"] == "higher" else min
    who = pick(found, key=found.get)
    return f"{puzzle['metric']} {found[who]:.3f} ({who}), {trained:.3f}"


def refresh(say=print) -> str:
    """Writes table and evidence between the markers of docs/evidence.md, if they have changed; returns the table."""
    before = EVIDENCE.read_text() if EVIDENCE.exists() else ""
    if BEGIN in before:
        start, rest = before.split(BEGIN)
        after = f"{start}{BEGIN}\n## Seals\n\n{table()}\n\n{evidence()}\n{END}{rest.split(END)[1]}"
        try:
            if after != before:
                EVIDENCE.write_text(after)
        except OSError as error:
            say(f"{EVIDENCE} can't be written ({error.strerror}), and stays as it is.")
    return table()
