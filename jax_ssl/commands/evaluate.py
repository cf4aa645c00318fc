"""`evaluate`: numbers of the frozen or fine-tuned features of a run, or of a file of weights."""

from jax_ssl import bounds, paths
from jax_ssl.commands.command_line import at_least, image_size, refuse_flags
from jax_ssl.errors import UserError

HELP = "measure the frozen or fine-tuned features of a run or of a file of weights"
NAMES = ("all", "pixels", "untrained", "student", "teacher")


def add_flags(parser) -> None:
    parser.add_argument("--run", help="a run's folder")
    parser.add_argument(
        "--weights", help="without --run: a file of weights, or a name of `weights list`; with --run: as --which"
    )
    parser.add_argument(
        "--which", help="pixels, untrained, student, teacher; with commas, default all; of a file with two networks, "
        "student or teacher chooses one",
    )  # fmt: skip
    parser.add_argument(
        "--task", default="knn,linear", help="knn, linear, layers, pretext, finetune, emergence, or a file of "
        "jax_ssl/evaluate such as fewshot or logreg, or your own module with a dot in its name; with commas",
    )  # fmt: skip
    parser.add_argument("--data", help="embedded, tfds:NAME, folder:PATH or arrays:FILE, all of its images; default "
                          "those of the run, or the embedded ones for a file")  # fmt: skip
    parser.add_argument("--out", help="a folder for results.jsonl and features; default the run's, or results/FILE")
    parser.add_argument(
        "--size", type=image_size, help="side of the images in pixels, or HEIGHTxWIDTH; default that of the weights"
    )
    parser.add_argument(
        "--feature_depth", type=at_least(0), help="take the output of this block, stage or layer; 0 = the last"
    )
    parser.add_argument("--labels", type=at_least(1), help="finetune: how many labelled images; default 1000, or all")
    parser.add_argument("--epochs", type=at_least(1), default=20, help="finetune: passes over them")
    parser.add_argument("--images", help="emergence: a folder of objects cut out of their background, PNGs with alpha")
    parser.add_argument(
        "--pool", choices=("max", "mean"), default="max", help="layers: how maps are pooled, as RotNet or as VISSL did"
    )
    parser.add_argument("--seed", type=at_least(0), help="of the probe; default the run's, or 0")


def run(args, overrides) -> None:
    from jax_ssl.run import devices, results

    devices.check_devices()
    from jax_ssl.study import evaluation  # which takes a second or two

    tasks = args.task.split(",")
    for task, flags in (("finetune", ("labels", "epochs")), ("emergence", ("images",)), ("layers", ("pool",))):
        if task not in tasks:
            refuse_flags(args, flags, f"belongs to --task={task}: add that task, or leave the flag out")
    file, which = what_is_measured(args)
    out = args.out or (results.folder_of(file) if file else None)
    if out:
        paths.make_writable(out, "choose another --out")  # before anything is loaded
    options = dict(seed=args.seed, labels=args.labels, epochs=args.epochs, images=args.images, pool=args.pool)
    overrides = [*as_overrides(args), *overrides]
    evaluation.evaluate(tasks, args.run, file, which, out, overrides=overrides, **options)


def what_is_measured(args) -> tuple[str | None, list[str] | None]:
    """(the file of weights or None, the names of the networks or None for all), by --run, --weights and --which."""
    names = set((args.weights or "all").split(",")) <= set(NAMES)
    if args.run and args.weights and not names and paths.resolve(args.weights).exists():
        raise UserError(f"--run={args.run} and --weights={args.weights} are two networks: give one of them.")
    if args.run is None and (args.weights is None or names):
        raise UserError("Say what to measure: --run=FOLDER of a run, or --weights=FILE alone.")
    if args.run and args.weights and args.which:
        raise UserError("--which and --weights say the same of a run: leave --weights out.")
    chosen = (args.which or (args.weights if args.run else None) or "all").split(",")
    return None if args.run else args.weights, None if "all" in chosen else chosen


def as_overrides(args) -> list[str]:
    """--data, --size and --feature_depth as overrides of the config. Of a set that is named here all images count."""
    found = []
    if args.data:
        found += [f"--config.data.probe.name={args.data}", "--config.data.probe.train=0", "--config.data.probe.test=0"]
    if args.size:
        found.append(f"--config.data.eval_size={bounds.as_written(args.size)}")
    if args.feature_depth is not None:
        found.append(f"--config.feature_depth={args.feature_depth}")
    return found
