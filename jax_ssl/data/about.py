"""The one line that says what was found in a data set, and what of it is not used.

Whatever a source leaves out, guesses or can't label, it says in this line, so that the user can see and correct it.
"""

import hashlib
from collections.abc import Iterable
from typing import NamedTuple

import numpy as np

UNLABELLED = "no labels, "  # begins the note that says why
SHOWN = 6  # names of a list; of the others only the number is given


class About(NamedTuple):
    """What `source_line` says besides the numbers."""

    name: str  # of the source
    train_in: str = ""  # folder or array with the training images
    test_in: str = ""  # folder or array with the test images
    notes: tuple[str, ...] = ()  # for example why there are no labels
    left_out: tuple[str, ...] = ()  # what is not used


def source_line(about: About, train: int, classes: int, test: int | None, how: str = "") -> str:
    """The line of a source: numbers of images and classes, notes, and what is left out.

    train, test: numbers of images; test is None where there is no test split. how: where the test images are from.
    """
    why = [note.removeprefix(UNLABELLED) for note in about.notes if note.startswith(UNLABELLED)]
    labels = f"of {plural(classes, 'class', 'classes')}" if classes else ", ".join(["without labels", *why])
    parts = [f"{plural(train, 'training image')} {labels}{_inside(about.train_in)}"]
    if test is not None:
        parts.append(f"{plural(test, 'test image')}{_inside(about.test_in)}{how}")
    notes = [note for note in about.notes if classes or not note.startswith(UNLABELLED)]
    left = (f"left out: {join_names(about.left_out)}",) if about.left_out else ()
    return printable(f"{about.name}: " + "; ".join([", ".join(parts), *notes, *left]))


def _inside(place: str) -> str:
    return f" in {place}" if place else ""


def plural(number: int, one: str, many: str = "") -> str:
    """`1 image`, `2 images`. many: the plural, by default with an s."""
    return f"{number:,} {one if number == 1 else many or one + 's'}"


def join_names(names: Iterable[str]) -> str:
    """`a, b, c`; after SHOWN names only how many more there are."""
    names = list(names)
    more = [f"and {len(names) - SHOWN:,} more"] if len(names) > SHOWN else []
    return ", ".join(names[:SHOWN] + more)


def printable(text: str) -> str:
    """The text for any terminal or log file: bytes that are not UTF-8, and control characters, are escaped as \\x..."""
    shown = text.encode("utf-8", "surrogateescape").decode("utf-8", "backslashreplace")
    return "".join(char if char.isprintable() else char.encode("unicode_escape").decode() for char in shown)


def digest(*parts: str | np.ndarray) -> str:
    """Sixteen hexadecimal digits of the SHA-256 of the parts: the `identity` of a source."""
    found = hashlib.sha256()
    for part in parts:
        data = part.encode("utf-8", "surrogateescape") if isinstance(part, str) else part.tobytes()
        found.update(len(data).to_bytes(8, "little"))  # otherwise "ab", "c" and "a", "bc" would give the same
        found.update(data)
    return found.hexdigest()[:16]
