"""`weights`: released weights in and out: what is in a file, import, export, and where the official files are."""

from jax_ssl import paths
from jax_ssl.commands.command_line import at_least, image_size, refuse, refuse_flags
from jax_ssl.errors import UserError

FORMS = ("safetensors", "torch", "timm", "huggingface", "saved_model")
SUFFIXES = {"torch": ".pth", "safetensors": ".safetensors", "timm": ".safetensors"}  # the others are folders
HELP = "look into, import, export and fetch released weights"
WHAT = {  # the flags that each of them takes
    "inspect": ("as", "which", "heads", "size"),
    "import": ("as", "which", "heads", "size", "out"),
    "list": (),
    "get": ("from",),
    "export": ("as", "which", "heads", "out", "run", "weights", "to", "size"),
}


def add_flags(parser) -> None:
    parser.add_argument("what", choices=tuple(WHAT), metavar="WHAT", help=", ".join(WHAT))
    parser.add_argument("file", nargs="?", default="", metavar="FILE", help="a .pth, .ckpt, .safetensors or .npz file, "
                           "or the name of an official one; list: a part of names")  # fmt: skip
    parser.add_argument("--from", dest="from", help="get: a folder or gs:// with the file, in place of its own address")
    parser.add_argument("--as", dest="as", help="the family, if the names of the tensors do not say it: mae, dino, "
                           "moco, simclr ...")  # fmt: skip
    parser.add_argument("--which", help="the network to take of several: student, teacher, or what `inspect` calls it")
    parser.add_argument("--heads", type=at_least(1), help="number of attention heads, where it is not the usual one")
    parser.add_argument("--out", help="import: a new folder; export: a file, or a folder for Transformers and "
                           "TensorFlow")  # fmt: skip
    parser.add_argument("--run", help="export: a run's folder")
    parser.add_argument("--weights", help="export: a file, or a folder that was imported")
    parser.add_argument("--to", help=f"export: the names and the kind of file, {', '.join(FORMS)}")
    parser.add_argument("--size", type=image_size, help="HEIGHTxWIDTH of the images that a network was trained on, if "
                           "they are no squares; export --to=saved_model: size of its images")  # fmt: skip


def run(args, overrides) -> None:
    refuse(overrides, "weights")
    flags = sorted({flag for taken in WHAT.values() for flag in taken} - set(WHAT[args.what]))
    refuse_flags(args, tuple(flags), f"is not for `weights {args.what}`: leave it out")
    {"inspect": inspect, "import": import_file, "export": export, "list": list_files, "get": get}[args.what](args)


def options(args) -> dict:
    """The keywords that say which network of a file is meant, and what it does not say itself."""
    return dict(which=args.which, heads=args.heads, family=getattr(args, "as"))


def name_file(args) -> str:
    if not args.file:
        raise UserError(f"Name the file: weights {args.what} FILE.")
    return args.file


def inspect(args) -> None:
    from jax_ssl.weights import report

    for line in report.inspect(name_file(args), size=args.size, **options(args)):
        print(line)


def import_file(args) -> None:
    from jax_ssl.weights import imported, report

    if not args.out:
        raise UserError("weights import needs --out=FOLDER for the imported network.")
    folder = new_folder(args.out)
    lines, network = report.take(name_file(args), size=args.size, **options(args))
    imported.write(folder, network, file=paths.resolve(args.file).name)
    print(*lines, *report.about(network), f"->  {folder}", sep="\n")


def new_folder(out: str):
    """The folder of --out, made. Raises UserError if there is something in it, or if it can't be written to."""
    if paths.resolve(out).exists() and any(paths.resolve(out).iterdir()):
        raise UserError(f"--out={out} is not empty: name a new folder.")
    return paths.make_writable(out, "choose another --out")


def export(args) -> None:
    from jax_ssl.weights import export as out

    check_export(args)
    if args.run is not None:
        network = out.of_run(args.run, args.which)
    else:
        network = out.open_network(args.weights, **options(args))
    if args.to == "saved_model":
        from jax_ssl.weights import saved_model

        about = saved_model.write(network, new_folder(args.out), args.size)
    else:
        about = out.export(network, args.to, args.out)
    print(*about, f"->  {paths.resolve(args.out)}", sep="\n")


def check_export(args) -> None:
    """Raises UserError for flags that do not go together, before anything is read."""
    from jax_ssl.run import outputs

    if args.to == "onnx":
        raise UserError("No kept converter takes a JAX network to ONNX: export --to=timm or --to=huggingface, and take "
                        "torch.onnx from there.")  # fmt: skip
    if (args.run is None) == (args.weights is None) or args.file:
        raise UserError("weights export needs one of --run=FOLDER and --weights=FILE.")
    if args.to not in FORMS or not args.out:
        raise UserError(f"weights export needs --to, one of {', '.join(FORMS)}, and --out=PATH.")
    if args.run is not None:
        refuse_flags(args, ("as", "heads"), "is for a file: the config of a run says it")
    if args.to != "saved_model":
        refuse_flags(args, ("size",), "is for --to=saved_model: other forms take images of many sizes")
    if args.to in SUFFIXES:
        if not args.out.endswith(SUFFIXES[args.to]):
            raise UserError(f"--out={args.out} must end in {SUFFIXES[args.to]} for --to={args.to}.")
        outputs.check_file("--out", args.out)


def list_files(args) -> None:
    from jax_ssl.weights import zoo

    print(*zoo.lines(args.file), sep="\n")


def get(args) -> None:
    from jax_ssl.weights import zoo

    print(f"->  {zoo.get(name_file(args), getattr(args, 'from'))}")
