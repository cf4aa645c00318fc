"""The one line that says what was understood of the place that the user named, and what of it is left out.

Whatever a source leaves out, guesses or can't label, it says here: a run never differs in silence from what was meant.
"""

import hashlib
from collections.abc import Iterable
from typing import NamedTuple

import numpy as np

UNLABELLED = "no labels, "  # begins the note that says why
SHOWN = 6  # of a list; the rest is a number


class About(NamedTuple):
    """What `sentence` says beside the numbers."""

    name: str  # of the source
    train_in: str = ""  # where in it the training images are, and
    test_in: str = ""  # the test images
    notes: tuple[str, ...] = ()  # what a reader should know, such as why there are no labels
    left_out: tuple[str, ...] = ()


def sentence(about: About, train: int, classes: int, test: int | None, how: str = "") -> str:
    """train, test: how many images, None where there is no test split. how: where the test images are from."""
    why = [note.removeprefix(UNLABELLED) for note in about.notes if note.startswith(UNLABELLED)]
    labels = f"of {counted(classes, 'class', 'classes')}" if classes else ", ".join(["without labels", *why])
    parts = [f"{counted(train, 'training image')} {labels}{_inside(about.train_in)}"]
    if test is not None:
        parts.append(f"{counted(test, 'test image')}{_inside(about.test_in)}{how}")
    notes = [note for note in about.notes if classes or not note.startswith(UNLABELLED)]
    left = (f"left out: {listed(about.left_out)}",) if about.left_out else ()
    return printable(f"{about.name}: " + "; ".join([", ".join(parts), *notes, *left]))


def _inside(place: str) -> str:
    return f" in {place}" if place else ""


def counted(number: int, one: str, many: str = "") -> str:
    """1 image, 2 images."""
    return f"{number:,} {one if number == 1 else many or one + 's'}"


def listed(names: Iterable[str]) -> str:
    """a, b, c; a long list is cut."""
    names = list(names)
    more = [f"and {len(names) - SHOWN:,} more"] if len(names) > SHOWN else []
    return ", ".join(names[:SHOWN] + more)


def printable(text: str) -> str:
    """The text as any terminal and log file takes it: bytes that are not UTF-8, and control characters, as \\x..."""
    shown = text.encode("utf-8", "surrogateescape").decode("utf-8", "backslashreplace")
    return "".join(char if char.isprintable() else char.encode("unicode_escape").decode() for char in shown)


def digest(*parts: str | np.ndarray) -> str:
    """Sixteen hexadecimal digits that are others for other parts: the `identity` of a source."""
    found = hashlib.sha256()
    for part in parts:
        data = part.encode("utf-8", "surrogateescape") if isinstance(part, str) else part.tobytes()
        found.update(len(data).to_bytes(8, "little"))  # or "ab", "c" would be "a", "bc"
        found.update(data)
    return found.hexdigest()[:16]
