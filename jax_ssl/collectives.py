"""Which collectives a compiled program runs, read from its text: kind, how often a step, and how many bytes."""

import re
from math import prod

KINDS = "all-gather|all-reduce|reduce-scatter|all-to-all|ragged-all-to-all|collective-permute|collective-broadcast"
# An asynchronous pair counts at its end, whose result is the collective's; a `-start` also carries its operands.
COLLECTIVE = re.compile(rf" = (.*?) ({KINDS})(?:-done)?\(")
COMPUTATION = re.compile(r"^(?:ENTRY )?%?([\w.\-]+) \(.*\{$")
CALLED = re.compile(r"(?:calls|to_apply|body|condition|true_computation|false_computation)=%?([\w.\-]+)")
BRANCHES = re.compile(r"branch_computations=\{([^}]*)\}")
LOOP = re.compile(r" while\(.*condition=%?([\w.\-]+), body=%?([\w.\-]+)")
TRIPS = re.compile(r'"known_trip_count":\{"n":"(\d+)"')
CHANNEL = re.compile(r"channel_id=(\d+)")
ARRAY = re.compile(r"\b(pred|[a-z]+(\d+)\w*)\[([\d,]*)\]")


def census(text: str) -> dict[str, dict[str, int]]:
    """{kind: {"count", "bytes"}} of one step on one device; bytes are those of the results.

    A collective in a loop counts as often as the loop runs. text: `compiled.as_text()`, from any compiler of XLA's.
    """
    found, seen = {}, set()
    computations = split(text)
    times = executions(computations)
    for name, lines in computations.items():
        for line in lines:
            match = COLLECTIVE.search(line)
            if match is None or not times[name]:
                continue
            channel = CHANNEL.search(line)
            # The TPU compiler spreads one asynchronous collective over several fusions, with one channel.
            if channel and (match[2], channel[1]) in seen:
                continue
            seen.add((match[2], channel[1]) if channel else None)
            entry = found.setdefault(match[2], {"count": 0, "bytes": 0})
            entry["count"] += times[name]
            entry["bytes"] += times[name] * array_bytes(match[1])
    return dict(sorted(found.items()))


def array_bytes(types: str) -> int:
    """Bytes of all arrays in a type such as `(f32[8,128]{1,0:T(8,128)}, pred[4])`, without the padding of tiles."""
    return sum(
        prod(int(side) for side in sides.split(",") if side) * (8 if name == "pred" else int(bits)) // 8
        for name, bits, sides in ARRAY.findall(types)
    )


def split(text: str) -> dict[str, list[str]]:
    """{computation: its lines}, in the order of the text: callees before their callers, the entry last."""
    computations, lines = {}, []
    for line in text.splitlines():
        header = COMPUTATION.match(line)
        if header:
            lines = computations.setdefault(header[1], [])
        elif line != "}":
            lines.append(line)
    return computations


def executions(computations: dict[str, list[str]]) -> dict[str, int]:
    """How often each computation runs in one run of the last, which is the entry."""
    times = dict.fromkeys(computations, 0)
    times[list(computations)[-1]] = 1
    for caller in reversed(computations):
        for line in computations[caller]:
            loop = LOOP.search(line)
            called = CALLED.findall(line)
            called += [name.strip().lstrip("%") for found in BRANCHES.findall(line) for name in found.split(",")]
            for name in called:
                inside = loop is not None and name == loop[2]
                times[name] += times[caller] * (trips(line, computations[loop[1]]) if inside else 1)
    return times


def trips(line: str, condition: list[str]) -> int:
    """How often a loop runs: what the compiler noted, or the bound of its `i < bound`; 1 where only the data knows."""
    noted = TRIPS.search(line)
    if noted:
        return int(noted[1])
    bounds = {int(number) for text in condition for number in re.findall(r"= s32\[\]\S* constant\((\d+)\)", text)}
    counts_up = any("direction=LT" in text for text in condition)
    return bounds.pop() if counts_up and len(bounds) == 1 else 1
