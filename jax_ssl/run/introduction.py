"""The first lines of a run: what it is going to do, so that mistakes are seen early. At most twelve lines, aligned."""

import math

import jax

from jax_ssl import paths
from jax_ssl.optim import optimizers
from jax_ssl.run import devices

LONGEST = 12  # lines


def introduction(config, workdir, source, splits, why: str, state, clock, method, first: int, notes) -> list[str]:
    """The lines. why: the reason why nothing is measured, if `splits` is None. notes: warnings, one sentence each.

    first: the step from which the run goes on, 0 for a new run.
    """
    facts = {
        "method": _method(config, state, method),
        "data": source.about or f"{source.name}: {source.count:,} images",
        "measured": _measured(config, splits, why),
        "length": _length(config, clock, method, first),
        "optimiser": _optimiser(config, clock),
        "devices": _devices(config),
        "writes": f"{paths.resolve(workdir)}: a checkpoint every {config.checkpoint_every:,} steps",
    }
    lines = [f"{name:<10} {fact}" for name, fact in facts.items()]
    notes = [*notes, *filter(None, [splits and splits.note, devices.idle_accelerator()])]
    shown = notes if len(lines) + len(notes) <= LONGEST else [*notes[: LONGEST - len(lines) - 1], " ".join(
        notes[LONGEST - len(lines) - 1 :])]  # fmt: skip
    return lines + [f"{'note':<10} {note}" for note in shown]


def _method(config, state, method) -> str:
    millions = lambda tree: f"{sum(x.size for x in jax.tree.leaves(tree)) / 1e6:.2f} M"
    teacher = f", and a teacher of {', '.join(method.teacher)}" if method.teacher else ""
    return (
        f"{config.method.name} trains {_network(config.model)}: {millions(state.params['backbone'])} parameters, "
        f"{millions(state.params)} with its heads{teacher}"
    )


def _network(model) -> str:
    size = [f"{key} {model[key]}" for key in ("depth", "width", "patch") if key in model]
    return f"{model.name} ({', '.join([*size, *([model.dtype] if 'dtype' in model else [])])})"


def _measured(config, splits, why: str) -> str:
    if splits is None:
        return f"nothing while it trains: {why}"
    when = f"every {config.probe_every:,} steps" if config.probe_every else "never (probe_every=0)"
    other = f"; {splits.about}" if config.data.probe.name else ""
    return (
        f"kNN and linear probe {when}, on {len(splits.train):,} labelled images to learn from and "
        f"{len(splits.test):,} to test on{other}"
    )


def _length(config, clock, method, first: int) -> str:
    parts = [f"{config.epochs:g} epochs are {clock.total_steps:,} steps of {config.batch_size:,} images"]
    parts += [f"{key} {math.ceil(steps):,} steps" for key, steps in method.lengths.items() if steps]
    if first >= clock.total_steps:
        return (
            f"this run is finished: step {first:,} of {clock.total_steps:,}, {config.epochs:g} epochs; to train on, "
            "repeat the command with a larger --config.epochs and --extend"
        )
    return ", ".join(parts) + (f"; going on from step {first:,}" if first else "")


def _optimiser(config, clock) -> str:
    o = config.optim
    warmup = math.ceil(o.warmup_epochs * clock.steps_per_epoch)
    after = f" after {warmup:,} step{'s' * (warmup > 1)} of warm-up" if warmup else ""
    return (
        f"{o.name}, peak learning rate {optimizers.peak_lr(o.base_lr, config.batch_size, o.scaling):.3g}{after}, then "
        f"{o.schedule}; weight decay {o.weight_decay:g}"
    )


def _devices(config) -> str:
    count = jax.device_count()
    of = f" of {jax.process_count()} processes" if jax.process_count() > 1 else ""
    split = f", parameters split in {config.mesh.fsdp}" if config.mesh.fsdp > 1 else ""
    return f"{count} {jax.devices()[0].device_kind} device{'s' * (count > 1)}{of}{split}"


def describe_extension(config, epochs: float, clock, step: int) -> str:
    """A sentence on what a longer run means for the learning rate. epochs: of the run until now."""
    before = clock._replace(total_steps=max(1, round(epochs * clock.steps_per_epoch)))
    was, now = (float(optimizers.learning_rate(config.optim, config.batch_size, c)(step)) for c in (before, clock))
    return (
        f"extended from {epochs:g} to {config.epochs:g} epochs, {before.total_steps:,} to {clock.total_steps:,} steps: "
        f"schedules are now those of the longer run, and the learning rate goes from {was:.3g} to {now:.3g} here"
    )
