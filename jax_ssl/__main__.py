"""`python -m jax_ssl VERB`: one line from a config to a trained, measured network."""

import json
import os
import sys
import traceback

# Before anything imports them: TensorFlow's and absl's start-up chatter is not for users.
os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")
os.environ.setdefault("GRPC_VERBOSITY", "ERROR")
os.environ.setdefault("GLOG_minloglevel", "3")
if os.path.expanduser("~") == "~":  # a container's user without a home: Keras would make a folder that is called `~`
    os.environ.setdefault("KERAS_HOME", f"{os.devnull}/keras")

from jax_ssl import disk, goodput, paths, terminal  # noqa: E402, F401  goodput's clock of a run starts here
from jax_ssl.command_line import Parser, Version, at_least, parse, refuse, refuse_flags  # noqa: E402
from jax_ssl.errors import EXIT, CodeError, LostError, UserError  # noqa: E402


def parser() -> Parser:
    """Every verb with its flags; `--config.KEY=VALUE` overrides are left over on purpose."""
    top = Parser(prog="jax_ssl", description="Self-supervised visual learning in JAX.")
    top.add_argument("--version", action=Version)
    top.verbs = verbs = top.add_subparsers(dest="verb", required=True, metavar="VERB")

    train = verbs.add_parser("train", help="train one config, or go on with an interrupted run")
    train.add_argument("--config", required=True, help="a config file and preset: configs/simclr.py:tiny")
    train.add_argument("--workdir", help="the run's folder; default runs/NAME_PRESET")
    train.add_argument("--extend", action="store_true", help="go on to more epochs than the folder's run has")
    train.add_argument("--profile", help="START:STOP, the first and the last step to trace into RUN/profile")
    train.add_argument("--coordinator", help="several processes: HOST:PORT where process 0 listens to the others")
    train.add_argument(
        "--processes", type=at_least(1), help="how many; not needed on TPU VMs, GKE and SLURM, which say so"
    )
    train.add_argument("--process", type=at_least(0), help="which one this is, 0 to N-1")
    train.add_argument(
        "--stopped-exit", type=int, default=0, help="exit code of a run that a signal stopped; default 0"
    )

    evaluate = verbs.add_parser("evaluate", help="measure a run's frozen or fine-tuned features")
    evaluate.add_argument("--run", required=True, help="a run's folder")
    evaluate.add_argument("--task", default="knn,linear", help="knn, linear, finetune, emergence, or a module of your "
                          "own with a dot in its name; several with commas")  # fmt: skip
    evaluate.add_argument("--weights", default="all", help="pixels, untrained, student, teacher; several with commas")
    evaluate.add_argument("--labels", type=at_least(1), help="finetune: how many labelled images; default 1000, or all")
    evaluate.add_argument("--epochs", type=at_least(1), default=20, help="finetune: passes over them")
    evaluate.add_argument(
        "--images", help="emergence: a folder of objects cut out of their background, PNGs with alpha"
    )
    evaluate.add_argument("--seed", type=at_least(0), help="of the probe; default the run's")

    visualize = verbs.add_parser("visualize", help="pictures of what frozen features see in a few images")
    visualize.add_argument("--run", help="a run's folder")
    visualize.add_argument("--what", default="", help="several with commas; default what fits the run: "
                           "views, attention, pca, correspondences, reconstruction, shown")  # fmt: skip
    visualize.add_argument("--weights", default="student", help="student, teacher, untrained; or a file, without --run")
    visualize.add_argument("--images", help="a folder; default the run's held-out images")
    visualize.add_argument("--size", type=at_least(1), help="their side in pixels; default the run's")
    visualize.add_argument("--count", type=at_least(1), default=8, help="how many images, default 8")
    visualize.add_argument("--out", help="a folder; default RUN/pictures")

    seals = verbs.add_parser("seals", help="the table of what is proven for each method")
    seals.add_argument("--record", help="a run's folder, or what `plan --out` wrote, to keep as evidence")
    seals.add_argument("--name", default="", help="how the config of that run was called: configs/simclr.py:cifar")

    plan = verbs.add_parser("plan", help="compile a config's step for a TPU pod, without one: does it fit?")
    plan.add_argument("--config", help="a config file and preset")
    plan.add_argument("--topology", help="one or several, by either name: v3:8x8,v5litepod-256")
    plan.add_argument(
        "--slices", type=at_least(1), default=1, help="how many of each, joined by the data centre's network"
    )
    plan.add_argument(
        "--scaling", default="strong", help="strong: one batch for all topologies; weak: it grows; or both"
    )
    plan.add_argument("--prices", default="", help="a price table of your own, as jax_ssl/plan/prices.json")
    plan.add_argument("--no-remedy", action="store_true", help="where it does not fit, don't try what would help")
    plan.add_argument("--quick", action="store_true", help="compile in half the time or less, for rougher numbers")
    plan.add_argument("--heaviest", action="store_true", help="list the operations that move most bytes")
    plan.add_argument("--out", default="", help="a JSON file for the reports")
    plan.add_argument("--plot", default="", help="a PNG file: the bound against chips")
    plan.add_argument("--published", action="store_true", help="the bound beside what was published, and nothing else")

    benchmark = verbs.add_parser("benchmark", help="how fast a config trains on this machine")
    benchmark.add_argument("--config", required=True, help="a config file and preset")
    benchmark.add_argument("--what", default="step", help="step (default), or input: what the host can prepare")
    benchmark.add_argument("--steps", type=int, help="how many are measured; default 30, of input 4 batches a turn")
    benchmark.add_argument("--out", default="", help="a file that gets one more line of JSON")

    ablate = verbs.add_parser("ablate", help="small runs that change one thing at a time, with a table and a plot")
    ablate.add_argument("--suite", default="", help="a name of configs/ablations.py")
    ablate.add_argument("--workdir", default="runs/ablations", help="a folder for all suites; default runs/ablations")
    ablate.add_argument("--seeds", default="0", help="each cell runs once with each: 0,1")
    ablate.add_argument("--list", action="store_true", help="the suites, their claims and cells; runs nothing")
    return top


def run_train(args, overrides) -> int:
    from jax_ssl import bounds, checks, config, hosts, profiling

    bounds.bounded("--", {"stopped-exit": args.stopped_exit}, at_least=0, at_most=255)
    settings = config.load(args.config, overrides)
    checks.check_steps(settings)  # how long processes wait for each other is asked for before `train` checks the rest
    profile = profiling.parse(args.profile) if args.profile else None
    path, preset = config.find(args.config)
    workdir = args.workdir or f"runs/{path.stem}{'_' + preset if preset else ''}"
    where = hosts.place(args.coordinator, args.processes, args.process, os.environ)
    with hosts.joined(where, settings.hosts.init_timeout, settings.hosts.heartbeat) as say:
        from jax_ssl import measure
        from jax_ssl.train import train

        finished = train(settings, workdir, profile, args.extend)
        if finished and settings.evaluate_at_end and hosts.agree(not measure.has_table(workdir)):
            measure.at_end(workdir, say)
            say(f"\ncurves and pictures in {workdir}/pictures, numbers in {workdir}/results.jsonl")
    return 0 if finished else args.stopped_exit


def run_evaluate(args, overrides) -> None:
    from jax_ssl import devices, evaluation

    devices.check_devices()
    tasks, weights = args.task.split(","), args.weights.split(",")
    for task, flags in (("finetune", ("labels", "epochs")), ("emergence", ("images",))):
        if task not in tasks:
            refuse_flags(args, flags, f"belongs to --task={task}: add that task, or leave the flag out")
    options = dict(seed=args.seed, labels=args.labels, epochs=args.epochs, images=args.images, overrides=overrides)
    evaluation.evaluate(args.run, tasks, None if "all" in weights else weights, **options)


def run_visualize(args, overrides) -> None:
    from jax_ssl import devices, gallery, outputs

    devices.check_devices()
    what = args.what.split(",") if args.what else ()
    if args.run is None:
        refuse(overrides, "visualize without --run")
    if args.out:
        outputs.check_folder("--out", args.out)
    gallery.draw(args.run, what, args.weights, args.images, args.size, args.count, args.out, overrides=overrides)


def run_seals(args, overrides) -> None:
    from jax_ssl import seals

    refuse(overrides, "seals")
    if args.record:
        seals.record(args.record, args.name)
    else:
        refuse_flags(args, ("name",), "says how a run that is recorded was called: give --record as well")
    print(seals.refresh())


def run_plan(args, overrides) -> None:
    from jax_ssl import config, outputs, plan, published, seals
    from jax_ssl.plan import report

    out, plot = outputs.check_file("--out", args.out), outputs.check_file("--plot", args.plot)
    if args.published:
        refuse(overrides, "plan --published")
        others = tuple(sorted(args.given - {"out", "published"}))
        refuse_flags(args, others, "changes nothing of --published, which shows recorded plans: leave it out")
        plans = seals.whole_plans()
        if out:
            report.save(published.compare(plans), out)
        print(published.table(plans))
        return
    if not args.config or not args.topology:
        raise UserError("plan needs --config and --topology, or --published alone.")
    load = lambda more: config.load(args.config, [*overrides, *more])
    spec, scalings = " ".join([args.config, *overrides]), tuple(args.scaling.split(","))
    names, remedy = args.topology.split(","), not args.no_remedy
    reports = plan.run(load, names, spec, args.slices, args.prices, scalings, remedy, args.quick)
    report.show(spec, reports, args.heaviest, out, plot)


def run_benchmark(args, overrides) -> None:
    from jax_ssl import benchmark, benchmark_input, config, devices, outputs

    settings, spec = config.load(args.config, overrides), " ".join([args.config, *overrides])
    if args.what not in ("step", "input"):
        raise UserError(f"--what={args.what}: choose step or input.")
    out = outputs.check_file("--out", args.out)
    if args.what == "input":
        result = benchmark_input.run(settings, 4 if args.steps is None else args.steps, spec)
    else:
        devices.check_devices()
        result = benchmark.run(settings, 30 if args.steps is None else args.steps, spec)
    if out:
        paths.append(out, json.dumps(result) + "\n")


def run_ablate(args, overrides) -> None:
    from jax_ssl import ablate, devices

    if args.list:
        refuse(overrides, "ablate --list")
        refuse_flags(args, ("workdir", "seeds"), "changes nothing of --list, which runs nothing: leave it out")
        print(ablate.listing(args.suite))
    else:
        devices.check_devices()
        ablate.run(args.suite, args.workdir, args.seeds, overrides)


VERBS = {
    "train": run_train,
    "evaluate": run_evaluate,
    "visualize": run_visualize,
    "seals": run_seals,
    "plan": run_plan,
    "benchmark": run_benchmark,
    "ablate": run_ablate,
}


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
