"""Makes a run last a number of seconds: its speed is measured first, because schedules have to know its length.

What was measured is kept in the run's folder as budget.json, so that an interrupted run goes on with the same length.
Seconds are those of training steps: compiling, saving and measuring do not count.
"""

import json

from etils import epath

from jax_ssl import config, paths
from jax_ssl.benchmark import step
from jax_ssl.errors import UserError

STEPS = 12  # that are timed


def read(folder: epath.Path, seconds: float) -> dict | None:
    """The budget of the run in that folder, None for a new one. Raises UserError if it has other seconds."""
    file = folder / "budget.json"
    if not file.exists():
        return None
    found = json.loads(file.read_text())
    if found["seconds"] != seconds:
        raise UserError(
            f"{folder} holds a run of {found['seconds']:g} seconds: choose another --workdir, or give "
            f"--seconds={found['seconds']:g}."
        )
    return found


def measure(settings, seconds: float, folder: epath.Path) -> dict:
    """Times a few steps of that config here, and writes how many fit into `seconds` to budget.json; returns that.

    {seconds, step_ms, steps, epochs, flops of a step, device_kind}.
    """
    speed = step.measure(settings, STEPS)
    steps = max(1, round(1000 * seconds / speed["step_ms"]))
    found = {key: speed[key] for key in ("step_ms", "flops", "device_kind")}
    found |= {"seconds": seconds, "steps": steps, "epochs": steps * settings.batch_size / speed["examples"]}
    paths.write(folder / "budget.json", json.dumps(found, indent=1) + "\n")
    return found


def keys_in_epochs(settings) -> list[str]:
    """The keys of optimiser and method that are counted in epochs, by their names."""
    counts = lambda name: "epoch" in name or name == "milestones"
    return [f"{section}.{name}" for section in ("optim", "method") for name in settings[section] if counts(name)]


def flags_of_length(settings, found: dict, probes: int = 0) -> list[str]:
    """The overrides that give a config the length of a budget; what it counts in epochs keeps its share of the run.

    probes: so many kNN and linear probes in the run, 0 = those of the config.
    """
    factor = found["epochs"] / settings.epochs
    flags = [f"--config.epochs={found['epochs']!r}"]
    for key in keys_in_epochs(settings):
        section, name = key.split(".")
        value = settings[section][name]
        longer = tuple(factor * each for each in value) if isinstance(value, tuple) else factor * value
        flags.append(f"--config.{key}={longer!r}")
    if probes:
        flags.append(f"--config.probe_every={max(1, found['steps'] // probes)}")
    return flags


def limited(flags: list[str], found: dict, probes: int = 0):
    """The config of `flags` (its name first, as `train` takes them) with the length of a budget."""
    spec, *rest = flags
    spec = spec.removeprefix("--config=")
    return config.load(spec, [*rest, *flags_of_length(config.load(spec, rest), found, probes)])
