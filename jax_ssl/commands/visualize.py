"""`visualize`: pictures of what frozen features see."""

from jax_ssl import paths
from jax_ssl.commands.command_line import at_least, image_size, refuse, refuse_flags
from jax_ssl.errors import UserError

HELP = "pictures of what frozen features see in a few images"


def add_flags(parser) -> None:
    parser.add_argument("--run", help="a run's folder")
    parser.add_argument("--what", default="", help="several with commas; default what fits the run: "
                           "views, attention, pca, correspondences, reconstruction, shown")  # fmt: skip
    parser.add_argument("--beside", default="", help="more runs of the same method, with commas: what all show, on one "
                           "page")  # fmt: skip
    parser.add_argument("--weights", default="student", help="student, teacher, untrained; or a file, without --run")
    parser.add_argument("--images", help="a folder; default the run's held-out images")
    parser.add_argument("--size", type=image_size, help="their side in pixels, or HEIGHTxWIDTH; default the run's")
    parser.add_argument("--count", type=at_least(1), default=8, help="how many images, default 8")
    parser.add_argument("--out", help="a folder; default RUN/pictures")


def run(args, overrides) -> None:
    from jax_ssl.run import devices

    devices.check_devices()
    from jax_ssl.study import gallery  # which takes a second or two

    beside = tuple(filter(None, args.beside.split(",")))
    if beside:
        if args.run is None:
            raise UserError("--beside names more runs: give the first one as --run.")
        refuse_flags(args, ("what", "weights"), "is not for --beside, which draws what runs show: leave it out")
    what = args.what.split(",") if args.what else ()
    if args.run is None:
        refuse(overrides, "visualize without --run")
    if args.out:
        paths.make_writable(args.out, "choose another --out")  # before anything is loaded
    options = dict(overrides=overrides, beside=beside)
    gallery.draw(args.run, what, args.weights, args.images, args.size, args.count, args.out, **options)
