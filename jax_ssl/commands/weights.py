"""`weights`: released weights in and out: what is in a file, import, export, and where the official files are."""

from jax_ssl import paths
from jax_ssl.commands.command_line import at_least, refuse, refuse_flags
from jax_ssl.errors import UserError

HELP = "look into, import, export and fetch released weights"
WHAT = {  # the flags that each of them takes
    "inspect": ("as", "which", "heads"),
    "import": ("as", "which", "heads", "out"),
}


def add_flags(parser) -> None:
    parser.add_argument("what", choices=tuple(WHAT), metavar="WHAT", help=", ".join(WHAT))
    parser.add_argument("file", nargs="?", default="", metavar="FILE", help="a .pth, .ckpt, .safetensors or .npz file")
    parser.add_argument("--as", dest="as", help="the family, if the names of the tensors do not say it: mae, dino, "
                           "moco, simclr ...")  # fmt: skip
    parser.add_argument("--which", help="the network to take of several: student, teacher, or what `inspect` calls it")
    parser.add_argument("--heads", type=at_least(1), help="number of attention heads, where it is not the usual one")
    parser.add_argument("--out", help="import: a new folder")


def run(args, overrides) -> None:
    refuse(overrides, "weights")
    flags = sorted({flag for taken in WHAT.values() for flag in taken} - set(WHAT[args.what]))
    refuse_flags(args, tuple(flags), f"is not for `weights {args.what}`: leave it out")
    {"inspect": inspect, "import": import_file}[args.what](args)


def options(args) -> dict:
    """The keywords that say which network of a file is meant, and what it does not say itself."""
    return dict(which=args.which, heads=args.heads, family=getattr(args, "as"))


def name_file(args) -> str:
    if not args.file:
        raise UserError(f"Name the file: weights {args.what} FILE.")
    return args.file


def inspect(args) -> None:
    from jax_ssl.weights import report

    for line in report.inspect(name_file(args), **options(args)):
        print(line)


def import_file(args) -> None:
    from jax_ssl.weights import imported, report

    if not args.out:
        raise UserError("weights import needs --out=FOLDER for the imported network.")
    if paths.resolve(args.out).exists() and any(paths.resolve(args.out).iterdir()):
        raise UserError(f"--out={args.out} is not empty: name a new folder.")
    folder = paths.make_writable(args.out, "choose another --out")
    lines, network = report.take(name_file(args), **options(args))
    imported.write(folder, network, file=paths.resolve(args.file).name)
    print(*lines, *report.about(network), f"->  {folder}", sep="\n")
