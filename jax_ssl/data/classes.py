"""Which folders are classes, among images of which no more is known than their names.

Folders side by side are classes, unless something speaks for another meaning: then there are no labels, and a note says
why. A wrong label is worse than none.
"""

import re
from collections import Counter
from collections.abc import Iterator
from typing import NamedTuple

from jax_ssl.data.about import UNLABELLED, counted, listed
from jax_ssl.data.words import IMAGES, are_annotations, are_images, parts_of, spelling

LOOSE, FEW, MANY = 0.05, 3, 0.2  # the share of images that may be left out; up to FEW of them may be MANY
PIECES = IMAGES | set("part parts batch chunk shard piece set folder dir data dataset jpg jpeg archive".split())
COPY = re.compile(r"^(?:copy of )?(.+?)(?: ?\(\d+\)| - copy(?: ?\(\d+\))?| copy(?: \d+)?)?$", re.IGNORECASE)


class Part(NamedTuple):
    """The images of one split."""

    place: str  # the folder that holds the classes or the images, "" for the one that the user named
    names: list[str]  # sorted
    classes: list[str] | None  # the class of each image
    notes: tuple[str, ...] = ()
    left_out: tuple[str, ...] = ()


class Tree:
    """Names of images, and how many of them are directly in each folder, which is all that the rules look at."""

    def __init__(self, names: list[str]):
        self.names = names
        self.counts = Counter(name[: name.rfind("/") + 1] for name in names)

    def below(self, prefix: str) -> dict[str, Counter]:
        """{folder in `prefix`: {folder in that, or "" for itself: images}}."""
        found: dict[str, Counter] = {}
        for folder, count in self.counts.items():
            if folder.startswith(prefix) and folder != prefix:
                top, _, rest = folder[len(prefix) :].partition("/")
                found.setdefault(top, Counter())[rest.partition("/")[0]] += count
        return found

    def only(self, *folders: str) -> "Tree":
        return Tree([name for name in self.names if name.startswith(folders)])

    def without(self, *folders: str) -> "Tree":
        return Tree([name for name in self.names if not name.startswith(folders)])


def is_little(aside: int, total: int) -> bool:
    """Whether that many of all images can be left out for the rest to make sense."""
    return aside <= LOOSE * total or (aside <= FEW and aside <= MANY * total)


def inner_names(inside: Counter) -> set[str]:
    return set(inside) - {""}


def without_annotations(tree: Tree) -> tuple[Tree, list[str]]:
    """Leaves out masks, labels and the like that stand beside a folder of images, at any depth; and says so."""
    children: dict[str, set] = {}
    for folder in tree.counts:
        for up in _upwards(folder):
            children.setdefault(up[: up.rfind("/", 0, -1) + 1], set()).add(up)
    dropped: set[str] = set()
    for inside in children.values():
        name = lambda folder: folder.rstrip("/").rpartition("/")[2]
        masks = [folder for folder in inside if are_annotations(name(folder)) and not are_images(name(folder))]
        if masks and len(masks) < len(inside) and all(are_images(name(folder)) for folder in inside - set(masks)):
            dropped |= set(masks)
    if not dropped:
        return tree, []
    gone = {folder for folder in tree.counts if any(up in dropped for up in _upwards(folder))}
    kept = Tree([name for name in tree.names if name[: name.rfind("/") + 1] not in gone])
    kinds = sorted({folder.rstrip("/").rpartition("/")[2] for folder in dropped})
    return kept, [f"{counted(len(tree.names) - len(kept.names), 'image')} in {listed(kinds)}"]


def _upwards(folder: str) -> Iterator[str]:
    """The folder and all that it is in."""
    while folder:
        yield folder
        folder = folder[: folder.rfind("/", 0, -1) + 1]


def part_of(tree: Tree, known: set[str] = frozenset()) -> Part:
    """Goes down through folders that hold nearly everything; several folders side by side are then the classes.

    known: classes of another split, which are not gone down into. Where there are no labels, a note says why.
    """
    prefix, left = "", []
    while True:
        below, loose, total = tree.below(prefix), tree.counts.get(prefix, 0), len(tree.names)
        if not below:
            return Part(prefix.rstrip("/"), tree.names, None, (), tuple(left))
        if loose and not is_little(loose, total):
            why = f"as {loose:,} of {counted(total, 'image')} lie beside the folders ({listed(sorted(below))})"
            return Part(prefix.rstrip("/"), tree.names, None, (UNLABELLED + why,), tuple(left))
        if loose:
            left.append(counted(loose, "loose file"))
            tree = Tree([name for name in tree.names if name.rfind("/") >= len(prefix)])
        if len(below) > 1 or spelling(next(iter(below))) in known:
            break
        prefix += f"{next(iter(below))}/"
    doubt = "" if known & set(map(spelling, below)) else _doubt(below)
    if doubt:
        return Part(prefix.rstrip("/"), tree.names, None, (f"{UNLABELLED}as {doubt}",), tuple(left))
    classes = [spelling(name[len(prefix) :].partition("/")[0]) for name in tree.names]
    return Part(prefix.rstrip("/"), tree.names, classes, tuple(_alike(below)), tuple(left))


def _doubt(below: dict[str, Counter]) -> str:
    """Why folders side by side may be something else than classes; "" where nothing speaks for that."""
    tops = sorted(below)
    if all(parts_of(top) and set(parts_of(top)) <= PIECES for top in tops):
        return f"{listed(tops)} look like pieces of one set"
    inner = [inner_names(inside) for inside in below.values()]
    common = set.intersection(*inner)
    deep = not any(inside[""] for inside in below.values())
    if deep and len(common) > 1 and 2 * len(common) >= max(map(len, inner)):
        names = f"{listed(tops)} hold folders of the same names ({listed(sorted(common))})"
        return f"{names}, and either may be the classes: name one of them in the path"
    return ""


def _alike(below: dict[str, Counter]) -> list[str]:
    """What is odd about the names of classes: two spellings of one name, names that differ in case alone, copies."""
    spelt = Counter(map(spelling, below))
    notes = [f"{counted(number, 'folder')} called {name} are one class" for name, number in spelt.items() if number > 1]
    by_case: dict[str, list] = {}
    for name in sorted(spelt):
        by_case.setdefault(" ".join(name.casefold().split()), []).append(name)
    several = [names for names in by_case.values() if len(names) > 1]
    notes += [f"{' and '.join(map(repr, names))} are {len(names)} classes" for names in several]
    for name in sorted(spelt):
        base = COPY.match(name).group(1)
        if base != name and base in spelt:
            notes.append(f"{name!r} looks like a copy of {base!r}, and both are classes")
    return notes
