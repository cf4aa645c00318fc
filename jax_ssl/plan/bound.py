"""The least time of a step that the chip's data sheet allows, and what a run at that speed would ask and cost.

A bound, not a prediction: each part at its peak, all three at the same time. A real step is slower; how much, see the
published runs in `published.json`.
"""

import json
import math
from pathlib import Path

from jax_ssl import paths
from jax_ssl.errors import UserError
from jax_ssl.plan.chips import CHIPS, DATA_CENTRE
from jax_ssl.plan.compile import SETS, axes

PRICES = Path(__file__).with_name("prices.json")
# Core-seconds that a JPEG of ImageNet's size takes on the host, by `benchmark --what=input` for SimCLR and DINO on
# two cores: decoding, and per pixel of a view cropping it (`hybrid`) and all that follows (`host`).
DECODE, CROP, AUGMENT = 1.2e-3, 45e-9, 100e-9


def bound(report: dict) -> dict[str, float]:
    """Seconds of a step by part, the largest, and what follows. report: of `compile_for`, with a program that fits."""
    chip, devices = CHIPS[report["device_kind"]], report["devices"]
    seconds = {
        "compute": report["flops"] / devices / chip.peak,
        "memory": report["bytes"] / chip.bandwidth,
        "interconnect": 0.0,
        "data centre": 0.0,
    }
    sizes = axes(report["fsdp"], devices, report["slices"])
    for name, entry in report["collectives"].items():
        kind, _, over = name.partition(" over ")
        if over == "slices":  # all devices of a host share its network card
            leaving = sent(kind, entry["bytes"], report["slices"]) * chip.devices * chip.chips
            seconds["data centre"] += leaving / DATA_CENTRE
        else:
            members = math.prod(sizes[axis] for axis in over.split("+") if axis in sizes)
            seconds["interconnect"] += sent(kind, entry["bytes"], members) / chip.interconnect
    step, chips = max(seconds.values()), devices / chip.devices
    return {
        "seconds": seconds,
        "step_seconds": step,
        "by": max(seconds, key=seconds.get),
        "images_per_second_per_chip": report["batch_size"] / step / chips,
        "utilisation": seconds["compute"] / step,
    }


def sent(kind: str, size: float, members: int) -> float:
    """Bytes that a device has to send at least, in a group of `members`, for a result of `size` bytes."""
    others = (members - 1) / members
    return {
        "all-reduce": 2 * size * others,
        "reduce-scatter": size * (members - 1),  # its result is one part of what went in
        "collective-permute": size * (members > 1),
        "collective-broadcast": size * others / members,
    }.get(kind, size * others)  # all-gather and all-to-all


def host(report: dict, config) -> dict[str, float]:
    """What each host has to feed at the bound: images a second, and how many of its cores that takes by mode."""
    chip = CHIPS[report["device_kind"]]
    chips = report["devices"] / chip.devices
    hosts = max(1.0, chips / chip.chips)
    rate = report["batch_size"] / report["bound"]["step_seconds"] / hosts
    recipes = [recipe for group in config.data.crops.values() for recipe in group]
    pixels = sum(recipe["size"] ** 2 * recipe["count"] for recipe in recipes)
    in_memory = SETS.get(config.data.name, (0, None))[1]  # small images of one size, which nobody has to decode
    hybrid = CROP * pixels + (0.0 if in_memory else DECODE)
    return {
        "hosts": round(hosts),
        "images_per_second": rate,
        "cores": round(chip.cores * min(chips, chip.chips)),
        "cores_host": rate * (hybrid + AUGMENT * pixels),
        "cores_hybrid": rate * hybrid,
        "cores_device": 0.0,  # the images are in device memory
    }


def cost(report: dict, generation: str, prices: dict) -> dict[str, float | None]:
    """The whole run at the bound: hours, chip-hours, money at list price; None without a price."""
    chip = CHIPS[report["device_kind"]]
    hours = report["total_steps"] * report["bound"]["step_seconds"] / 3600
    chip_hours = hours * report["devices"] / chip.devices
    price = prices["per_chip_hour"].get(generation)
    return {"hours": hours, "chip_hours": chip_hours, "money": None if price is None else price * chip_hours}


def read_prices(path: str = "") -> dict:
    """{"date", "currency", "source", "per_chip_hour": {"v5e": 1.2}}. Raises UserError for a file of another form."""
    file = paths.resolve(path) if path else PRICES
    try:
        prices = json.loads(file.read_text())
        return {key: prices[key] for key in ("date", "currency", "per_chip_hour")}
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise UserError(
            f"{file} is no price table ({error!r}): write JSON as in jax_ssl/plan/prices.json, with date, currency and "
            'per_chip_hour such as {"v5e": 1.2}.'
        ) from None
