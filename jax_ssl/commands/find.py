"""`find`: the images of a folder that are nearest to an image, or nearly the same as each other."""

from jax_ssl.commands.command_line import at_least, refuse, refuse_flags
from jax_ssl.commands.embed import add_network_flags
from jax_ssl.errors import UserError

HELP = "the images of a folder that are nearest to an image, or its near-duplicates"


def add_flags(parser) -> None:
    add_network_flags(parser)
    parser.add_argument("--query", help="an image file: what is nearest to it?")
    parser.add_argument("--count", type=at_least(1), default=8, help="how many images, default 8")
    parser.add_argument(
        "--duplicates", action="store_true", help="instead of --query: which images are nearly the same?"
    )
    parser.add_argument("--least", type=float, default=0.95, help="cosine of near-duplicates, default 0.95")
    parser.add_argument("--out", default="found.png", help="the picture, default found.png")


def run(args, overrides) -> None:
    from jax_ssl.run import devices, outputs
    from jax_ssl.study.embed import find, images

    refuse(overrides, "find")
    if (args.query is None) != args.duplicates:
        raise UserError("Say what to find: --query=IMAGE, or --duplicates.")
    if args.duplicates:
        refuse_flags(args, ("count",), "belongs to --query: leave it out")
    else:
        refuse_flags(args, ("least",), "belongs to --duplicates: leave it out")
    if not -1 <= args.least <= 1:
        raise UserError(f"--least={args.least}: a cosine is between -1 and 1.")
    outputs.check_file("--out", args.out)
    devices.check_devices()
    network = images.open_network(args.run, args.weights, args.which, args.size)
    query = find.read_query(network, args.query) if args.query else None  # before all features are made
    folder = images.open_folder(network, args.images)
    if args.query:
        numbers, cosines = find.nearest(network, folder, query, args.count)
        for number, cosine in zip(numbers, cosines):
            print(f"{cosine:6.3f}  {folder.files[number]}")
        found = list(folder.images[numbers])
        rows = [[query], *(found[start : start + find.IN_A_ROW] for start in range(0, len(found), find.IN_A_ROW))]
    else:
        groups = find.duplicates(folder, args.least)
        for group in groups:
            print("\n".join(folder.files[number] for number in group) + "\n")
        print(
            f"{len(groups):,} groups of near-duplicates among {len(folder.files):,} images, cosine {args.least} or more"
        )
        if not groups:
            return
        rows = [list(folder.images[group[: find.IN_A_ROW]]) for group in groups[: find.DRAWN]]
    print(f"drawn in {find.draw(rows, args.out)}")
