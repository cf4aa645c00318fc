"""`report`: one HTML page that shows whether a run learned, and what its network sees; or a page over several runs."""

from jax_ssl.commands.command_line import refuse
from jax_ssl.errors import UserError

HELP = "one HTML page that shows whether a run learned, and what its network sees"
TOGETHER = "compare.html"


def add_flags(parser) -> None:
    parser.add_argument("--run", help="a run's folder")
    parser.add_argument("--compare", nargs="+", metavar="RUN", help="the folders of two runs or more, on one page")
    parser.add_argument("--out", default="", help=f"an HTML file; default RUN/report.html, or {TOGETHER}")


def run(args, overrides) -> None:
    from jax_ssl.run import devices, outputs
    from jax_ssl.study.report import compare, page

    refuse(overrides, "report")
    if (args.run is None) == (args.compare is None):
        raise UserError("Give report one run, --run=FOLDER, or several, --compare FOLDER FOLDER.")
    devices.check_devices()
    out = outputs.check_file("--out", args.out or (TOGETHER if args.compare else ""))
    path = compare.write(args.compare, out) if args.compare else page.write(args.run, out)
    print(f"the page is {path}")
