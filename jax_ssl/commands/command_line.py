"""Parses the words after `python -m jax_ssl`. Every word is used, or refused as a mistake.

Refused, with the words to write instead: an unknown flag, a flag that is given twice, a key and a value separated by a
space, and a flag or an override that would change nothing.
"""

import argparse
import difflib
import importlib.metadata
import platform

from jax_ssl import __version__, config
from jax_ssl.errors import UserError
from jax_ssl.views import sizes

OVERRIDE = "--config."


class Once(argparse.Action):
    """Stores the value of a flag, which may be given once. Raises UserError for a second one."""

    def __call__(self, parser, namespace, value, option_string=None):
        given = vars(namespace).setdefault("given", set())
        if self.dest in given:
            old = getattr(namespace, self.dest)
            raise UserError(f"{option_string} is given twice, {old} and {value}: keep one of them.")
        given.add(self.dest)
        setattr(namespace, self.dest, value)


class Switch(argparse.Action):
    """A flag without a value: True where it is given, else False."""

    def __init__(self, **options):
        super().__init__(nargs=0, default=False, **options)

    def __call__(self, parser, namespace, *_):
        vars(namespace).setdefault("given", set()).add(self.dest)
        setattr(namespace, self.dest, True)


class Version(argparse.Action):
    """Prints the versions that a bug report needs."""

    def __init__(self, **options):
        super().__init__(nargs=0, help="the versions of jax_ssl, jax and Python", **options)

    def __call__(self, parser, *_):
        print(f"jax_ssl {__version__}, jax {importlib.metadata.version('jax')}, Python {platform.python_version()}")
        parser.exit()


class Parser(argparse.ArgumentParser):
    """An ArgumentParser that raises UserError for a mistake and does not accept abbreviated flags."""

    def __init__(self, **options):
        super().__init__(**options, allow_abbrev=False)
        self.register("action", None, Once)
        self.register("action", "store_true", Switch)

    def error(self, message: str):
        sentence = message.removeprefix("argument ")
        raise UserError(f"{sentence[0].upper()}{sentence[1:]}; see `python -m {self.prog} --help`.")


def at_least(least: int):
    """A `type` for add_argument: a whole number of `least` or more."""

    def whole(text: str) -> int:
        if not text.removeprefix("-").isdecimal() or int(text) < least:
            raise argparse.ArgumentTypeError(f"{text!r} is not a whole number of at least {least}")
        return int(text)

    return whole


def image_size(text: str) -> sizes.Size:
    """A `type` for add_argument: `224`, or `224x336` for height and width, as a size of views/sizes.py."""
    parts = text.lower().split("x")
    if len(parts) > 2 or not all(part.isascii() and part.isdecimal() and int(part) for part in parts):
        raise argparse.ArgumentTypeError(
            f"{text!r} is no size in pixels: give a side of at least 1, such as 224, or HEIGHTxWIDTH, such as 224x336"
        )
    return sizes.size_of(int(parts[0]), int(parts[-1]))


def parse(parser: Parser, argv: list[str]) -> tuple[argparse.Namespace, list[str]]:
    """(flags, overrides of the config). flags has `verb` too, and `given`: the names of the flags that were written.

    Raises UserError for any other word.
    """
    known = parser.verbs.choices
    verb = argv[0] if argv else ""
    if verb not in (*known, "--version", "--help", "-h"):
        near = difflib.get_close_matches(verb, known, 1)
        hint = f"did you mean {near[0]}?" if near else f"write one of {', '.join(known)} first."
        raise UserError(f"There is no verb {verb!r}: {hint}")
    args, rest = parser.parse_known_args(argv, argparse.Namespace(given=set()))
    overrides = {}
    for word in rest:
        key, equals, _ = word.partition("=")
        if not (key.startswith(OVERRIDE) and equals):
            raise UserError(_unknown(word, argv, args, known[args.verb]))
        if overrides.setdefault(key, word) != word:  # allowed: a script may add its user's overrides to its own
            print(f"{key} is given twice: the last counts, {word}", flush=True)
            del overrides[key]
            overrides[key] = word
    return args, list(overrides.values())


def refuse(overrides: list[str], verb: str) -> None:
    """Raises UserError if there are overrides, for a use of a verb that has no config."""
    if overrides:
        raise UserError(f"{verb} has no config to change: leave {overrides[0]} out.")


def refuse_flags(args, names: tuple[str, ...], why: str) -> None:
    """Raises UserError, "--FLAG " and `why`, if one of the flags `names` was given: it would have no effect."""
    for name in names:
        if name in args.given:
            raise UserError(f"--{name.replace('_', '-')} {why}.")


def _unknown(word: str, argv: list[str], args, verb: Parser) -> str:
    """The sentence for a word that the verb does not know."""
    key, equals, value = word.partition("=")
    if key.startswith(OVERRIDE):
        after = argv[argv.index(word) + 1 :][:1]
        value = after[0] if after and not after[0].startswith("--") else "VALUE"
        return f"{key} has no value: write {key}={value}."
    flags = [flag for flag in verb._option_string_actions if flag.startswith("--")]
    name = key.lstrip("-").removeprefix("config.")
    near = difflib.get_close_matches(f"--{name.replace('_', '-')}", flags, 1, 0.7)
    keys = _keys_like(args, name.replace("-", "_")) if key.startswith("-") or equals else []
    known = keys and name.replace("-", "_") in (keys[0], keys[0].split(".")[-1])
    if near and not known:
        hint = f"did you mean {near[0]}?"
    elif keys:
        hint = f"did you mean {OVERRIDE}{keys[0]}={value or 'VALUE'}?"
    else:
        hint = f"see `python -m jax_ssl {args.verb} --help`."
    return f"{args.verb} has no flag {word!r}: {hint}"


def _keys_like(args, name: str) -> list[str]:
    """Keys of the config whose last part is this name or a similar one."""
    try:
        return config.keys_like(config.load(args.config), name) if getattr(args, "config", "") else []
    except UserError:  # the config is wrong too; report one mistake at a time
        return []
