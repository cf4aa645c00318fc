"""Functions of the step: learning rates, weight decay, temperatures and EMA momenta, from epochs and a Clock."""

from typing import NamedTuple

import jax.numpy as jnp
import numpy as np


class Clock(NamedTuple):
    """How long the run is. Built once, from the number of images and the batch size."""

    steps_per_epoch: float
    total_steps: int


def _warm_up(peak, schedule, clock, epochs, first=0.0):
    """Linear from `first` over the first `epochs`, which may be fractional, and `schedule` from then on."""
    steps = epochs * clock.steps_per_epoch if epochs else 0.0
    return lambda step: jnp.where(step < steps, first + (peak - first) * step / max(steps, 1.0), schedule(step))


def constant(value, clock=None, warmup_epochs=0.0, first=0.0):
    """Always `value`, after a linear warm-up from `first`."""
    return _warm_up(value, lambda step: jnp.float32(value), clock, warmup_epochs, first)


def cosine(start, end, clock, warmup_epochs=0.0, first=0.0):
    """From `start` to `end` along half a cosine that spans what is left after a linear warm-up from `first`."""
    warmup = warmup_epochs * clock.steps_per_epoch

    def schedule(step):
        fraction = jnp.clip((step - warmup) / max(clock.total_steps - warmup, 1.0), 0.0, 1.0)
        return end + (start - end) * (1 + jnp.cos(jnp.pi * fraction)) / 2

    return _warm_up(start, schedule, clock, warmup_epochs, first)


def linear(start, end, clock, stretch=1.0):
    """From `start` straight to `end`. A `stretch` above one ends the run on the way (V-JEPA's EMA: 1.25)."""
    return lambda step: start + (end - start) * jnp.clip(step / (stretch * clock.total_steps), 0.0, 1.0)


def teacher_momentum(start, clock):
    """From `start` to 1 along a cosine (BYOL, MoCo v3, DINO); 0 stays 0, a teacher that is the student."""
    return cosine(start, 1.0, clock) if start else constant(0.0)


def step(start, milestones, clock, warmup_epochs=0.0, first=0.0, factor=0.1):
    """`start`, times `factor` at every milestone, in epochs of the whole run, after a linear warm-up from `first`."""
    at = np.array([epoch * clock.steps_per_epoch for epoch in milestones], np.float32)
    return _warm_up(start, lambda step: start * factor ** jnp.sum(step >= at), clock, warmup_epochs, first)


def epoch_ramp(first, last, epochs, clock):
    """From `first` in epoch 0 to `last` in the last of `epochs`, in one step an epoch, then `last` (DINO, iBOT)."""

    def schedule(step):
        epoch = jnp.floor(step / clock.steps_per_epoch)
        return jnp.where(epoch < epochs, first + (last - first) * epoch / max(epochs - 1, 1.0), last)

    return schedule
