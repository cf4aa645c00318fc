"""Compile a config's training step for a TPU pod that you don't have, with the TPU's own compiler: does it fit?

Memory and collectives are the compiler's; the bound on speed is arithmetic on them and on the chip's data sheet.
Nothing here was measured on a TPU.
"""

import importlib.metadata
from collections.abc import Callable
from datetime import date
from functools import partial

from jax_ssl.errors import UserError
from jax_ssl.plan import bound, remedies, topology
from jax_ssl.plan.compile import compile_for
from jax_ssl.run.checks import check

SCALINGS = ("strong", "weak")


def run(
    load: Callable,
    names: list[str],
    spec: str = "",
    slices: int = 1,
    prices: str = "",
    scalings: tuple[str, ...] = ("strong",),
    remedy: bool = True,
    quick: bool = False,
) -> list[dict]:
    """Plans a config for each topology: a report for each, and for each way to scale. `report` shows them.

    load: list of overrides -> config. names: topologies such as "v3:8x8" or "v3-128", each `slices` times. spec: what
    the user called the config. scalings: "strong", all topologies share the batch; "weak", it grows with the devices
    from the first topology on. remedy: where it doesn't fit, try what would help. quick: compiled in half the time
    or less, by a compiler that tries less hard; see `compile_for`.
    """
    wrong = set(scalings) - set(SCALINGS)
    if wrong:
        raise UserError(f"--scaling={min(wrong)}: choose of {', '.join(SCALINGS)}.")
    load = partial(as_plan, load)
    pods = [topology.parse(name, slices) for name in names]
    devices = {pod: topology.describe(pod) for pod in pods}
    table, base = bound.read_prices(prices), load([])
    versions = {package: importlib.metadata.version(package) for package in ("jax", "libtpu")}
    about = {"config": spec, "method": base.method.name, "date": date.today().isoformat(), "versions": versions}
    loads = {
        (scaling, pod): _scaled(load, base, len(devices[pod]), len(devices[pods[0]]), scaling)
        for scaling in scalings
        for pod in pods
    }
    for (_, pod), scaled in loads.items():
        check(scaled([]), len(devices[pod]))
    return [
        about | {"scaling": scaling} | one(scaled, pod, devices[pod], table, remedy, quick)
        for (scaling, pod), scaled in loads.items()
    ]


def as_plan(load: Callable, overrides: list[str]):
    """The config with these overrides; the tokenizer that BEiT reads from a run may be yet to be trained."""
    config = load(overrides)
    if config.method.name == "beit":
        with config.unlocked():
            config.method.planned = True
    return config


def _scaled(load: Callable, base, devices: int, first: int, scaling: str) -> Callable:
    """The loader of the config at this size of pod."""
    batch = base.batch_size * devices // first
    return (lambda more: load([f"--config.batch_size={batch}", *more])) if scaling == "weak" else load


def one(load: Callable, pod, devices: list, prices: dict, remedy: bool, quick: bool) -> dict:
    """The report for one pod, with the bound and the cost where the program fits, and what would help where not."""
    config, compiled = load([]), partial(compile_for, devices=devices, slices=pod.slices, quick=quick)
    made = {"topology": pod.name, "type": pod.type, "chips": pod.chips} | compiled(config)
    if made["fits"]:
        made["bound"] = bound.bound(made)
        made["host"] = bound.host(made, config)
        made["cost"] = bound.cost(made, pod.generation, prices)
    elif remedy:
        made["remedy"] = remedies.find(config, made, load, compiled)
    return made
