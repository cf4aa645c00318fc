"""From names below a folder to what they are: training and test images, classes, what is left out. Looks at no disk.

    CLASS/any/depth/IMAGE               labelled; a tenth of each class is held out to test
    train/..., test|val/...             splits, each with or without classes; also Training_Set, seg_val, holdout, ...
    CLASS/train/..., CLASS/val/...      the same, class first
    IMAGE, ...                          images without labels

A folder that holds nearly everything is looked into. The rule: a few loose pictures, masks beside `images`, and a test
folder without classes are left out; what may be either of two things is taken without labels, or refused with the path
to give instead; and whatever is decided here is said in the line about the source.
"""

import functools
from collections import Counter
from typing import NamedTuple

from jax_ssl.data.about import counted, listed
from jax_ssl.data.classes import Part, Tree, inner_names, is_little, part_of, without_annotations
from jax_ssl.data.words import IMAGES, OTHER, TEST, TRAIN, VALIDATION, is_ambiguous, parts_of, role, spelling
from jax_ssl.errors import UserError

MEASURED = (TEST, VALIDATION)  # in this order, the first that has labels


class Layout(NamedTuple):
    """What a folder is."""

    train: Part
    test: Part | None  # None: nothing but what is held out of `train`
    others: dict[str, Part]  # all splits by the names of their folders
    notes: tuple[str, ...]
    left_out: tuple[str, ...]


@functools.lru_cache(maxsize=1)  # a run opens its set three times, and a million names take seconds
def understand(names: tuple[str, ...], where: str = "folder:PATH") -> Layout:
    """See the head of this file. names: of all images, relative, sorted. where: what a refusal calls the folder."""
    tree, left = without_annotations(Tree(list(names)))
    prefix = ""
    while True:
        below = tree.below(prefix)
        splits = splits_of(below)
        if splits:
            left += _aside(tree, prefix, where)
            return _with_splits(tree, prefix, splits, left, where)
        if len(below) < 2:
            if not below:
                return _whole(tree, left)
            prefix += f"{next(iter(below))}/"
            continue
        owners = [top for top, inside in below.items() if leads_to_splits(tree, f"{prefix}{top}/", inside, len(below))]
        if not owners:
            return _beside(tree, prefix, below, left, where)
        if len(owners) == 1 and is_little(len(tree.without(f"{prefix}{owners[0]}/").names), len(tree.names)):
            prefix += f"{owners[0]}/"
        elif _is_class_first(tree, prefix, below):
            return _class_first(tree, prefix, below, left)
        else:
            raise refusal(where, f"has splits of its own in {listed(owners)}", *(prefix + top for top in owners))


def _aside(tree: Tree, prefix: str, where: str) -> list[str]:
    """What is left out because it is beside the folder that has the splits; refused if it is much."""
    aside = len(tree.names) - len(tree.only(prefix).names)
    if not is_little(aside, len(tree.names)):
        raise refusal(where, f"has {counted(aside, 'image')} beside {prefix.rstrip('/')}", prefix.rstrip("/"))
    if aside == tree.counts.get("", 0):
        return [counted(aside, "loose file")] if aside else []
    return [f"{counted(aside, 'image')} beside {prefix.rstrip('/')}"]


def splits_of(tops) -> dict[str, str]:
    """{folder: its role} if folders that stand side by side are splits, else {}; other folders may be among them.

    There has to be one to train and one to measure: a set of vehicles may have a class `train`. Words that may be
    classes, and names that say more than the split, count where the other split is called alike: seg_train, seg_test.
    """
    roles = {top: found for top in tops if top and (found := role(top))}
    complete = len(roles) == sum(1 for top in tops if top)
    plain = {top: kind for top, (kind, rest) in roles.items() if not rest}
    sure = complete or any(kind == TRAIN and not is_ambiguous(top) for top, kind in plain.items())
    if sure and TRAIN in plain.values() and complete and len(roles) > 1:
        return {top: kind for top, (kind, _) in roles.items()}  # Training, PublicTest, PrivateTest
    if sure and TRAIN in plain.values() and set(MEASURED) & set(plain.values()):
        return plain
    alike = {}
    for top, (kind, rest) in roles.items():
        alike.setdefault(rest, {})[top] = kind
    groups = [group for rest, group in alike.items() if rest and {TRAIN} < set(group.values()) - {OTHER}]
    return {top: kind for group in groups for top, kind in group.items()}


def leads_to_splits(tree: Tree, prefix: str, inside: Counter, beside: int) -> bool:
    """Whether splits are in a folder, or in the one folder that is in it. inside: its folders."""
    while len(inside) == 1 and "" not in inside and beside <= 20:  # among many folders, this would take long
        prefix += f"{next(iter(inside))}/"
        inside = tree.below(prefix)
    return bool(splits_of(inside))


def _whole(tree: Tree, left: list[str], notes: tuple[str, ...] = ()) -> Layout:
    """All of it is there to train on."""
    part = part_of(tree)
    return Layout(part, None, {}, (*notes, *part.notes), (*left, *part.left_out))


def _with_splits(tree: Tree, prefix: str, splits: dict[str, str], left: list[str], where: str) -> Layout:
    trains = sorted(top for top, kind in splits.items() if kind == TRAIN)
    if len(trains) > 1:
        raise refusal(where, f"has several folders to train on, {listed(trains)}", *(prefix + top for top in trains))
    train = part_of(tree.only(f"{prefix}{trains[0]}/"))
    known = set(train.classes or ())
    others = {top: part_of(tree.only(f"{prefix}{top}/"), known) for top in tree.below(prefix) if top != trains[0]}
    measured = [top for kind in MEASURED for top in sorted(others) if splits.get(top) == kind]
    return _finish(tree, prefix, trains[0], train, others, measured, left)


def _finish(tree: Tree, prefix: str, name: str, train: Part, others: dict[str, Part], measured, left) -> Layout:
    """Chooses what is measured; what is neither that nor trained on is left out. measured: names in `others`."""
    known = set(train.classes or ())
    fits = lambda part: part.classes and (not known or known & set(part.classes))
    chosen = next((top for top in measured if fits(others[top])), None)
    test, notes = others.get(chosen), list(train.notes)
    for top, part in others.items():
        why = ""
        if top in measured and not fits(part):
            why = ", none of whose classes is to be trained on" if part.classes else ", which has no class folders"
        if top != chosen:
            left.append(f"{counted(len(part.names), 'image')} in {prefix}{top}{why}")
    if test and known:
        for one, other, words in ((test, train, "test images but no training images"),
                                  (train, test, "training images but no test images")):  # fmt: skip
            missing = sorted(set(one.classes) - set(other.classes))
            if missing:
                notes.append(f"{counted(len(missing), 'class', 'classes')} with {words} ({listed(missing)})")
    loose = tree.counts.get(prefix, 0)
    left += [*([counted(loose, "loose file")] if loose else []), *train.left_out, *(test.left_out if test else ())]
    return Layout(train, test, {name: train, **others}, tuple(notes), tuple(left))


def _is_class_first(tree: Tree, prefix: str, below: dict[str, Counter]) -> bool:
    """Whether every folder holds splits and nothing else, and those hold images and (mostly) no folders."""
    plain = lambda name: (role(name) or ("", "not a split"))[1] == ""
    named = all(map(plain, {name for inside in below.values() for name in inside}))
    deeper = sum(count for folder, count in tree.counts.items() if folder[len(prefix) :].count("/") > 2)
    return named and deeper * 2 < sum(tree.counts.values())


def _class_first(tree: Tree, prefix: str, below: dict[str, Counter], left: list[str]) -> Layout:
    """CLASS/train/IMAGE, CLASS/val/IMAGE."""
    made = {}
    for name in tree.names:
        label, _, rest = name[len(prefix) :].partition("/")
        names, classes = made.setdefault(role(rest.partition("/")[0])[0] if "/" in rest else "", ([], []))
        names.append(name)
        classes.append(spelling(label))
    parts = {kind: Part(f"{prefix}*/{kind}", *found) for kind, found in made.items() if kind}
    train = parts.pop(TRAIN)
    return _finish(tree, prefix, TRAIN, train, parts, [kind for kind in MEASURED if kind in parts], left)


def _beside(tree: Tree, prefix: str, below: dict[str, Counter], left: list[str], where: str) -> Layout:
    """Folders that are no splits together: a test folder or `images` may still be among them, then classes."""
    plain = {top: found[0] for top in below if (found := role(top)) and not found[1] and not is_ambiguous(top)}
    tests, rest = sorted(top for top, kind in plain.items() if kind in MEASURED), sorted(set(below) - set(plain))
    if tests and not rest and TRAIN not in plain.values():
        raise refusal(where, f"has nothing to train on beside {listed(tests)}", *(prefix + top for top in tests))
    if TRAIN in plain.values():
        return _with_train(tree, prefix, below, plain, left, where)
    for test in tests:
        inside = inner_names(below[test])
        if inside and len(inside & set(rest)) * 2 >= len(inside):
            left += _aside(tree, prefix, where)
            train = part_of(tree.only(*(f"{prefix}{top}/" for top in rest)))
            others = {top: part_of(tree.only(f"{prefix}{top}/"), set(train.classes or ())) for top in tests}
            return _finish(tree, prefix, TRAIN, train, others, [test], left)
        if inside and any(inside & inner_names(below[top]) for top in rest):
            raise refusal(where, f"has folders of one kind in {listed([*rest, test])}", *(prefix + top for top in rest))
    if plain and rest:
        no_class = sorted(plain)  # in them are images of any class
        left += [f"{counted(sum(below[top].values()), 'image')} in {prefix}{top}, no class" for top in no_class]
        tree = tree.without(*(f"{prefix}{top}/" for top in no_class))
    pictures = [top for top in rest if set(parts_of(top)) & IMAGES and set(parts_of(top)) <= IMAGES]
    if pictures and len(pictures) < len(rest):
        raise refusal(where, f"has images in {listed(rest)}", *(prefix + top for top in pictures))
    return _whole(tree, left)


def _with_train(tree: Tree, prefix: str, below: dict[str, Counter], plain, left: list[str], where: str) -> Layout:
    """A folder `train` without a test folder: a class if it is like the others, else all that was meant."""
    train = next(top for top, kind in plain.items() if kind == TRAIN)
    own, others = inner_names(below[train]), [inner_names(below[top]) for top in below if top != train]
    if not own or (all(others) and not any(own & other for other in others)):
        return _whole(tree, left, (f"{train} is taken for a class, as there is no test folder",))
    aside = sum(tree.counts.values()) - sum(below[train].values())
    if not is_little(aside, sum(tree.counts.values())):
        raise refusal(where, f"has {train} beside {listed(sorted(set(below) - {train}))}", prefix + train)
    left.append(f"{counted(aside, 'image')} beside {train}")
    return _whole(tree.only(f"{prefix}{train}/"), left)


def refusal(where: str, why: str, *paths: str) -> UserError:
    """What can't be understood safely, with the path to give instead."""
    give = " or ".join(f"{where}/{path}" for path in paths[:4])
    return UserError(f"{where} {why}, and can't be understood safely: give {give}.")
