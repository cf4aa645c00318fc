"""`evaluate`: numbers of a run's frozen or fine-tuned features."""

from jax_ssl.commands.command_line import at_least, refuse_flags

HELP = "measure a run's frozen or fine-tuned features"


def add_flags(parser) -> None:
    parser.add_argument("--run", required=True, help="a run's folder")
    parser.add_argument("--task", default="knn,linear", help="knn, linear, layers, pretext, finetune, emergence, or a "
                          "module of your own with a dot in its name; several with commas")  # fmt: skip
    parser.add_argument("--weights", default="all", help="pixels, untrained, student, teacher; several with commas")
    parser.add_argument("--labels", type=at_least(1), help="finetune: how many labelled images; default 1000, or all")
    parser.add_argument("--epochs", type=at_least(1), default=20, help="finetune: passes over them")
    parser.add_argument(
        "--images", help="emergence: a folder of objects cut out of their background, PNGs with alpha"
    )
    parser.add_argument(
        "--pool", choices=("max", "mean"), default="max", help="layers: how maps are pooled, as RotNet or as VISSL did"
    )
    parser.add_argument("--seed", type=at_least(0), help="of the probe; default the run's")


def run(args, overrides) -> None:
    from jax_ssl.run import devices

    devices.check_devices()
    from jax_ssl.study import evaluation  # which takes a second or two

    tasks, weights = args.task.split(","), args.weights.split(",")
    for task, flags in (("finetune", ("labels", "epochs")), ("emergence", ("images",)), ("layers", ("pool",))):
        if task not in tasks:
            refuse_flags(args, flags, f"belongs to --task={task}: add that task, or leave the flag out")
    options = dict(seed=args.seed, labels=args.labels, epochs=args.epochs, images=args.images, pool=args.pool)
    evaluation.evaluate(args.run, tasks, None if "all" in weights else weights, overrides=overrides, **options)
