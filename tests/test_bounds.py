"""The voice of bounds, and that every number of every config has one."""

import math

import pytest

from jax_ssl import bounds, config
from jax_ssl.errors import UserError
from jax_ssl.run import checks
from tests.small import METHODS, small

ANY = {"data.mean", "method.mean"}  # pixels may be moved by any amount


def numbers(settings):
    """(key, value) of every number and tuple of numbers in a config."""
    for key, value in config._leaves(settings):
        parts = value if isinstance(value, tuple) else (value,)
        if parts and all(isinstance(x, int | float) and not isinstance(x, bool) for x in parts):
            yield key, value


def absurd(value):
    """Values of the same kind that nobody can mean."""
    same = lambda number: (number,) * len(value) if isinstance(value, tuple) else number
    if all(isinstance(x, int) for x in (value if isinstance(value, tuple) else (value,))):
        return [same(-(10**9))]
    return [same(-1e9), same(math.nan), same(math.inf)]


@pytest.mark.parametrize("name", METHODS)
def test_every_number_of_a_config_is_refused_when_it_is_absurd(name):
    """A keyword that is missing here needs a bound beside it, see bounds.py, or a place in ANY."""
    good, settled = small(name), []
    checks.check(good, 1)
    for key, value in numbers(good):
        for wrong in absurd(value):
            if key in ANY and math.isfinite(wrong[0]):
                continue
            settings = small(name)
            with settings.unlocked():
                node, *path = settings, *config.parts_of(key)
                for part in path[:-1]:
                    node = node[part]
                node[path[-1]] = wrong
            try:
                checks.check(settings, 1)
                settled.append(f"{key}={wrong} is taken")
            except UserError as error:
                if key.rpartition(".")[-1] not in str(error) or "\n" in str(error):
                    settled.append(f"{key}={wrong}: {error}")
    assert not settled, "\n".join(settled)


def test_the_key_the_value_and_the_bound_are_named():
    cases = {
        "method.temperature=0 must be above 0.": lambda: bounds.bounded("method.", dict(temperature=0), above=0),
        "a=2 must be at least 0 and at most 1.": lambda: bounds.bounded("", dict(a=2), at_least=0, at_most=1),
        "a=nan must be a finite number.": lambda: bounds.bounded("", dict(a=math.nan)),
        "--epochs=0 must be a whole number of at least 1.": lambda: bounds.whole("--", dict(epochs=0)),
        "Each of a=(3,0) must be a whole number of at least 1.": lambda: bounds.whole("", dict(a=(3, 0))),
        "a=(2,1) must be two numbers, the least and the most.": lambda: bounds.rising_pair("", dict(a=(2, 1))),
        "a='x': choose one of y, z.": lambda: bounds.one_of("", dict(a="x"), ("y", "z")),
        "a.b[1]=inf must be a finite number.": lambda: bounds.finite({"a": {"b": [1.0, math.inf]}}),
    }
    for sentence, raises in cases.items():
        with pytest.raises(UserError) as told:
            raises()
        assert str(told.value) == sentence


@pytest.mark.parametrize("value", ["x", None, (1.0, "x"), "1", -(10**400), [math.nan]])
def test_what_is_no_number_within_bounds_is_refused(value):
    with pytest.raises(UserError, match="must be above 0"):
        bounds.bounded("", dict(a=value), above=0)


def test_values_at_a_bound():
    bounds.bounded("", dict(a=0, b=1.0, c=(0, 1), d=()), at_least=0, at_most=1)
    bounds.bounded("", dict(a=10**400), above=0)
    bounds.whole("", dict(a=0, b=(0, 5)), at_least=0)
    bounds.rising_pair("", dict(a=(0.5, 0.5)), above=0, below=1)
