"""Finds the classes of images from the names of their folders.

Folders side by side are classes, unless their names suggest something else: then there are no labels, and a note says
why. A wrong label is worse than none.
"""

import re
from collections import Counter
from collections.abc import Iterator
from typing import NamedTuple

from jax_ssl.data.about import UNLABELLED, join_names, plural
from jax_ssl.data.folder_names import IMAGES, is_annotation_folder, is_image_folder, normalise_name, words_of

# The share of images that may be left out; the larger one where these are at most FEW images.
NEGLIGIBLE, FEW, FEW_NEGLIGIBLE = 0.05, 3, 0.2
PIECE_WORDS = IMAGES | set("part parts batch chunk shard piece set folder dir data dataset jpg jpeg archive".split())
COPY_NAME = re.compile(r"^(?:copy of )?(.+?)(?: ?\(\d+\)| - copy(?: ?\(\d+\))?| copy(?: \d+)?)?$", re.IGNORECASE)


class Part(NamedTuple):
    """The images of one split."""

    place: str  # the folder that holds the classes or the images, "" for the user's folder itself
    names: list[str]  # sorted
    classes: list[str] | None  # the class of each image
    notes: tuple[str, ...] = ()
    left_out: tuple[str, ...] = ()


class Tree:
    """The paths of images, and the number of images directly in each folder: all that the rules look at."""

    def __init__(self, names: list[str]):
        self.names = names
        self.counts = Counter(name[: name.rfind("/") + 1] for name in names)

    def below(self, prefix: str) -> dict[str, Counter]:
        """{folder in `prefix`: {folder in that, or "" for the images directly in it: number of images}}."""
        found: dict[str, Counter] = {}
        for folder, count in self.counts.items():
            if folder.startswith(prefix) and folder != prefix:
                top, _, rest = folder[len(prefix) :].partition("/")
                found.setdefault(top, Counter())[rest.partition("/")[0]] += count
        return found

    def only(self, *folders: str) -> "Tree":
        """The tree of the images below these folders, whose names end with a slash."""
        return Tree([name for name in self.names if name.startswith(folders)])

    def without(self, *folders: str) -> "Tree":
        """The tree of all other images."""
        return Tree([name for name in self.names if not name.startswith(folders)])


def is_negligible(count: int, total: int) -> bool:
    """Whether `count` of `total` images are so few that they may be left out."""
    return count <= NEGLIGIBLE * total or (count <= FEW and count <= FEW_NEGLIGIBLE * total)


def subfolder_names(inside: Counter) -> set[str]:
    """The names in one entry of `Tree.below`, without "" for the images themselves."""
    return set(inside) - {""}


def without_annotations(tree: Tree) -> tuple[Tree, list[str]]:
    """The tree without folders of masks or labels beside a folder of images; and what was left out, in words."""
    children: dict[str, set] = {}
    for folder in tree.counts:
        for up in _ancestors(folder):
            children.setdefault(up[: up.rfind("/", 0, -1) + 1], set()).add(up)
    dropped: set[str] = set()
    for inside in children.values():
        name = lambda folder: folder.rstrip("/").rpartition("/")[2]
        masks = [
            folder for folder in inside if is_annotation_folder(name(folder)) and not is_image_folder(name(folder))
        ]
        if masks and len(masks) < len(inside) and all(is_image_folder(name(folder)) for folder in inside - set(masks)):
            dropped |= set(masks)
    if not dropped:
        return tree, []
    gone = {folder for folder in tree.counts if any(up in dropped for up in _ancestors(folder))}
    kept = Tree([name for name in tree.names if name[: name.rfind("/") + 1] not in gone])
    kinds = sorted({folder.rstrip("/").rpartition("/")[2] for folder in dropped})
    return kept, [f"{plural(len(tree.names) - len(kept.names), 'image')} in {join_names(kinds)}"]


def _ancestors(folder: str) -> Iterator[str]:
    """The folder and all folders that contain it, from the inside out."""
    while folder:
        yield folder
        folder = folder[: folder.rfind("/", 0, -1) + 1]


def find_classes(tree: Tree, known: set[str] = frozenset()) -> Part:
    """The images of one split with their classes: the first level that has several folders side by side.

    A folder that holds nearly all images is entered first. known: classes of another split; folders of these names are
    classes, even a single one. Where there are no labels, a note says why.
    """
    prefix, left = "", []
    while True:
        below, loose, total = tree.below(prefix), tree.counts.get(prefix, 0), len(tree.names)
        if not below:
            return Part(prefix.rstrip("/"), tree.names, None, (), tuple(left))
        if loose and not is_negligible(loose, total):
            why = f"as {loose:,} of {plural(total, 'image')} lie beside the folders ({join_names(sorted(below))})"
            return Part(prefix.rstrip("/"), tree.names, None, (UNLABELLED + why,), tuple(left))
        if loose:
            left.append(plural(loose, "loose file"))
            tree = Tree([name for name in tree.names if name.rfind("/") >= len(prefix)])
        if len(below) > 1 or normalise_name(next(iter(below))) in known:
            break
        prefix += f"{next(iter(below))}/"
    doubt = "" if known & set(map(normalise_name, below)) else _why_not_classes(below)
    if doubt:
        return Part(prefix.rstrip("/"), tree.names, None, (f"{UNLABELLED}as {doubt}",), tuple(left))
    classes = [normalise_name(name[len(prefix) :].partition("/")[0]) for name in tree.names]
    return Part(prefix.rstrip("/"), tree.names, classes, tuple(_similar_names(below)), tuple(left))


def _why_not_classes(below: dict[str, Counter]) -> str:
    """Why these folders may not be classes, in words; "" if they look like classes."""
    tops = sorted(below)
    if all(words_of(top) and set(words_of(top)) <= PIECE_WORDS for top in tops):
        return f"{join_names(tops)} look like pieces of one set"
    inner = [subfolder_names(inside) for inside in below.values()]
    common = set.intersection(*inner)
    deep = not any(inside[""] for inside in below.values())
    if deep and len(common) > 1 and 2 * len(common) >= max(map(len, inner)):
        names = f"{join_names(tops)} hold folders of the same names ({join_names(sorted(common))})"
        return f"{names}, and either may be the classes: name one of them in the path"
    return ""


def _similar_names(below: dict[str, Counter]) -> list[str]:
    """Notes about suspicious class names: one name in two encodings, names that differ only in case, copies."""
    normalised = Counter(map(normalise_name, below))
    notes = [
        f"{plural(number, 'folder')} called {name} are one class" for name, number in normalised.items() if number > 1
    ]
    by_case: dict[str, list] = {}
    for name in sorted(normalised):
        by_case.setdefault(" ".join(name.casefold().split()), []).append(name)
    several = [names for names in by_case.values() if len(names) > 1]
    notes += [f"{' and '.join(map(repr, names))} are {len(names)} classes" for names in several]
    for name in sorted(normalised):
        base = COPY_NAME.match(name).group(1)
        if base != name and base in normalised:
            notes.append(f"{name!r} looks like a copy of {base!r}, and both are classes")
    return notes
