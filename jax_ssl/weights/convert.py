"""Apply a table of rules to the tensors of a file. Nothing is left over or stays empty, or else all of it is told."""

import collections
import re

import jax
import numpy as np

from jax_ssl.errors import UserError
from jax_ssl.weights.rules import Rule


def convert(arrays: dict, rules: tuple[Rule, ...], source: str) -> dict:
    """{their name: array} -> nested dict of float32 arrays under our names, blocks stacked on a leading axis.

    source: what the file is, for the message. Raises one UserError with every name that no rule knows, every tensor
    whose shape cannot be, and every target (with its block) that no tensor fills.
    """
    pieces, unknown, misshapen = _sort(arrays, rules)
    depths = collections.Counter()
    for target, found in pieces.items():
        depths[_stack(target)] = max(depths[_stack(target)], 1 + max(block for block, _ in found))
    tree, unfilled = {}, []
    for target in dict.fromkeys(rule.target for rule in rules):
        of_target = [rule for rule in rules if rule.target == target]
        parts = range(len({rule.part for rule in of_target}))
        blocks = range(max(depths[_stack(target)], 1)) if _stack(target) else (-1,)
        grid = [[pieces.get(target, {}).get((block, part)) for part in parts] for block in blocks]
        empty = [block for block, row in zip(blocks, grid) if any(piece is None for piece in row)]
        unfilled += [f"{target} of block {block}" if block >= 0 else target for block in empty]
        if not empty and not _insert(tree, target, grid, stacked=bool(_stack(target))):
            misshapen.append(f"{target}, whose parts or blocks differ in shape")
    _complain(source, {"holds names that are unknown": unknown, "holds tensors of a wrong shape": misshapen,
                       "leaves parameters unfilled": unfilled})  # fmt: skip
    return tree


def check_shapes(params: dict, abstract: dict, source: str) -> None:
    """Raises one UserError with every parameter that differs from what the network has (`abstract`, of its shapes)."""
    shapes = lambda tree: {
        jax.tree_util.keystr(keys, simple=True, separator="/"): np.shape(leaf)
        for keys, leaf in jax.tree_util.tree_leaves_with_path(tree)
    }
    there, here = shapes(params), shapes(abstract)
    different = [name for name in sorted(there.keys() & here.keys()) if there[name] != here[name]]
    _complain(source, {
        "holds parameters that the network lacks": sorted(there.keys() - here.keys()),
        "leaves parameters unfilled": sorted(here.keys() - there.keys()),
        "holds tensors of a wrong shape": [f"{name} {there[name]} instead of {here[name]}" for name in different],
    })  # fmt: skip


def _sort(arrays: dict, rules: tuple[Rule, ...]):
    """{target: {(block or -1, part): array}}, names that no rule knows, and tensors that a rule cannot transform."""
    pieces, unknown, misshapen = {}, [], []
    for name, array in arrays.items():
        matches = ((rule, re.fullmatch(rule.pattern, name)) for rule in rules)
        rule, match = next(((rule, match) for rule, match in matches if match), (None, None))
        place = None if rule is None else (int(match[1]) if match.groups() else -1, rule.part)
        if rule is None or place in pieces.setdefault(rule.target, {}):  # or a second name for the same thing
            unknown.append(name)
            continue
        try:
            pieces[rule.target][place] = rule.transform(np.asarray(array, np.float32))
        except ValueError:
            misshapen.append(f"{name} {array.shape}")
            pieces[rule.target][place] = np.zeros(0, np.float32)  # told above, hence not unfilled
    return pieces, unknown, misshapen


def _stack(target: str) -> str:
    """The scanned stack that a target is in, or "": `decoder/blocks/blocks/mlp/fc1/bias` -> `decoder/blocks/blocks`."""
    inside = re.match(r".*/blocks(?=/)", target)
    return inside[0] if inside else ""


def _insert(tree: dict, target: str, grid: list, stacked: bool) -> bool:
    """Puts the joined parts, stacked blocks, at `target`; False if their shapes do not allow it."""
    if len({piece.shape for row in grid for piece in row}) != 1:
        return False
    rows = [np.concatenate(row, axis=-1) if len(row) > 1 else row[0] for row in grid]
    *parents, last = target.split("/")
    for parent in parents:
        tree = tree.setdefault(parent, {})
    tree[last] = np.stack(rows) if stacked else rows[0]
    return True


def _complain(source: str, problems: dict[str, list[str]]) -> None:
    told = [f"it {what}: {', '.join(items)}" for what, items in problems.items() if items]
    if told:
        raise UserError(f"{source} cannot be loaded: {'; '.join(told)}; take the file of a plain pretrained network.")
