"""`embed`: the features of all images of a folder, as a file for other programs."""

from jax_ssl.commands.command_line import at_least, refuse

HELP = "the features of all images of a folder, as a file for other programs"


def add_network_flags(parser) -> None:
    """The flags that name a network and a folder of images, of `embed` and `find`."""
    parser.add_argument("--run", help="a run's folder")
    parser.add_argument("--weights", help="a file of weights, instead of --run")
    parser.add_argument("--which", choices=("student", "teacher"), help="of a run or a file that has both")
    parser.add_argument("--images", required=True, help="a folder; all images below it")
    parser.add_argument("--size", type=at_least(1), help="side of the images in pixels; default that of the weights")


def add_flags(parser) -> None:
    add_network_flags(parser)
    parser.add_argument("--out", required=True, help="FILE.npz, FILE.parquet, or a folder for TensorBoard's projector")


def run(args, overrides) -> None:
    from jax_ssl.run import devices
    from jax_ssl.study.embed import formats, images, make

    refuse(overrides, "embed")
    formats.format_of(args.out)
    make.local(args.out)
    devices.check_devices()
    network = images.open_network(args.run, args.weights, args.which, args.size)
    print(f"features in {make.embed(network, args.images, args.out)}")
