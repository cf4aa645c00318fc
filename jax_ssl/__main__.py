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
    plan.add_argument("--config", required=True, help="a config file and preset")
    plan.add_argument("--topology", required=True, help="one or several: v3:8x8,v5e:16x16")
    plan.add_argument("--out", default="", help="a JSON file for the reports")

    benchmark = verbs.add_parser("benchmark", help="how fast a config trains on this machine")
    benchmark.add_argument("--config", required=True, help="a config file and preset")
    benchmark.add_argument("--steps", type=int, default=30, help="how many are measured, default 30")
    benchmark.add_argument("--out", default="", help="a file that gets one more line of JSON")

    ablate = verbs.add_parser("ablate", help="small runs that change one thing at a time, with a table and a plot")
    ablate.add_argument("--suite", default="", help="a name of configs/ablations.py")
    ablate.add_argument("--workdir", default="runs/ablations", help="a folder for all suites; default runs/ablations")
    ablate.add_argument("--seeds", default="0", help="each cell runs once with each: 0,1")
    ablate.add_argument("--list", action="store_true", help="the suites, their claims and cells; runs nothing")
    return top


def run_train(args, overrides) -> None:
    from jax_ssl import config, measure
    from jax_ssl.train import train

    settings = config.load(args.config, overrides)
    path, preset = config.find(args.config)
    workdir = args.workdir or f"runs/{path.stem}{'_' + preset if preset else ''}"
    finished = train(settings, workdir)
    if finished and settings.evaluate_at_end and not measure.results(workdir):
        measure.frozen(workdir)
        print(f"\ncurves and pictures in {workdir}/pictures, numbers in {workdir}/results.jsonl")


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
    from jax_ssl import config, plan

    settings = config.load(args.config, overrides)
    plan.run(settings, args.topology.split(","), args.out, " ".join([args.config, *overrides]))


def run_benchmark(args, overrides) -> None:
    from jax_ssl import benchmark, config

    settings = config.load(args.config, overrides)
    benchmark.run(settings, args.steps, args.out, " ".join([args.config, *overrides]))


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
    args, rest = parser().parse_known_args(argv)
    unknown = [flag for flag in rest if not flag.startswith("--config.")]
    try:
        if unknown:
            raise UserError(f"{args.verb} has no flag {unknown[0]!r}: see `python -m jax_ssl {args.verb} --help`.")
        VERBS[args.verb](args, rest)
    except tuple(EXIT) as error:
        print(f"jax_ssl: {error}", file=sys.stderr)
        return EXIT[type(error)]
    return 0


if __name__ == "__main__":
    sys.exit(main())
