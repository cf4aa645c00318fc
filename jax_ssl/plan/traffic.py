"""Bytes that one step moves between a device and its memory, loops multiplied out, from the compiled program's text.

XLA's own count has a loop's body once. Here each instruction reads its operands and writes its result, as often as its
computation runs. Of a slice only what is taken counts, of an update in place only what changes, and an operand that is
given several times counts once. What lies on the chip (memory space 1) costs nothing, and neither does a buffer that is
only set aside. So it is the least that the compiled program can move, tiles' padding left out.
"""

from collections.abc import Iterable, Iterator
from typing import NamedTuple

from jax_ssl.plan.hlo import Instruction, array_bytes, called, executions, instruction, split

ON_CHIP = "S(1)"
FREE = {"parameter", "constant", "tuple", "get-tuple-element", "bitcast", "after-all", "partition-id", "replica-id",
        "while", "conditional", "call", "opt-barrier", "domain", "iota", "custom-call-start"}  # fmt: skip
SET_ASIDE = 'custom_call_target="AllocateBuffer"'  # the stack of a scan before its first layer: nothing is written
TAKES = {"dynamic-slice", "slice", "gather"}  # read no more of their first operand than they give


class Moved(NamedTuple):
    """What one kind of instruction moves in a step."""

    name: str
    kind: str
    bytes: float  # all its runs together
    times: int
    source: str  # the operation of the program that it came from, as JAX names it


def total(moves: Iterable[Moved]) -> float:
    """Bytes a step on one device, of the instructions of its program."""
    return sum(moved.bytes for moved in moves)


def heaviest(moves: Iterable[Moved], count: int = 10) -> list[dict]:
    """The operations of the program that move most: {"source", "bytes", "times"}, all their instructions together."""
    found = {}
    for moved in moves:
        entry = found.setdefault(moved.source or moved.kind, {"bytes": 0.0, "times": 0})
        entry["bytes"] += moved.bytes
        entry["times"] += moved.times
    ordered = sorted(found.items(), key=lambda item: -item[1]["bytes"])
    return [{"source": source} | entry for source, entry in ordered[:count]]


def instructions(text: str) -> Iterator[Moved]:
    """Each instruction that moves anything, with all its runs. text: `compiled.as_text()`."""
    lines = split(text)
    parsed = {name: [i for i in map(instruction, body) if i] for name, body in lines.items()}
    times, fused = executions(lines), _fused(parsed)
    for name, body in parsed.items():
        if name in fused or not times[name]:
            continue
        types = {i.name: i.type for i in body}
        for i in body:
            if i.kind in FREE or i.kind.endswith("-done"):
                continue
            size = _moved(i, types, parsed)
            if size:
                yield Moved(i.name, i.kind, size * times[name], times[name], _source(i.line))


def _fused(parsed) -> set[str]:
    """Computations that are the inside of one instruction: of a fusion, a reduction, an asynchronous operation."""
    inside = set()
    for body in parsed.values():
        for i in body:
            if i.kind not in ("while", "conditional", "call"):
                inside.update(called(i.line))
    return inside


def _moved(i: Instruction, types: dict[str, str], parsed) -> float:
    """Bytes of one run of an instruction."""
    if SET_ASIDE in i.line:
        return 0
    if i.kind in ("copy-start", "slice-start", "dynamic-slice-start"):  # (result, operand, context) or the reverse
        return 2 * min(array_bytes(part) for part in _parts(i.type)[:2]) * (1 - 0.5 * (ON_CHIP in i.type))
    if i.kind == "dynamic-update-slice":
        return 2 * array_bytes(types.get(i.operands[1], ""), ON_CHIP)
    if i.kind in TAKES:
        return 2 * array_bytes(i.type, ON_CHIP)
    inner = parsed.get(called(i.line)[0]) if i.kind == "fusion" and called(i.line) else None
    if inner is None:
        read = sum(array_bytes(types.get(name, ""), ON_CHIP) for name in set(i.operands))
        return read + array_bytes(i.type, ON_CHIP)
    read = sum(
        min(array_bytes(types.get(name, ""), ON_CHIP), _touched(inner, place, parsed))
        for place, name in enumerate(i.operands)
    )
    return read + _written(i, inner)


def _parts(types: str) -> list[str]:
    """The members of a tuple's type, which here are plain arrays."""
    inside, parts, depth = types.strip()[1:-1], [""], 0
    for letter in inside:
        depth += (letter in "([{") - (letter in ")]}")
        if letter == "," and depth == 0:
            parts.append("")
        else:
            parts[-1] += letter
    return parts


def _touched(body: list[Instruction], place: int, parsed) -> float:
    """Most bytes that a fusion reads of its operand at `place`."""
    mark = f"parameter({place})"
    names = {i.name for i in body if i.kind == "parameter" and mark in i.line}
    size = 0.0
    for i in body:  # in the order of the text, callees of a name come after it
        if not names.intersection(i.operands):
            continue
        if i.kind == "bitcast":
            names.add(i.name)
        elif i.kind in TAKES and i.operands[0] in names:
            size += array_bytes(i.type)
        elif i.kind == "dynamic-update-slice" and i.operands[0] in names and i.operands[1] not in names:
            continue  # written in place
        elif i.kind == "fusion" and called(i.line) and called(i.line)[0] in parsed:
            inner = parsed[called(i.line)[0]]
            size += sum(_touched(inner, n, parsed) for n, name in enumerate(i.operands) if name in names)
        else:
            return float("inf")
    return size


def _written(i: Instruction, body: list[Instruction]) -> float:
    """Bytes that a fusion writes: its results, or what changes of an array that it updates in place."""
    by_name = {inner.name: inner for inner in body}
    root = next((inner for inner in body if inner.root), None)
    if root is None:
        return array_bytes(i.type, ON_CHIP)
    several = root.kind == "tuple"
    results = [by_name.get(name) for name in root.operands] if several else [root]
    types = _parts(i.type) if several else [i.type]
    return sum(_changed(result, kind, by_name) for result, kind in zip(results, types))


def _changed(result: Instruction | None, kind: str, by_name: dict[str, Instruction]) -> float:
    """Bytes that are written of one result of a fusion, whose type outside it is `kind`."""
    while result is not None and result.kind == "bitcast":
        result = by_name.get(result.operands[0])
    if result is not None and result.kind == "dynamic-update-slice" and result.operands[1] in by_name:
        return array_bytes(by_name[result.operands[1]].type) * (ON_CHIP not in kind)
    return array_bytes(kind, ON_CHIP)


def _source(line: str) -> str:
    start = line.find('op_name="')
    return line[start + 9 : line.find('"', start + 9)] if start >= 0 else ""
