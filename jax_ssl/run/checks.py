"""Finds mistakes in a config before anything is loaded or compiled.

`check` only needs the config. The bounds of keys that all runs share are here; a method, a model and the optimiser
check their own keys in their `make`, which is called here for that. `check_fit` also needs the number of images, and
uses `lengths` and `memories` of the Method.
"""

import math

import jax

from jax_ssl import bounds
from jax_ssl.data.pipeline import recipes
from jax_ssl.encoder import check_depth
from jax_ssl.errors import UserError
from jax_ssl.optim import optimizers
from jax_ssl.optim.schedules import Clock
from jax_ssl.parts import find_module, make_method, network_of, without_name
from jax_ssl.views.sizes import Size, sides, written

SEEDS = 2**32  # NumPy, which draws the images of the probe, takes seeds below this
STEPS = 2**31  # the state counts them in int32
NEVER = {  # {key: what happens if the run ends before it does}
    "optim.warmup_epochs": "the learning rate never reaches its peak",
    "optim.late_epochs": "the parameters of optim.late never move",
    "optim.milestones": "the last of them never comes",
    "method.warmup_teacher_epochs": "the teacher's temperature never reaches its final value",
    "method.freeze_steps": "the prototypes never move",
    "method.queue_from_epoch": "the queue is never used",
}


def check(config, devices: int) -> None:
    """Raises UserError for mistakes that can be seen before anything is loaded or compiled. devices: how many."""
    check_steps(config)
    if not isinstance(config.data.eval_size, int):
        raise UserError(
            f"data.eval_size={bounds.as_written(config.data.eval_size)}: a run trains and is probed on squares, so "
            f"give one side; evaluate, embed, find and visualize take --size={written(config.data.eval_size)}."
        )
    check_measuring(config)
    check_division(config, devices)
    for size in {recipe["size"] for group in recipes(config).values() for recipe in group}:
        check_size(config, size)
    clock = Clock(1.0, 1)  # any will do: `check_fit` checks the length of the run
    method = make_method(config, clock)
    check_pixels(config, method)
    optimizers.make(config.optim, config.batch_size, clock)
    groups = config.model.get("norm_groups", 1)
    if config.batch_size < method.min_batch * groups:
        each = f" in each of model.norm_groups={groups}" if groups > 1 else ""
        raise UserError(
            f"batch_size={config.batch_size} is too small for {config.method.name}, which compares images with each "
            f"other: take {method.min_batch} or more{each}."
        )


def check_steps(config) -> None:
    """Raises UserError for a number that is not finite, or a wrong count of steps, epochs, checkpoints or seconds."""
    bounds.finite(config)
    pick = lambda *keys: {key: config[key] for key in keys}
    bounds.bounded("", pick("epochs"), above=0, below=STEPS)
    bounds.whole("", pick("batch_size", "log_every", "checkpoint_every", "keep_last", "max_skipped"))
    bounds.whole("", pick("micro_batch", "probe_every", "picture_every", "keep_best"), at_least=0)
    bounds.whole("mesh.", dict(config.mesh))
    bounds.whole("hosts.", dict(init_timeout=config.hosts.init_timeout, heartbeat=config.hosts.heartbeat))
    bounds.whole("hosts.", dict(hang_seconds=config.hosts.hang_seconds), at_least=0)
    bounds.one_of("", pick("on_collapse"), ("warn", "stop"))


def check_measuring(config) -> None:
    """Raises UserError for wrong keys of reading images and measuring features; `evaluate` may change these too."""
    check_reading(config)
    check_depth(network_of(config), config.feature_depth)
    check_size(config, config.data.eval_size)


def check_reading(config) -> None:
    """The part of `check_measuring` that needs no network."""
    data = config.data
    bounds.bounded("", dict(seed=config.seed), at_least=0, below=SEEDS)
    bounds.whole("", dict(feature_depth=config.feature_depth), at_least=0)
    bounds.whole("data.", dict(eval_size=data.eval_size))
    bounds.whole("data.", dict(workers=data.workers, resident_size=data.resident_size), at_least=0)
    bounds.whole("data.probe.", dict(train=data.probe.train, test=data.probe.test), at_least=0)
    bounds.bounded("data.", dict(eval_crop=data.eval_crop), above=0, at_most=1)
    bounds.bounded("data.", dict(broken_limit=data.broken_limit), at_least=0, at_most=1)
    bounds.bounded("data.", dict(mean=data.mean))
    bounds.bounded("data.", dict(std=data.std), above=0)
    for key in ("mean", "std"):
        if len(data[key]) != 3:
            raise UserError(f"data.{key}={bounds.as_written(data[key])} must be three numbers: red, green, blue.")


def check_size(config, size: Size) -> None:
    """Raises UserError if the network can't take images of this size; a model of the user's own need not say."""
    network, model = network_of(config), find_module("models", config.model.name)
    for side in set(sides(size)):
        seen = network.side(side) if hasattr(network, "side") else side  # behind an input stage: of a tile, a patch
        if hasattr(model, "check"):
            model.check(seen, **without_name(config.model))


def check_pixels(config, method) -> None:
    """Raises UserError where a method counts on other pixels than the config makes."""
    for key, value in zip(("mean", "std"), method.pixels or ()):
        if tuple(config.data[key]) != (value,) * 3:
            low, high = -method.pixels[0] / method.pixels[1], (1 - method.pixels[0]) / method.pixels[1]
            raise UserError(
                f"{config.method.name} needs pixels from {low:g} to {high:g}: set data.{key}="
                f"{bounds.as_written((float(value),) * 3)}."
            )


def check_division(config, devices: int) -> None:
    """Raises UserError unless the batch can be divided over devices, pieces (micro_batch) and groups (norm_groups)."""
    batch, micro, fsdp = config.batch_size, config.micro_batch, config.mesh.fsdp
    if batch % devices:
        raise UserError(
            f"batch_size={batch} is not divisible by the {devices} devices: take {max(batch // devices, 1) * devices}."
        )
    groups = config.model.get("norm_groups", 1)
    bounds.whole("model.", dict(norm_groups=groups))
    if (micro or batch) % groups:
        raise UserError(f"model.norm_groups={groups} does not divide {micro or batch} images at a time.")
    if micro and (batch % micro or micro % devices):
        raise UserError(f"micro_batch={micro} must divide batch_size={batch} and fill {devices} devices.")
    if devices % fsdp:
        raise UserError(f"mesh.fsdp={fsdp} does not divide the {devices} devices.")


def check_fit(method, clock, config, images: int) -> list[str]:
    """Notes, one sentence each, on what does not fit the data set or the length of the run. Raises UserError.

    images: how many an epoch has. A note is about what may be wanted, in a first try of a few steps for example.
    """
    batch, epochs = config.batch_size, config.epochs
    if batch > images:
        unit = math.lcm(jax.device_count(), config.micro_batch or 1, config.model.get("norm_groups", 1))
        remedy = f"take {images // unit * unit}" if images >= unit else f"have at least {unit} images"
        meaning = "an image would be its own negative" if method.min_batch > 1 else "an image would come twice"
        raise UserError(f"batch_size={batch} is more than the {images:,} training images, {meaning}: {remedy}.")
    if round(epochs * clock.steps_per_epoch) < 1:
        least = 1 / clock.steps_per_epoch
        raise UserError(f"epochs={epochs} is less than a step of {batch} images: take epochs={least:.2g} or more.")
    if clock.total_steps >= STEPS:
        raise UserError(f"epochs={epochs} is {clock.total_steps:.2g} steps, more than can be counted: take fewer.")
    lengths = {**optimizers.lengths(config.optim, clock), **method.lengths}
    notes = [too_long(key, steps, clock, config) for key, steps in lengths.items() if steps >= clock.total_steps]
    for key, size in method.memories.items():
        if size > images:
            notes.append(f"{key}={size} remembers more than the {images:,} training images: some of them twice.")
        if size > clock.total_steps * batch:
            notes.append(f"{key}={size} is never full in {clock.total_steps:,} steps of {batch} images.")
    return notes


def too_long(key: str, steps: float, clock, config) -> str:
    """The note on a phase, such as a warm-up, that does not end before the run does."""
    section, name = key.rsplit(".", 1)
    value = config[section][name]
    length = "" if value == steps else f" is {math.ceil(steps):,}"
    meaning = NEVER.get(key, "it does not end")
    return f"{key}={bounds.as_written(value)}{length} steps, and the run has {clock.total_steps:,}: {meaning}."
