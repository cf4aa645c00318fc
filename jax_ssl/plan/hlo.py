"""The text of a compiled program, read as far as a plan needs: computations, instructions, and how often each runs."""

import re
from math import prod
from typing import NamedTuple

COMPUTATION = re.compile(r"^(?:ENTRY )?%?([\w.\-]+) \(.*\{$")
CALLED = re.compile(r"(?:calls|to_apply|body|condition|true_computation|false_computation)=%?([\w.\-]+)")
BRANCHES = re.compile(r"branch_computations=\{([^}]*)\}")
LOOP = re.compile(r" while\(.*condition=%?([\w.\-]+), body=%?([\w.\-]+)")
TRIPS = re.compile(r'"known_trip_count":\{"n":"(\d+)"')
ARRAY = re.compile(r"\b(pred|[a-z]+(\d+)\w*)\[([\d,]*)\](\{[^}]*\})?")
INSTRUCTION = re.compile(r"^\s*(ROOT )?%?([\w.\-]+) = (.*)$")
NAME = re.compile(r"%([\w.\-]+)")


class Instruction(NamedTuple):
    """`%name = type kind(operands), attributes`."""

    name: str
    type: str
    kind: str
    operands: tuple[str, ...]
    line: str
    root: bool


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


def instruction(line: str) -> Instruction | None:
    """One line of a computation; None for a line that is no instruction."""
    match = INSTRUCTION.match(line)
    if match is None:
        return None
    rest = match[3]
    end = _closing(rest, 0) + 1 if rest.startswith("(") else rest.find(" ")
    start = rest.find("(", end)
    if end <= 0 or start < 0:
        return None
    inside = rest[start + 1 : _closing(rest, start)]
    kind, operands = rest[end:start].strip(), tuple(NAME.findall(inside))
    return Instruction(match[2], rest[:end], kind, operands, line, bool(match[1]))


def _closing(text: str, start: int) -> int:
    """The place of the bracket that closes the one at `start`."""
    depth = 0
    for place in range(start, len(text)):
        depth += (text[place] == "(") - (text[place] == ")")
        if depth == 0:
            return place
    return len(text)


def array_bytes(types: str, skip: str | None = None) -> int:
    """Bytes of all arrays in a type such as `(f32[8,128]{1,0:T(8,128)}, pred[4])`, without the padding of tiles.

    skip: leaves out arrays whose layout has this, such as `S(1)`, the memory space on the chip.
    """
    return sum(
        prod(int(side) for side in sides.split(",") if side) * (8 if name == "pred" else int(bits)) // 8
        for name, bits, sides, layout in ARRAY.findall(types)
        if skip is None or skip not in layout
    )


def executions(computations: dict[str, list[str]]) -> dict[str, int]:
    """How often each computation runs in one run of the last, which is the entry."""
    times = dict.fromkeys(computations, 0)
    times[list(computations)[-1]] = 1
    for caller in reversed(computations):
        for line in computations[caller]:
            loop = LOOP.search(line)
            for name in called(line):
                inside = loop is not None and name == loop[2]
                times[name] += times[caller] * (trips(line, computations[loop[1]]) if inside else 1)
    return times


def called(line: str) -> list[str]:
    """The computations that an instruction hands over to."""
    names = CALLED.findall(line)
    return names + [name.strip().lstrip("%") for found in BRANCHES.findall(line) for name in found.split(",")]


def trips(line: str, condition: list[str]) -> int:
    """How often a loop runs: what the compiler noted, or the bound of its `i < bound`; 1 where only the data knows."""
    noted = TRIPS.search(line)
    if noted:
        return int(noted[1])
    bounds = {int(number) for text in condition for number in re.findall(r"= s32\[\]\S* constant\((\d+)\)", text)}
    counts_up = any("direction=LT" in text for text in condition)
    return bounds.pop() if counts_up and len(bounds) == 1 else 1
