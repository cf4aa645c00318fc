"""`ablate`: small runs that change one thing at a time, compared in a table and a plot."""

from jax_ssl.commands.command_line import refuse, refuse_flags

HELP = "small runs that change one thing at a time, with a table and a plot"


def add_flags(parser) -> None:
    parser.add_argument("--suite", default="", help="a name of configs/ablations.py")
    parser.add_argument("--workdir", default="runs/ablations", help="a folder for all suites; default runs/ablations")
    parser.add_argument("--seeds", default="0", help="each cell runs once with each seed: 0,1")
    parser.add_argument("--seconds", type=float, help="of training steps of each cell, in suites of equal time")
    parser.add_argument("--list", action="store_true", help="the suites, their claims and cells; runs nothing")


def run(args, overrides) -> None:
    from jax_ssl.run import devices
    from jax_ssl.study import ablate

    if args.list:
        refuse(overrides, "ablate --list")
        flags = ("workdir", "seeds", "seconds")
        refuse_flags(args, flags, "changes nothing of --list, which runs nothing: leave it out")
        print(ablate.listing(args.suite))
    else:
        devices.check_devices()
        ablate.run(args.suite, args.workdir, args.seeds, overrides, args.seconds)
