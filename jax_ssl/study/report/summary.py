"""What a run came to, in sentences: its result beside its baselines, and its health."""

import math
import re
from typing import NamedTuple

from jax_ssl.evaluate import offline
from jax_ssl.study.report.facts import Facts

PER_CENT = ("top1", "accuracy")  # metrics that are fractions of images, shown in per cent
SLOW_DATA = 0.2  # share of the time of steps spent waiting for images, from which it is worth a remedy
LOW_GOODPUT = 0.5  # share of all time; short runs compile and measure for most of theirs
LONG = 600  # seconds from which goodput is judged
TASKS = {"knn": "kNN", "linear": "linear probe", "pretext": "own puzzle", "finetune": "fine-tuning", "layers": "layers",
         "emergence": "objects"}  # fmt: skip
NETWORKS = {"pixels": "raw pixels", "untrained": "untrained network", "scratch": "from scratch"}
CHOSEN = ("learning_rate", "held_out_top1", "train_top1")  # of a protocol: what a measurement chose or found by itself


class Row(NamedTuple):
    """A network with one number, a fraction."""

    label: str
    value: float
    record: dict


class Health(NamedTuple):
    """state: good, look or bad. A sentence for the reader."""

    state: str
    name: str
    sentence: str


def network_name(record: dict) -> str:
    """`untrained network, statistics adapted`: the network of a record, with what its protocol says of it."""
    own, protocol = record.get("weights", ""), protocol_of(record)
    more = [protocol[key] for key in ("batch_statistics",) if own == "untrained" and key in protocol]
    if own == "untrained" and "colour" in str(protocol.get("input")):
        more.append(protocol["input"])
    return ", ".join(map(str, [own, *more] if more else [NETWORKS.get(own, own)]))


def task_name(record: dict) -> str:
    """`kNN, k = 20`: what was measured."""
    name = TASKS.get(record.get("task"), record.get("task", ""))
    metric = "" if record.get("metric") in ("top1", None) else f", {str(record['metric']).replace('_', ' ')}"
    return f"{name}{metric}" + (f", k = {record['k']}" if record.get("k") else "")


def protocol_of(record: dict) -> dict:
    found = record.get("protocol")
    return found if isinstance(found, dict) else {"protocol": found} if found else {}


def comparable(record: dict) -> dict:
    """The protocol of a record without what the measurement chose or found by itself."""
    found = {key: value for key, value in protocol_of(record).items() if key not in CHOSEN}
    if isinstance(found.get("grid"), dict):  # what was tried, with the accuracy of each
        found["grid"] = sorted(found["grid"])
    return found


def newest(results: list[dict]) -> list[dict]:
    """Of records that differ in nothing but what a measurement chose by itself and the step, the last, in order."""
    found = {}
    for record in results:
        protocol = comparable(record)
        own = {key: value for key, value in record.items() if key not in ("value", "step", "protocol")}
        key = repr((sorted(own.items(), key=str), sorted(protocol.items(), key=str)))
        found.pop(key, None)
        found[key] = record
    return list(found.values())


def rows(results: list[dict], task: str) -> list[Row]:
    """The networks with their accuracy at a task, baselines first; kNN at `offline.shown_k`."""
    own = [r for r in newest(results) if r.get("task") == task and r.get("value") is not None
           and (r.get("metric") in PER_CENT)]  # fmt: skip
    k = offline.shown_k(r["k"] for r in own if r.get("k"))
    order = ["chance", "pixels", "untrained", "scratch", "student", "teacher"]
    own = {network_name(r): r for r in own if r.get("k") in (None, k)}  # the last of each
    place = lambda r: order.index(r["weights"]) if r["weights"] in order else 1.5
    return [Row(label, float(r["value"]), r) for label, r in sorted(own.items(), key=lambda item: place(item[1]))]


class Gain(NamedTuple):
    """Accuracies in per cent. before: the best untrained network on the same input, pixels: None if not measured."""

    before: float | None
    after: float
    pixels: float | None
    network: str
    tested: int | None  # images


def gain(found: list[Row]) -> Gain | None:
    """The Gain of a task's rows; None without a trained network."""
    trained = [row for row in found if row.record["weights"] in ("student", "teacher")]
    if not trained:
        return None
    best = max(trained, key=lambda row: row.value)
    colour = lambda row: "colour" in str(protocol_of(row.record).get("input"))
    value = lambda name: max(
        (100 * r.value for r in found if r.record["weights"] == name and not colour(r)), default=None
    )
    tested = protocol_of(best.record).get("test_images")
    return Gain(value("untrained"), 100 * best.value, value("pixels"), best.record["weights"], tested)


def standard_error(found: Gain) -> float:
    """Of an accuracy, in points; 0 where the number of test images is not known."""
    share = found.after / 100
    return 100 * math.sqrt(max(share * (1 - share), 0) / found.tested) if found.tested else 0.0


def sentence(name: str, found: Gain) -> str:
    """`kNN rises from 28.6 to 44.0 %; raw pixels reach 37.8 %.` A change below one standard error is none."""
    if found.before is None:
        told = f"{name} is at {found.after:.1f} %"
    else:
        change = found.after - found.before
        small = abs(change) < max(standard_error(found), 0.05)
        verb = "hardly changes, from" if small else "rises from" if change > 0 else "falls from"
        told = f"{name} {verb} {found.before:.1f} to {found.after:.1f} %"
    return told + (f"; raw pixels reach {found.pixels:.1f} %." if found.pixels is not None else ".")


def headline(facts: Facts) -> str:
    """One sentence: what the run came to."""
    for task, name in (("knn", "kNN"), ("linear", "The linear probe")):
        found = gain(rows(facts.results, task))
        if found:
            return sentence(name, found)
    probed, losses = facts.series("knn"), facts.series("loss")
    if probed:
        first = f" from {100 * probed[0][1]:.1f}" if len(probed) > 1 else ""
        return f"kNN goes{first} to {100 * probed[-1][1]:.1f} % while it trains; baselines are not measured yet."
    if len(losses) > 1:
        return f"{direction('The loss', losses)}. Nothing else is measured."
    return "Nothing is measured yet."


def direction(name: str, points: list[tuple[float, float]]) -> str:
    """`loss falls from 5.55 to 4.20 in 59 steps`: the message of a curve."""
    first, last = points[0][1], points[-1][1]
    same = math.isclose(first, last, rel_tol=0.005, abs_tol=1e-12)
    verb = "stays near" if same else "falls from" if last < first else "rises from"
    numbers = f"{last:.4g}" if same else f"{first:.4g} to {last:.4g}"
    return f"{name} {verb} {numbers} between step {points[0][0]:,} and step {points[-1][0]:,}"


def remarks(facts: Facts) -> list[str]:
    """What a careful reader asks of the first sentence: the other measure, how sure it is, what it does not reach."""
    found = []
    knn, linear = gain(rows(facts.results, "knn")), gain(rows(facts.results, "linear"))
    if knn and linear:
        found.append(sentence("The linear probe", linear))
    first = knn or linear
    if first and first.before is not None:
        found.append("The first number is the untrained network's best: only what comes on top was learned.")
    if first and first.tested:
        error = standard_error(first)
        found.append(f"With {first.tested:,} test images, one standard error is {error:.1f} points.")
    below = [name for name, own in (("kNN", knn), ("the linear probe", linear))
             if own and own.pixels is not None and own.after < own.pixels]  # fmt: skip
    if below:
        found.append(f"On {' and '.join(below)}, these features stay below raw pixels.")
    return found


def health(facts: Facts) -> list[Health]:
    """Each question on the run's health with its answer; what the folder does not say is left out."""
    checks = collapse, skipped, length, side_work, goodput, data_wait
    return [found for check in checks if (found := check(facts)) is not None]


def collapse(facts: Facts) -> Health | None:
    warnings = [line for line in facts.log if "looks collapsed at step" in line]
    if warnings:
        return Health("bad", "Collapse", " ".join(warnings))
    if not facts.metrics:
        return None
    names = {"feature_std": "spread of the features", "rankme": "RankMe"}
    last = [f"{text} {facts.series(name)[-1][1]:.3g}" for name, text in names.items() if facts.series(name)]
    numbers = f"; at the end: {', '.join(last)}" if last else ""
    return Health("good", "Collapse", f"no sign of it in {len(facts.metrics):,} checks{numbers}")


def skipped(facts: Facts) -> Health | None:
    points = facts.series("skipped")
    if not points:
        return None
    bad = [step for step, value in points if value]
    if bad:
        return Health("look", "Skipped steps", f"{len(bad)} of {len(points)} logged steps were in a row of steps whose "
                      f"loss or gradient was not finite, first at step {bad[0]:,}")  # fmt: skip
    return Health("good", "Skipped steps", f"none at the {len(points):,} logged steps: loss and gradient were finite")


def length(facts: Facts) -> Health | None:
    planned = re.search(r"(?:are|of) ([\d,]+)(?: steps|,)", facts.introduction.get("length", ""))
    if planned is None:
        return None
    total = int(planned[1].replace(",", ""))
    if facts.step < total:
        return Health("look", "Length", f"at step {facts.step:,} of {total:,}: the run is not finished")
    return Health("good", "Length", f"finished, all {total:,} steps")


def side_work(facts: Facts) -> Health | None:
    failed = [line for line in facts.log if "failed, and training goes on" in line or "but not measured:" in line]
    return Health("look", "Measuring and drawing", " ".join(failed)) if failed else None


def goodput(facts: Facts) -> Health | None:
    total = sum(facts.account.values())
    if not total:
        return None
    share, lost = facts.account.get("step", 0) / total, facts.account.get("repeated", 0) + facts.account.get("down", 0)
    restarts = f"; restarts cost {clock(lost)}" if lost >= 1 else ""
    state = "look" if share < LOW_GOODPUT and total > LONG else "good"
    return Health(state, "Goodput", f"{100 * share:.0f} % of {clock(total)} were steps{restarts}")


def data_wait(facts: Facts) -> Health | None:
    points = facts.series("data_wait_share")
    if not points:
        return None
    share = sum(value for _, value in points) / len(points)
    told = f"the devices waited for images for {100 * share:.0f} % of the time"
    if share > SLOW_DATA:
        return Health("look", "Data wait", f"{told}: try data.augment=hybrid or device, or more data.workers")
    return Health("good", "Data wait", told)


def clock(seconds: float) -> str:
    """`1:02:03` hours, or `2 min 5 s`."""
    minutes, rest = divmod(round(seconds), 60)
    if minutes >= 60:
        return f"{minutes // 60}:{minutes % 60:02d}:{rest:02d} h"
    return f"{minutes} min {rest} s" if minutes else f"{rest} s"
