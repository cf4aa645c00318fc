"""Which collectives a compiled program runs, read from its text: kind, axis of the mesh, how often, how many bytes."""

import re

import numpy as np

from jax_ssl.plan.hlo import array_bytes, executions, split

KINDS = "all-gather|all-reduce|reduce-scatter|all-to-all|ragged-all-to-all|collective-permute|collective-broadcast"
# An asynchronous pair counts at its end, whose result is the collective's; a `-start` also carries its operands.
COLLECTIVE = re.compile(rf" = (.*?) ({KINDS})(?:-done)?\(")
STARTED = re.compile(rf"%?([\w.\-]+) = .* (?:{KINDS})-start\(")
DONE = re.compile(rf" (?:{KINDS})-done\(%?([\w.\-]+)")
CHANNEL = re.compile(r"channel_id=(\d+)")
LISTED = re.compile(r"(?:replica_groups|source_target_pairs)=\{\{([\d,]*)\}")
# Between slices the compiler has hosts exchange what each device holds: `recv` has a device's share.
BETWEEN = re.compile(r" = \((\S+), .* recv\(.*_xla_megascale_transfer_type=\"(\w+)\"")
COUNTED = re.compile(r"replica_groups=\[(\d+),(\d+)\]<=\[([\d,]+)\](?:T\(([\d,]+)\))?")


def census(text: str, axes: dict[str, int] | None = None) -> dict[str, dict[str, int]]:
    """{kind: {"count", "bytes"}} of one step on one device; bytes are those of the results.

    A collective in a loop counts as often as the loop runs. text: `compiled.as_text()`, from any compiler of XLA's.
    axes: the mesh, {name: size}, outermost first; then the kinds are `all-reduce over data`, by the axes that meet.
    """
    found, seen = {}, set()
    computations = split(text)
    times = executions(computations)
    for name, lines in computations.items():
        if not times[name]:
            continue
        starts = {match[1]: line for line in lines if (match := STARTED.search(line))}
        for line in lines:
            between = BETWEEN.search(line) if axes else None
            if between:
                kind = between[2].lower().replace("_", "-")
                _add(found, f"{kind} over slices", times[name], array_bytes(between[1]))
            match = COLLECTIVE.search(line)
            if match is None:
                continue
            done = DONE.search(line)  # channel and groups are written where it starts
            whole = starts.get(done[1], line) if done else line
            channel = CHANNEL.search(whole)
            # The TPU compiler spreads one asynchronous collective over several fusions, with one channel.
            if channel and (match[2], channel[1]) in seen:
                continue
            seen.add((match[2], channel[1]) if channel else None)
            kind = match[2] if axes is None else f"{match[2]} over {'+'.join(mesh_axes(whole, axes)) or 'nobody'}"
            _add(found, kind, times[name], array_bytes(match[1]))
    return dict(sorted(found.items()))


def _add(found: dict, kind: str, times: int, size: int) -> None:
    entry = found.setdefault(kind, {"count": 0, "bytes": 0})
    entry["count"] += times
    entry["bytes"] += times * size


def mesh_axes(line: str, axes: dict[str, int]) -> list[str]:
    """The axes of the mesh along which the devices of one group of a collective differ."""
    places = np.array(np.unravel_index(group(line, int(np.prod(list(axes.values())))), tuple(axes.values())))
    return [name for name, along in zip(axes, places, strict=True) if len(set(along.tolist())) > 1]


def group(line: str, devices: int) -> np.ndarray:
    """The devices of its first group; all of them where the compiler names none."""
    listed, counted = LISTED.search(line), COUNTED.search(line)
    if listed and listed[1]:
        return np.array([int(number) for number in listed[1].split(",")])
    if counted:
        shape = [int(side) for side in counted[3].split(",")]
        order = [int(axis) for axis in counted[4].split(",")] if counted[4] else range(len(shape))
        ids = np.arange(np.prod(shape)).reshape(shape).transpose(order)
        return ids.reshape(int(counted[1]), int(counted[2]))[0]
    return np.arange(devices)
