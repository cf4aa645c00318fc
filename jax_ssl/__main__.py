"""`python -m jax_ssl VERB`: one line from a config to a trained, measured network."""

import importlib
import os
import pkgutil
import sys
import traceback

# Set before TensorFlow and absl are imported: their messages at start are not for users.
os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")
os.environ.setdefault("GRPC_VERBOSITY", "ERROR")
os.environ.setdefault("GLOG_minloglevel", "3")
if os.path.expanduser("~") == "~":  # a user of a container without a home: Keras would make a folder called `~`
    os.environ.setdefault("KERAS_HOME", f"{os.devnull}/keras")

from jax_ssl import commands, paths  # noqa: E402
from jax_ssl.commands.command_line import Parser, Version, parse  # noqa: E402
from jax_ssl.errors import EXIT, CodeError, LostError  # noqa: E402
from jax_ssl.run import disk, goodput, terminal  # noqa: E402, F401  the import starts goodput's clock


def find_verbs() -> dict:
    """{verb: its module}: each file of `commands/` that has `add_flags`."""
    names = sorted(info.name for info in pkgutil.iter_modules(commands.__path__))
    modules = {name: importlib.import_module(f"jax_ssl.commands.{name}") for name in names}
    return {name: module for name, module in modules.items() if hasattr(module, "add_flags")}


MODULES = find_verbs()
VERBS = {name: module.run for name, module in MODULES.items()}


def parser() -> Parser:
    """The parser of all verbs and their flags. It does not know `--config.KEY=VALUE`: `parse` collects those."""
    top = Parser(prog="jax_ssl", description="Self-supervised visual learning in JAX.")
    top.add_argument("--version", action=Version)
    top.verbs = top.add_subparsers(dest="verb", required=True, metavar="VERB")
    for name, module in MODULES.items():
        module.add_flags(top.verbs.add_parser(name, help=module.HELP))
    return top


def main(argv=None) -> int:
    """Runs a verb and returns its exit code. argv: the words after `python -m jax_ssl`, default sys.argv."""
    code = 1
    try:
        with terminal.tolerate_lost_readers():
            code = run(sys.argv[1:] if argv is None else list(argv))
    except terminal.LinesLost as error:
        print(f"jax_ssl: {error}", file=sys.stderr)
        return code or 1
    return code


def run(argv: list[str]) -> int:
    """Runs a verb and returns its exit code. An error that a user can cause is printed as one sentence on stderr."""
    if "" not in sys.path:  # the current folder, for modules of the user's own; the command `jax-ssl` does not add it
        sys.path.append("")
    try:
        args, overrides = parse(parser(), argv)
        return VERBS[args.verb](args, overrides) or 0
    except tuple(EXIT) as error:
        print(f"jax_ssl: {error}", file=sys.stderr)
        if isinstance(error, CodeError):  # where in the user's own code
            traceback.print_exception(error.__cause__)
        return EXIT[type(error)]
    except KeyboardInterrupt:
        print("\n" * sys.stderr.isatty() + "jax_ssl: interrupted", file=sys.stderr)  # below the ^C
        return 130
    except Exception as error:
        lost = disk.lost_error(error) if isinstance(error, OSError) else paths.bucket_trouble(error)
        if lost is None:
            raise
        print(f"jax_ssl: {lost}", file=sys.stderr)
        return EXIT[LostError]


if __name__ == "__main__":
    sys.exit(main())
