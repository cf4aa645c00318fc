"""Converts the tensors of a file by a table of rules. One error counts all that is unknown, misshapen or missing."""

import re
from typing import NamedTuple

import jax
import numpy as np

from jax_ssl.errors import UserError
from jax_ssl.weights.rules import Rule

NOT_FINITE = "tensors with values that are not finite"
EXAMPLES = 3  # names that an error shows of each kind; `weights inspect` lists all


class Assigned(NamedTuple):
    """Which tensor of a file goes where, before any is read."""

    pieces: dict  # {target: {(block or -1, part): (name, tensor, rule)}}
    problems: dict  # {what is wrong: [names]}


def assign(tensors: dict, rules: tuple[Rule, ...]) -> Assigned:
    """tensors: {name in the file: array, or what has a shape and becomes one}. Finds unknown and unfilled names."""
    pieces, unknown = {}, []
    compiled = [(re.compile(rule.pattern), rule) for rule in rules]
    for name, tensor in tensors.items():
        found = next(((m, rule) for pattern, rule in compiled if (m := pattern.fullmatch(name))), None)
        place = found and (int(found[0][1]) if found[0].groups() else -1, found[1].part)
        if found is None or place in pieces.setdefault(found[1].target, {}):  # or a second one for the same place
            unknown.append(name)
        else:
            pieces[found[1].target][place] = (name, tensor, found[1])
    depths, gaps = depths_of(pieces)
    unfilled = [f"{stack}: {len(gap)} whole blocks, such as number {gap[0]}" for stack, gap in gaps.items()]
    for target in dict.fromkeys(rule.target for rule in rules if stack_of(rule.target) not in gaps):
        for block, row in grid(target, pieces.get(target, {}), depths, rules):
            if any(piece is None for piece in row):
                unfilled.append(f"{target} of block {block}" if block >= 0 else target)
    return Assigned(pieces, {"unknown names": unknown, "unfilled parameters": unfilled})


def convert(tensors: dict, rules: tuple[Rule, ...], source: str) -> dict:
    """{name in the file: array} -> nested dict of float32 arrays under our names, blocks stacked on a leading axis.

    Arrays are read one after the other, so the file is in memory once. source: for the message. Raises one UserError
    that counts the names that no rule matches, tensors of a wrong shape, of whole numbers or with values that are not
    finite, and targets without a tensor.
    """
    pieces, problems = assign(tensors, rules)
    (depths, gaps), tree, faults = depths_of(pieces), {}, {"tensors of a wrong shape": [], NOT_FINITE: []}
    for target in dict.fromkeys(rule.target for rule in rules if stack_of(rule.target) not in gaps):
        rows = [row for _, row in grid(target, pieces.get(target, {}), depths, rules)]
        if all(piece is not None for row in rows for piece in row):
            insert(tree, target, rows, stacked=bool(stack_of(target)), faults=faults)
    raise_problems(source, problems | faults)
    return tree


def raise_problems(source: str, problems: dict[str, list[str]]) -> None:
    """One line that counts the problems and shows a few; nothing if there are none."""
    told = []
    for what, names in problems.items():
        shown = ", ".join(name[:60] for name in names[:EXAMPLES])
        told += [f"{len(names)} {what} ({shown}{', ...' if len(names) > EXAMPLES else ''})"] if names else []
    if told:
        raise UserError(
            f"{source} cannot be loaded: {'; '.join(told)}. `python -m jax_ssl weights inspect` lists them; take the "
            "file of a plain pretrained network."
        )


def check_shapes(params: dict, abstract: dict, source: str) -> None:
    """Raises UserError if a parameter's name or shape differs from the network's (`abstract`)."""
    shapes = lambda tree: {
        jax.tree_util.keystr(keys, simple=True, separator="/"): np.shape(leaf)
        for keys, leaf in jax.tree_util.tree_leaves_with_path(tree)
    }
    given, needed = shapes(params), shapes(abstract)
    different = [name for name in sorted(given.keys() & needed.keys()) if given[name] != needed[name]]
    raise_problems(source, {
        "parameters that the network lacks": sorted(given.keys() - needed.keys()),
        "unfilled parameters": sorted(needed.keys() - given.keys()),
        "tensors of a wrong shape": [f"{name} {given[name]} instead of {needed[name]}" for name in different],
    })  # fmt: skip


def depths_of(pieces: dict) -> tuple[dict[str, int], dict[str, list[int]]]:
    """({stack: number of its blocks}, {stack: numbers of blocks of which there is nothing, if any})."""
    there = {}
    for target, places in pieces.items():
        there.setdefault(stack_of(target), set()).update(block for block, _ in places)
    depths = {stack: 1 + max(blocks) for stack, blocks in there.items() if blocks}
    gaps = {stack: sorted(set(range(depth)) - there[stack]) for stack, depth in depths.items()}
    return depths, {stack: gap for stack, gap in gaps.items() if gap}


def stack_of(target: str) -> str:
    """The path of the stacked blocks that a target is in, or "": `a/blocks/mlp/fc1/bias` -> `a/blocks`."""
    inside = re.match(r".*/blocks(?=/)", target)
    return inside[0] if inside else ""


def grid(target: str, places: dict, depths: dict, rules: tuple[Rule, ...]):
    """Yields (block or -1, its parts in order, None where one is missing) of a target."""
    parts = range(len({rule.part for rule in rules if rule.target == target}))
    for block in range(max(depths.get(stack_of(target), 1), 1)) if stack_of(target) else (-1,):
        yield block, [places.get((block, part)) for part in parts]


def insert(tree: dict, target: str, rows: list, stacked: bool, faults: dict) -> None:
    """Reads the tensors of a target, and inserts them: parts side by side in the last axis, blocks on a leading one.

    faults: {what is wrong: [names]}, of which it adds to two.
    """
    out = None
    for block, row in enumerate(rows):
        try:
            arrays = [transformed(tensor, rule) for _, tensor, rule in row]
            faults[NOT_FINITE] += [name for (name, _, _), x in zip(row, arrays) if not np.isfinite(x).all()]
            array = arrays[0] if len(arrays) == 1 else np.concatenate(arrays, axis=-1)
            if out is None:
                out = np.empty((len(rows), *array.shape), np.float32) if stacked else np.ascontiguousarray(array)
            if stacked:
                if out.shape[1:] != array.shape:
                    raise ValueError
                out[block] = array
        except ValueError:
            faults["tensors of a wrong shape"] += [f"{name} {tuple(tensor.shape)}" for name, tensor, _ in row]
            return
    *parents, last = target.split("/")
    for parent in parents:
        tree = tree.setdefault(parent, {})
    tree[last] = out


def transformed(tensor, rule: Rule) -> np.ndarray:
    """The tensor as float32 in our layout. Raises ValueError for another shape, and for whole numbers."""
    if np.dtype(tensor.dtype).kind in "iub":
        raise ValueError
    return rule.transform(np.asarray(tensor).astype(np.float32, copy=False))
