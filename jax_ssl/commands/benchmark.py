"""`benchmark`: how fast a config trains on this machine, and how fast its images are prepared."""

import json

from jax_ssl import paths
from jax_ssl.errors import UserError

HELP = "how fast a config trains on this machine"


def add_flags(parser) -> None:
    parser.add_argument("--config", required=True, help="a config file and preset")
    parser.add_argument("--what", default="step", help="step (default), or input: what the host can prepare")
    parser.add_argument("--steps", type=int, help="how many are measured; default 30 steps, or 4 batches for input")
    parser.add_argument("--out", default="", help="a file to which one line of JSON is added")


def run(args, overrides) -> None:
    from jax_ssl import config
    from jax_ssl.benchmark import input, step
    from jax_ssl.run import devices, outputs

    settings, spec = config.load(args.config, overrides), " ".join([args.config, *overrides])
    if args.what not in ("step", "input"):
        raise UserError(f"--what={args.what}: choose step or input.")
    out = outputs.check_file("--out", args.out)
    if args.what == "input":
        result = input.run(settings, 4 if args.steps is None else args.steps, spec)
    else:
        devices.check_devices()
        result = step.run(settings, 30 if args.steps is None else args.steps, spec)
    if out:
        paths.append(out, json.dumps(result) + "\n")
