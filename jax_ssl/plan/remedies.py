"""What would make a config fit a pod that it does not fit, found by compiling it that way."""

from collections.abc import Callable, Iterator

from jax_ssl.errors import UserError

# A state of more than this part of the memory is what has to become smaller; below it, activations are.
STATE_SHARE = 0.4


def candidates(config, report: dict) -> Iterator[list[str]]:
    """Overrides worth a try, the least costly first; each adds to none of the others, the last tries all together."""
    devices, images = report["devices"], config.batch_size // report["devices"]
    remat = ["--config.model.remat=full"] if config.model.get("remat") in ("none", "dots") else []
    ways = [n for n in (8, devices // report["slices"]) if config.mesh.fsdp < n <= devices and devices % n == 0]
    split = [[f"--config.mesh.fsdp={n}"] for n in dict.fromkeys(ways)]
    pieces = [[f"--config.micro_batch={devices * n}"] for n in _pieces(images)] if config.micro_batch == 0 else []
    state = sum(report["state"].values()) > STATE_SHARE * report["memory"]["usable"]
    activations = ([remat] if remat else []) + pieces
    ordered = split + activations if state else activations + split
    yield from ordered
    if remat and split:
        yield [*split[-1], *remat]
    if pieces and split:
        yield [*split[-1], *remat, *pieces[-1]]


def _pieces(images: int) -> list[int]:
    """A quarter and a sixteenth of a device's images."""
    return [images // part for part in (4, 16) if images >= part and images % part == 0]


def find(config, report: dict, load: Callable, compile_one: Callable, say: Callable = print) -> dict | None:
    """The first candidate that fits: {"overrides", "memory"}; None if none does.

    load: overrides -> config; compile_one: config -> report. Each try is a compilation, and is told.
    """
    for overrides in candidates(config, report):
        flags = " ".join(overrides)
        try:
            tried = compile_one(load(overrides))
        except UserError as error:  # such as a method that takes no micro-batch
            say(f"{report['topology']}: {flags}: {error}")
            continue
        say(f"{report['topology']}: {flags}: {'fits' if tried['fits'] else 'does not fit'}")
        if tried["fits"]:
            return {"overrides": overrides, "memory": tried["memory"]}
    return None
