"""Checks that values of a config are within bounds, with one kind of message: "method.temperature=0 must be above 0."

The code that reads a value also checks it: a method, a model and the optimiser at the top of their `make`, and
checks.py for the keys that all runs share. `nan` and `inf` are always refused. tests/test_bounds.py gives an impossible
value to every number of every method's config: a new keyword without a bound fails there.
"""

import math
import operator
from collections.abc import Iterable, Mapping
from numbers import Integral, Real

from jax_ssl.errors import UserError

DTYPES = ("float32", "bfloat16")  # float16 would need a scaled loss, or small gradients vanish
COMPARE = {"above": operator.gt, "at least": operator.ge, "below": operator.lt, "at most": operator.le}


def bounded(prefix: str, values: Mapping, *, above=None, at_least=None, below=None, at_most=None) -> None:
    """Raises a UserError that names the key unless each value is a number, or a tuple of numbers, within the limits.

    prefix: what stands before the keys, "method." for `method.temperature` or "--" for a flag.
    """
    limits = {"above": above, "at least": at_least, "below": below, "at most": at_most}
    limits = {word: limit for word, limit in limits.items() if limit is not None}

    def fits(number):
        finite = isinstance(number, Real) and abs(number) < math.inf
        return finite and all(COMPARE[word](number, limit) for word, limit in limits.items())

    asked = " and ".join(f"{word} {limit}" for word, limit in limits.items()) or "a finite number"
    _each(prefix, values, fits, asked)


def whole(prefix: str, values: Mapping, at_least: int = 1) -> None:
    """`bounded` for whole numbers, such as widths and counts."""
    fits = lambda number: isinstance(number, Integral) and number >= at_least
    _each(prefix, values, fits, f"a whole number of at least {at_least}")


def _each(prefix: str, values: Mapping, fits, asked: str) -> None:
    for key, value in values.items():
        several = isinstance(value, list | tuple)
        if not all(map(fits, value if several else (value,))):
            raise UserError(f"{'Each of ' * several}{prefix}{key}={as_written(value)} must be {asked}.")


def rising_pair(prefix: str, values: Mapping, **limits) -> None:
    """`bounded` for pairs of the least and the most; limits as there."""
    for key, value in values.items():
        bounded(prefix, {key: value}, **limits)
        if not isinstance(value, list | tuple) or len(value) != 2 or value[0] > value[1]:
            raise UserError(f"{prefix}{key}={as_written(value)} must be two numbers, the least and the most.")


def one_of(prefix: str, values: Mapping, choices: Iterable) -> None:
    """Raises a UserError that lists the choices unless each value is one of them."""
    for key, value in values.items():
        if value not in choices:
            raise UserError(f"{prefix}{key}={value!r}: choose one of {', '.join(map(str, choices))}.")


def finite(tree, key: str = "") -> None:
    """Raises a UserError for the first number in nested mappings, lists and tuples that is `nan` or infinite."""
    if isinstance(tree, float) and not math.isfinite(tree):
        raise UserError(f"{key}={tree} must be a finite number.")
    if hasattr(tree, "items"):
        for name, value in tree.items():
            finite(value, f"{key}.{name}" if key else name)
    elif isinstance(tree, list | tuple):
        for number, value in enumerate(tree):
            finite(value, f"{key}[{number}]")


def as_written(value) -> str:
    """A value as a user writes it after the `=` of a flag."""
    return f"({','.join(map(str, value))}{',' * (len(value) == 1)})" if isinstance(value, list | tuple) else str(value)
