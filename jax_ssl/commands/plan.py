"""`plan`: does a config fit a TPU pod, and how fast can it be at most? The pod is not needed."""

from jax_ssl.commands.command_line import at_least, refuse, refuse_flags
from jax_ssl.errors import UserError

HELP = "compile a config's step for a TPU pod, without one: does it fit?"


def add_flags(parser) -> None:
    parser.add_argument("--config", help="a config file and preset")
    parser.add_argument("--topology", help="one or several, in either notation: v3:8x8,v5litepod-256")
    parser.add_argument(
        "--slices", type=at_least(1), default=1, help="how many slices of each, connected by the data centre's network"
    )
    parser.add_argument(
        "--scaling", default="strong", help="strong: one batch for all topologies; weak: it grows; or both"
    )
    parser.add_argument("--prices", default="", help="a price table of your own, as jax_ssl/plan/prices.json")
    parser.add_argument("--no-remedy", action="store_true", help="where it does not fit, don't try what would help")
    parser.add_argument("--quick", action="store_true", help="compile in half the time or less, for rougher numbers")
    parser.add_argument("--heaviest", action="store_true", help="list the operations that move most bytes")
    parser.add_argument("--out", default="", help="a JSON file for the reports")
    parser.add_argument("--plot", default="", help="a PNG file: the bound against chips")
    parser.add_argument(
        "--published", action="store_true", help="only compare recorded plans with published speeds"
    )


def run(args, overrides) -> None:
    from jax_ssl.run import outputs

    out, plot = outputs.check_file("--out", args.out), outputs.check_file("--plot", args.plot)
    if args.published:
        show_published(args, overrides, out)
        return
    if not args.config or not args.topology:
        raise UserError("plan needs --config and --topology, or --published alone.")
    from jax_ssl import config
    from jax_ssl.plan import pods, report

    load = lambda more: config.load(args.config, [*overrides, *more])
    spec, scalings = " ".join([args.config, *overrides]), tuple(args.scaling.split(","))
    names, remedy = args.topology.split(","), not args.no_remedy
    reports = pods.run(load, names, spec, args.slices, args.prices, scalings, remedy, args.quick)
    report.show(spec, reports, args.heaviest, out, plot)


def show_published(args, overrides, out: str) -> None:
    """Prints the recorded plans beside published speeds. Needs no JAX, so it takes no seconds to start."""
    from jax_ssl.plan import published
    from jax_ssl.study import seals

    refuse(overrides, "plan --published")
    others = tuple(sorted(args.given - {"out", "published"}))
    refuse_flags(args, others, "changes nothing of --published, which shows recorded plans: leave it out")
    plans = seals.whole_plans()
    if out:
        from jax_ssl.plan import report

        report.save(published.compare(plans), out)
    print(published.table(plans))
