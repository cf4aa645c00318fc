"""Convert the tensors of a file by a table of rules. One error lists all that is unknown, misshapen or missing."""

import collections
import re

import jax
import numpy as np

from jax_ssl.errors import UserError
from jax_ssl.weights.rules import Rule


def convert(arrays: dict, rules: tuple[Rule, ...], source: str) -> dict:
    """{name in the file: array} -> nested dict of float32 arrays under our names, blocks stacked on a leading axis.

    source: the file, for the message. Raises one UserError with every name that no rule matches, every tensor of a
    wrong shape, and every target (with its block) without a tensor.
    """
    pieces, unknown, misshapen = _sort(arrays, rules)
    depths = collections.Counter()
    for target, places in pieces.items():
        depths[_stack(target)] = max(depths[_stack(target)], 1 + max(block for block, _ in places))
    tree, unfilled = {}, []
    for target in dict.fromkeys(rule.target for rule in rules):
        parts = range(len({rule.part for rule in rules if rule.target == target}))
        blocks = range(max(depths[_stack(target)], 1)) if _stack(target) else (-1,)
        grid = [[pieces.get(target, {}).get((block, part)) for part in parts] for block in blocks]
        empty = [block for block, row in zip(blocks, grid) if any(piece is None for piece in row)]
        unfilled += [f"{target} of block {block}" if block >= 0 else target for block in empty]
        if not empty and not _insert(tree, target, grid, stacked=bool(_stack(target))):
            misshapen.append(f"{target}, whose parts or blocks differ in shape")
    _raise_problems(source, {"holds names that are unknown": unknown, "holds tensors of a wrong shape": misshapen,
                             "leaves parameters unfilled": unfilled})  # fmt: skip
    return tree


def check_shapes(params: dict, abstract: dict, source: str) -> None:
    """Raises one UserError with every parameter whose name or shape differs from the network's (`abstract`)."""
    shapes = lambda tree: {
        jax.tree_util.keystr(keys, simple=True, separator="/"): np.shape(leaf)
        for keys, leaf in jax.tree_util.tree_leaves_with_path(tree)
    }
    given, needed = shapes(params), shapes(abstract)
    different = [name for name in sorted(given.keys() & needed.keys()) if given[name] != needed[name]]
    _raise_problems(source, {
        "holds parameters that the network lacks": sorted(given.keys() - needed.keys()),
        "leaves parameters unfilled": sorted(needed.keys() - given.keys()),
        "holds tensors of a wrong shape": [f"{name} {given[name]} instead of {needed[name]}" for name in different],
    })  # fmt: skip


def _sort(arrays: dict, rules: tuple[Rule, ...]):
    """{target: {(block or -1, part): array}}, names that no rule matches, and tensors that a rule cannot transform."""
    pieces, unknown, misshapen = {}, [], []
    for name, array in arrays.items():
        matches = ((rule, re.fullmatch(rule.pattern, name)) for rule in rules)
        rule, match = next(((rule, match) for rule, match in matches if match), (None, None))
        place = None if rule is None else (int(match[1]) if match.groups() else -1, rule.part)
        if rule is None or place in pieces.setdefault(rule.target, {}):  # or a second tensor for the same place
            unknown.append(name)
            continue
        try:
            pieces[rule.target][place] = rule.transform(np.asarray(array, np.float32))
        except ValueError:
            misshapen.append(f"{name} {array.shape}")
            pieces[rule.target][place] = np.zeros(0, np.float32)  # reported as misshapen, so not as unfilled
    return pieces, unknown, misshapen


def _stack(target: str) -> str:
    """The path of the stacked blocks that a target is in, or "": `a/blocks/mlp/fc1/bias` -> `a/blocks`."""
    inside = re.match(r".*/blocks(?=/)", target)
    return inside[0] if inside else ""


def _insert(tree: dict, target: str, grid: list, stacked: bool) -> bool:
    """Inserts parts (concatenated) and blocks (stacked) at `target`; False if their shapes differ."""
    if len({piece.shape for row in grid for piece in row}) != 1:
        return False
    rows = [np.concatenate(row, axis=-1) if len(row) > 1 else row[0] for row in grid]
    *parents, last = target.split("/")
    for parent in parents:
        tree = tree.setdefault(parent, {})
    tree[last] = np.stack(rows) if stacked else rows[0]
    return True


def _raise_problems(source: str, problems: dict[str, list[str]]) -> None:
    sentences = [f"it {what}: {', '.join(items)}" for what, items in problems.items() if items]
    if sentences:
        raise UserError(
            f"{source} cannot be loaded: {'; '.join(sentences)}; take the file of a plain pretrained network."
        )
