"""Decides from the file names below a folder: which are training and test images, which folders are classes.

    CLASS/any/depth/IMAGE               labelled; a tenth of each class is held out as `test`
    train/..., test|val/...             splits, each with or without classes; also Training_Set, seg_val, holdout, ...
    CLASS/train/..., CLASS/val/...      the same, class first
    IMAGE, ...                          images without labels

If one folder holds nearly all images, the rules are applied inside it. A few loose images, masks beside `images`, and a
test folder without classes are left out. What can be read in two ways is used without labels, or refused with the path
to give instead. Every decision is said in `Source.about`. Nothing here reads the disk.
"""

import functools
from collections import Counter
from typing import NamedTuple

from jax_ssl.data.about import join_names, plural
from jax_ssl.data.classes import Part, Tree, find_classes, is_negligible, subfolder_names, without_annotations
from jax_ssl.data.folder_names import (
    IMAGES,
    OTHER,
    TEST,
    TRAIN,
    VALIDATION,
    is_ambiguous,
    normalise_name,
    role,
    words_of,
)
from jax_ssl.errors import UserError

TEST_ROLES = (TEST, VALIDATION)  # the test split is the first of these that has labels


class Layout(NamedTuple):
    """What the images of a folder are."""

    train: Part
    test: Part | None  # None: a part of `train` is held out instead
    others: dict[str, Part]  # {name of its folder: split}, all of them
    notes: tuple[str, ...]
    left_out: tuple[str, ...]


@functools.lru_cache(maxsize=1)  # a run opens its data set three times, and a million names take seconds
def layout_of(names: tuple[str, ...], where: str = "folder:PATH") -> Layout:
    """The layout of a folder; see the top of this file.

    names: relative paths of all images, sorted. where: name of the folder in error messages. Raises UserError, with the
    path to give instead, where the folder can be read in two ways.
    """
    tree, left = without_annotations(Tree(list(names)))
    prefix = ""
    while True:
        below = tree.below(prefix)
        splits = splits_of(below)
        if splits:
            left += _outside(tree, prefix, where)
            return _with_splits(tree, prefix, splits, left, where)
        if len(below) < 2:
            if not below:
                return _training_only(tree, left)
            prefix += f"{next(iter(below))}/"
            continue
        owners = [
            top for top, inside in below.items() if has_splits_inside(tree, f"{prefix}{top}/", inside, len(below))
        ]
        if not owners:
            return _without_splits(tree, prefix, below, left, where)
        if len(owners) == 1 and is_negligible(len(tree.without(f"{prefix}{owners[0]}/").names), len(tree.names)):
            prefix += f"{owners[0]}/"
        elif _is_class_first(tree, prefix, below):
            return _class_first_layout(tree, prefix, left)
        else:
            raise layout_error(
                where, f"has splits of its own in {join_names(owners)}", *(prefix + top for top in owners)
            )


def _outside(tree: Tree, prefix: str, where: str) -> list[str]:
    """Says how many images are left out because they are not below `prefix`. Raises UserError if they are many."""
    aside = len(tree.names) - len(tree.only(prefix).names)
    if not is_negligible(aside, len(tree.names)):
        raise layout_error(where, f"has {plural(aside, 'image')} beside {prefix.rstrip('/')}", prefix.rstrip("/"))
    if aside == tree.counts.get("", 0):
        return [plural(aside, "loose file")] if aside else []
    return [f"{plural(aside, 'image')} beside {prefix.rstrip('/')}"]


def splits_of(tops) -> dict[str, str]:
    """{folder: its role} of those folders in `tops` that are splits; {} if they are not splits.

    Both a training folder and a test or validation folder have to be there: `train` may be a class of vehicles. A name
    that may also be a class, or that says more than the split, counts only if the other split has a similar name:
    seg_train and seg_test.
    """
    roles = {top: found for top in tops if top and (found := role(top))}
    complete = len(roles) == sum(1 for top in tops if top)
    plain = {top: kind for top, (kind, rest) in roles.items() if not rest}
    sure = complete or any(kind == TRAIN and not is_ambiguous(top) for top, kind in plain.items())
    if sure and TRAIN in plain.values() and complete and len(roles) > 1:
        return {top: kind for top, (kind, _) in roles.items()}  # Training, PublicTest, PrivateTest
    if sure and TRAIN in plain.values() and set(TEST_ROLES) & set(plain.values()):
        return plain
    alike = {}
    for top, (kind, rest) in roles.items():
        alike.setdefault(rest, {})[top] = kind
    groups = [group for rest, group in alike.items() if rest and {TRAIN} < set(group.values()) - {OTHER}]
    return {top: kind for group in groups for top, kind in group.items()}


def has_splits_inside(tree: Tree, prefix: str, inside: Counter, beside: int) -> bool:
    """Whether a folder holds splits, or holds a single folder that does.

    prefix: its path. inside: its folders, as of `Tree.below`. beside: how many folders there are at its level.
    """
    while len(inside) == 1 and "" not in inside and beside <= 20:  # among many folders, this would take long
        prefix += f"{next(iter(inside))}/"
        inside = tree.below(prefix)
    return bool(splits_of(inside))


def _training_only(tree: Tree, left: list[str], notes: tuple[str, ...] = ()) -> Layout:
    """The layout of a folder without splits: all images are training images."""
    part = find_classes(tree)
    return Layout(part, None, {}, (*notes, *part.notes), (*left, *part.left_out))


def _with_splits(tree: Tree, prefix: str, splits: dict[str, str], left: list[str], where: str) -> Layout:
    trains = sorted(top for top, kind in splits.items() if kind == TRAIN)
    if len(trains) > 1:
        raise layout_error(
            where, f"has several folders to train on, {join_names(trains)}", *(prefix + top for top in trains)
        )
    train = find_classes(tree.only(f"{prefix}{trains[0]}/"))
    known = set(train.classes or ())
    others = {top: find_classes(tree.only(f"{prefix}{top}/"), known) for top in tree.below(prefix) if top != trains[0]}
    measured = [top for kind in TEST_ROLES for top in sorted(others) if splits.get(top) == kind]
    return _choose_test(tree, prefix, trains[0], train, others, measured, left)


def _choose_test(tree: Tree, prefix: str, name: str, train: Part, others: dict[str, Part], measured, left) -> Layout:
    """Chooses the test split; the other splits are left out. measured: names in `others`, in order of preference."""
    known = set(train.classes or ())
    fits = lambda part: part.classes and (not known or known & set(part.classes))
    chosen = next((top for top in measured if fits(others[top])), None)
    test, notes = others.get(chosen), list(train.notes)
    for top, part in others.items():
        why = ""
        if top in measured and not fits(part):
            why = ", none of whose classes has training images" if part.classes else ", which has no class folders"
        if top != chosen:
            left.append(f"{plural(len(part.names), 'image')} in {prefix}{top}{why}")
    if test and known:
        for one, other, words in ((test, train, "test images but no training images"),
                                  (train, test, "training images but no test images")):  # fmt: skip
            missing = sorted(set(one.classes) - set(other.classes))
            if missing:
                notes.append(f"{plural(len(missing), 'class', 'classes')} with {words} ({join_names(missing)})")
    loose = tree.counts.get(prefix, 0)
    left += [*([plural(loose, "loose file")] if loose else []), *train.left_out, *(test.left_out if test else ())]
    return Layout(train, test, {name: train, **others}, tuple(notes), tuple(left))


def _is_class_first(tree: Tree, prefix: str, below: dict[str, Counter]) -> bool:
    """Whether every folder holds only splits, and these hold images and (mostly) no folders."""
    plain = lambda name: (role(name) or ("", "not a split"))[1] == ""
    named = all(map(plain, {name for inside in below.values() for name in inside}))
    deeper = sum(count for folder, count in tree.counts.items() if folder[len(prefix) :].count("/") > 2)
    return named and deeper * 2 < sum(tree.counts.values())


def _class_first_layout(tree: Tree, prefix: str, left: list[str]) -> Layout:
    """The layout of CLASS/train/IMAGE, CLASS/val/IMAGE."""
    made = {}
    for name in tree.names:
        label, _, rest = name[len(prefix) :].partition("/")
        names, classes = made.setdefault(role(rest.partition("/")[0])[0] if "/" in rest else "", ([], []))
        names.append(name)
        classes.append(normalise_name(label))
    parts = {kind: Part(f"{prefix}*/{kind}", *found) for kind, found in made.items() if kind}
    train = parts.pop(TRAIN)
    return _choose_test(tree, prefix, TRAIN, train, parts, [kind for kind in TEST_ROLES if kind in parts], left)


def _without_splits(tree: Tree, prefix: str, below: dict[str, Counter], left: list[str], where: str) -> Layout:
    """The layout of folders that are not a full set of splits: classes, perhaps beside a test folder or `images`."""
    plain = {top: found[0] for top in below if (found := role(top)) and not found[1] and not is_ambiguous(top)}
    tests, rest = sorted(top for top, kind in plain.items() if kind in TEST_ROLES), sorted(set(below) - set(plain))
    if tests and not rest and TRAIN not in plain.values():
        raise layout_error(
            where, f"has nothing to train on beside {join_names(tests)}", *(prefix + top for top in tests)
        )
    if TRAIN in plain.values():
        return _train_without_test(tree, prefix, below, plain, left, where)
    for test in tests:
        inside = subfolder_names(below[test])
        if inside and len(inside & set(rest)) * 2 >= len(inside):
            left += _outside(tree, prefix, where)
            train = find_classes(tree.only(*(f"{prefix}{top}/" for top in rest)))
            others = {top: find_classes(tree.only(f"{prefix}{top}/"), set(train.classes or ())) for top in tests}
            return _choose_test(tree, prefix, TRAIN, train, others, [test], left)
        if inside and any(inside & subfolder_names(below[top]) for top in rest):
            raise layout_error(
                where, f"has folders of one kind in {join_names([*rest, test])}", *(prefix + top for top in rest)
            )
    if plain and rest:
        no_class = sorted(plain)  # such a folder holds images of any class
        left += [f"{plural(sum(below[top].values()), 'image')} in {prefix}{top}, no class" for top in no_class]
        tree = tree.without(*(f"{prefix}{top}/" for top in no_class))
    pictures = [top for top in rest if set(words_of(top)) & IMAGES and set(words_of(top)) <= IMAGES]
    if pictures and len(pictures) < len(rest):
        raise layout_error(where, f"has images in {join_names(rest)}", *(prefix + top for top in pictures))
    return _training_only(tree, left)


def _train_without_test(
    tree: Tree, prefix: str, below: dict[str, Counter], plain, left: list[str], where: str
) -> Layout:
    """The layout with `train` but no test folder: `train` is a class if it is like the others, else all the data."""
    train = next(top for top, kind in plain.items() if kind == TRAIN)
    own, others = subfolder_names(below[train]), [subfolder_names(below[top]) for top in below if top != train]
    if not own or (all(others) and not any(own & other for other in others)):
        return _training_only(tree, left, (f"{train} is taken for a class, as there is no test folder",))
    aside = sum(tree.counts.values()) - sum(below[train].values())
    if not is_negligible(aside, sum(tree.counts.values())):
        raise layout_error(where, f"has {train} beside {join_names(sorted(set(below) - {train}))}", prefix + train)
    left.append(f"{plural(aside, 'image')} beside {train}")
    return _training_only(tree.only(f"{prefix}{train}/"), left)


def layout_error(where: str, why: str, *paths: str) -> UserError:
    """The error for a folder that can be read in two ways, with the paths to give instead."""
    give = " or ".join(f"{where}/{path}" for path in paths[:4])
    return UserError(f"{where} {why}, and can't be understood safely: give {give}.")
