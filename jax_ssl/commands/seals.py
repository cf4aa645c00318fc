"""`seals`: the table of what is proven for each method."""

from jax_ssl.commands.command_line import refuse, refuse_flags

HELP = "the table of what is proven for each method"


def add_flags(parser) -> None:
    parser.add_argument("--record", help="a run's folder, or a file of `plan --out`, to record as evidence")
    parser.add_argument("--name", default="", help="the --config of that run: configs/simclr.py:cifar")


def run(args, overrides) -> None:
    from jax_ssl.study import seals

    refuse(overrides, "seals")
    if args.record:
        seals.record(args.record, args.name)
    else:
        refuse_flags(args, ("name",), "says how a run that is recorded was called: give --record as well")
    print(seals.refresh())
