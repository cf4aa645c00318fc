"""`python -m jax_ssl VERB`: one line from a config to a trained, measured network."""

import importlib
import os
import pkgutil
import sys
import traceback

# Before anything imports them: TensorFlow's and absl's start-up chatter is not for users.
os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")
os.environ.setdefault("GRPC_VERBOSITY", "ERROR")
os.environ.setdefault("GLOG_minloglevel", "3")
if os.path.expanduser("~") == "~":  # a container's user without a home: Keras would make a folder that is called `~`
    os.environ.setdefault("KERAS_HOME", f"{os.devnull}/keras")

from jax_ssl import commands, paths  # noqa: E402
from jax_ssl.commands.command_line import Parser, Version, parse  # noqa: E402
from jax_ssl.errors import EXIT, CodeError, LostError  # noqa: E402
from jax_ssl.run import disk, goodput, terminal  # noqa: E402, F401  goodput's clock of a run starts here


def find_verbs() -> dict:
    """{verb: its module}: each file of `commands/` that has flags."""
    names = sorted(info.name for info in pkgutil.iter_modules(commands.__path__))
    modules = {name: importlib.import_module(f"jax_ssl.commands.{name}") for name in names}
    return {name: module for name, module in modules.items() if hasattr(module, "add_flags")}


MODULES = find_verbs()
VERBS = {name: module.run for name, module in MODULES.items()}


def parser() -> Parser:
    """Every verb with its flags; `--config.KEY=VALUE` overrides are left over on purpose."""
    top = Parser(prog="jax_ssl", description="Self-supervised visual learning in JAX.")
    top.add_argument("--version", action=Version)
    top.verbs = top.add_subparsers(dest="verb", required=True, metavar="VERB")
    for name, module in MODULES.items():
        module.add_flags(top.verbs.add_parser(name, help=module.HELP))
    return top


def main(argv=None) -> int:
    """Runs a verb and returns its exit code. argv: what stands behind `python -m jax_ssl`, by default the real one."""
    code = 1
    try:
        with terminal.lasting():
            code = run(sys.argv[1:] if argv is None else list(argv))
    except terminal.LinesLost as error:
        print(f"jax_ssl: {error}", file=sys.stderr)
        return code or 1
    return code


def run(argv: list[str]) -> int:
    """The exit code of a verb; what a user can cause is one sentence on stderr."""
    if "" not in sys.path:  # the folder that we stand in, which `jax-ssl` lacks: for modules of the user's own
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
        lost = disk.lost(error) if isinstance(error, OSError) else paths.bucket_trouble(error)
        if lost is None:
            raise
        print(f"jax_ssl: {lost}", file=sys.stderr)
        return EXIT[LostError]


if __name__ == "__main__":
    sys.exit(main())
