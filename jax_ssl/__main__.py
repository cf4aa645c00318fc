"""`python -m jax_ssl VERB`: one line from a config to a trained, measured network."""

import argparse
import os
import sys

# Before anything imports them: TensorFlow's and absl's start-up chatter is not for users.
os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")
os.environ.setdefault("GRPC_VERBOSITY", "ERROR")
os.environ.setdefault("GLOG_minloglevel", "3")
if os.path.expanduser("~") == "~":  # a container's user without a home: Keras would make a folder that is called `~`
    os.environ.setdefault("KERAS_HOME", f"{os.devnull}/keras")

from jax_ssl import goodput, paths  # noqa: E402, F401  goodput's clock of a run starts here
from jax_ssl.errors import EXIT, LostError, UserError  # noqa: E402


def parser() -> argparse.ArgumentParser:
    """Every verb with its flags; `--config.KEY=VALUE` overrides are left over on purpose."""
    top = argparse.ArgumentParser(prog="jax_ssl", description="Self-supervised visual learning in JAX.")
    verbs = top.add_subparsers(dest="verb", required=True, metavar="VERB")

    train = verbs.add_parser("train", help="train one config, or go on with an interrupted run")
    train.add_argument("--config", required=True, help="a config file and preset: configs/simclr.py:tiny")
    train.add_argument("--workdir", help="the run's folder; default runs/NAME_PRESET")
    train.add_argument("--profile", help="START:STOP, the first and the last step to trace into RUN/profile")
    train.add_argument("--coordinator", help="several processes: HOST:PORT where process 0 listens to the others")
    train.add_argument("--processes", type=int, help="how many; not needed on TPU VMs, GKE and SLURM, which say so")
    train.add_argument("--process", type=int, help="which one this is, 0 to N-1")
    train.add_argument(
        "--stopped-exit", type=int, default=0, help="exit code of a run that a signal stopped; default 0"
    )

    evaluate = verbs.add_parser("evaluate", help="measure a run's frozen or fine-tuned features")
    evaluate.add_argument("--run", required=True, help="a run's folder")
    evaluate.add_argument("--task", default="knn,linear", help="knn, linear, finetune, emergence; several with commas")
    evaluate.add_argument("--weights", default="all", help="pixels, untrained, student, teacher; several with commas")
    evaluate.add_argument("--labels", type=int, default=1000, help="finetune: how many labelled images")
    evaluate.add_argument("--epochs", type=int, default=20, help="finetune: passes over them")
    evaluate.add_argument(
        "--images", help="emergence: a folder of objects cut out of their background, PNGs with alpha"
    )
    evaluate.add_argument("--seed", type=int, help="of the probe; default the run's")

    visualize = verbs.add_parser("visualize", help="pictures of what frozen features see in a few images")
    visualize.add_argument("--run", help="a run's folder")
    visualize.add_argument("--what", default="", help="several with commas; default what fits the run: "
                           "views, attention, pca, correspondences, reconstruction, shown")  # fmt: skip
    visualize.add_argument("--weights", default="student", help="student, teacher, untrained; or a file, without --run")
    visualize.add_argument("--images", help="a folder; default the run's held-out images")
    visualize.add_argument("--size", type=int, help="their side in pixels; default the run's")
    visualize.add_argument("--count", type=int, default=8, help="how many images, default 8")
    visualize.add_argument("--out", help="a folder; default RUN/pictures")

    seals = verbs.add_parser("seals", help="the table of what is proven for each method")
    seals.add_argument("--record", help="a run's folder, or what `plan --out` wrote, to keep as evidence")
    seals.add_argument("--name", default="", help="how the config of that run was called: configs/simclr.py:cifar")

    plan = verbs.add_parser("plan", help="compile a config's step for a TPU pod, without one: does it fit?")
    plan.add_argument("--config", help="a config file and preset")
    plan.add_argument("--topology", help="one or several, by either name: v3:8x8,v5litepod-256")
    plan.add_argument("--slices", type=int, default=1, help="how many of each, joined by the data centre's network")
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
    from jax_ssl import config, hosts, profiling

    settings = config.load(args.config, overrides)
    profile = profiling.parse(args.profile) if args.profile else None
    path, preset = config.find(args.config)
    workdir = args.workdir or f"runs/{path.stem}{'_' + preset if preset else ''}"
    where = hosts.place(args.coordinator, args.processes, args.process, os.environ)
    with hosts.joined(where, settings.hosts.init_timeout, settings.hosts.heartbeat) as say:
        from jax_ssl import measure
        from jax_ssl.train import train

        finished = train(settings, workdir, profile)
        if finished and settings.evaluate_at_end and hosts.agree(not measure.results(workdir)):
            measure.frozen(workdir, say=say)
            say(f"\ncurves and pictures in {workdir}/pictures, numbers in {workdir}/results.jsonl")
    return 0 if finished else args.stopped_exit


def run_evaluate(args, overrides) -> None:
    from jax_ssl import measure

    tasks, weights = args.task.split(","), args.weights.split(",")
    for flag, given, known in (("task", tasks, measure.TASKS), ("weights", weights, (*measure.WEIGHTS, "all"))):
        wrong = sorted(set(given) - set(known))
        if wrong:
            raise UserError(f"--{flag}={wrong[0]}: choose of {', '.join(known)}.")
    if "emergence" in tasks and not args.images:
        raise UserError("--task=emergence needs --images=FOLDER, of objects cut out of their background.")
    wanted = measure.WEIGHTS if "all" in weights else tuple(weights)
    if set(tasks) & {"knn", "linear"}:
        measure.frozen(args.run, tasks, wanted, args.seed, overrides=overrides)
    if "finetune" in tasks:
        which = "teacher" if wanted == ("teacher",) else "student"
        measure.finetuned(args.run, args.labels, args.epochs, which, overrides=overrides)
    if "emergence" in tasks:
        measure.emerged(args.run, args.images, wanted, overrides=overrides)


def run_visualize(args, overrides) -> None:
    from jax_ssl import gallery

    what = args.what.split(",") if args.what else ()
    gallery.draw(args.run, what, args.weights, args.images, args.size, args.count, args.out)


def run_seals(args, overrides) -> None:
    from jax_ssl import seals

    if args.record:
        seals.record(args.record, args.name)
    print(seals.refresh())


def run_plan(args, overrides) -> None:
    from jax_ssl import config, plan, published, seals
    from jax_ssl.plan import report

    if args.published:
        print(published.table(seals.read("plans.jsonl")))
        return
    if not args.config or not args.topology:
        raise UserError("plan needs --config and --topology, or --published alone.")
    load = lambda more: config.load(args.config, [*overrides, *more])
    spec, scalings = " ".join([args.config, *overrides]), tuple(args.scaling.split(","))
    names, remedy = args.topology.split(","), not args.no_remedy
    reports = plan.run(load, names, spec, args.slices, args.prices, scalings, remedy, args.quick)
    report.show(spec, reports, args.heaviest, args.out, args.plot)


def run_benchmark(args, overrides) -> None:
    from jax_ssl import benchmark, benchmark_input, config

    settings, spec = config.load(args.config, overrides), " ".join([args.config, *overrides])
    if args.what not in ("step", "input"):
        raise UserError(f"--what={args.what}: choose step or input.")
    if args.what == "input":
        benchmark_input.run(settings, 4 if args.steps is None else args.steps, args.out, spec)
    else:
        benchmark.run(settings, 30 if args.steps is None else args.steps, args.out, spec)


def run_ablate(args, overrides) -> None:
    from jax_ssl import ablate

    if args.list:
        print(ablate.listing())
    else:
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
    for stream in (sys.stdout, sys.stderr):
        if hasattr(stream, "reconfigure"):
            stream.reconfigure(errors="backslashreplace")  # a file's name may be no UTF-8
    args, rest = parser().parse_known_args(argv)
    unknown = [flag for flag in rest if not flag.startswith("--config.")]
    try:
        if unknown:
            raise UserError(f"{args.verb} has no flag {unknown[0]!r}: see `python -m jax_ssl {args.verb} --help`.")
        return VERBS[args.verb](args, rest) or 0
    except tuple(EXIT) as error:
        print(f"jax_ssl: {error}", file=sys.stderr)
        return EXIT[type(error)]
    except Exception as error:
        if not paths.bucket_trouble(error):
            raise
        print(f"jax_ssl: {paths.bucket_trouble(error)}", file=sys.stderr)
        return EXIT[LostError]


if __name__ == "__main__":
    sys.exit(main())
