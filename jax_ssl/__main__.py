"""`python -m jax_ssl VERB`: one line from a config to a trained, measured network."""

import argparse
import os
import sys

# Before anything imports them: TensorFlow's and absl's start-up chatter is not for users.
os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")
os.environ.setdefault("GRPC_VERBOSITY", "ERROR")
os.environ.setdefault("GLOG_minloglevel", "3")

from jax_ssl.errors import DataError, RunError, UserError  # noqa: E402

EXIT = {UserError: 2, DataError: 3, RunError: 4}


def parser() -> argparse.ArgumentParser:
    """Every verb with its flags; `--config.KEY=VALUE` overrides are left over on purpose."""
    top = argparse.ArgumentParser(prog="jax_ssl", description="Self-supervised visual learning in JAX.")
    verbs = top.add_subparsers(dest="verb", required=True, metavar="VERB")
    train = verbs.add_parser("train", help="train one config, or go on with an interrupted run")
    train.add_argument("--config", required=True, help="a config file and preset: configs/simclr.py:tiny")
    train.add_argument("--workdir", help="the run's folder; default runs/NAME_PRESET")
    return top


def run_train(args, overrides) -> None:
    from jax_ssl import config
    from jax_ssl.train import train

    settings = config.load(args.config, overrides)
    path, preset = config.find(args.config)
    train(settings, args.workdir or f"runs/{path.stem}{'_' + preset if preset else ''}")


VERBS = {"train": run_train}


def main(argv=None) -> int:
    args, rest = parser().parse_known_args(argv)
    unknown = [flag for flag in rest if not flag.startswith("--config.")]
    try:
        if unknown:
            raise UserError(f"{unknown[0]!r} is not a flag of `{args.verb}`: see `python -m jax_ssl {args.verb} --help`.")
        VERBS[args.verb](args, rest)
    except tuple(EXIT) as error:
        print(f"jax_ssl: {error}", file=sys.stderr)
        return EXIT[type(error)]
    return 0


if __name__ == "__main__":
    sys.exit(main())
