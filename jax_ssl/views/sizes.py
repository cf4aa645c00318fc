"""The size of images in pixels: one number, the side of a square, or a pair (height, width) where it is none.

A config, an Encoder, a flag and a record have it in this form.
"""

from collections.abc import Sequence

Size = int | Sequence[int]


def sides(size: Size) -> tuple[int, int]:
    """(height, width) of a size."""
    return (size, size) if isinstance(size, int) else (int(size[0]), int(size[1]))


def size_of(height: int, width: int) -> int | tuple[int, int]:
    """The size with these sides: one number if they are equal."""
    return int(height) if height == width else (int(height), int(width))


def is_square(size: Size) -> bool:
    height, width = sides(size)
    return height == width


def written(size: Size) -> str:
    """A size as a user writes it: `224`, or `224x336` for the height and the width."""
    height, width = sides(size)
    return str(height) if height == width else f"{height}x{width}"


def scaled_to(longest: int, size: Size) -> tuple[int, int]:
    """(height, width) of the same shape whose longer side is `longest`."""
    height, width = sides(size)
    return tuple(max(1, round(longest * side / max(height, width))) for side in (height, width))


def grid_of(count: int, size: Size) -> tuple[int, int]:
    """(rows, columns) of a map of `count` positions of an image: of all that there could be, those nearest its shape.

    A network divides both sides by one number and rounds, so the true rows and columns are always the nearest.
    """
    height, width = sides(size)
    pairs = [(rows, count // rows) for rows in range(1, count + 1) if count % rows == 0]
    apart = lambda pair: max(pair[0] * width / (pair[1] * height), pair[1] * height / (pair[0] * width))
    return min(pairs, key=apart)
