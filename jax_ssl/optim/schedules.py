"""Schedules, functions of the step: learning rates, weight decay, temperatures and EMA momenta.

Arguments are in epochs, which may be fractional; a Clock has the steps of an epoch. Values are float32 scalars.
"""

from typing import NamedTuple

import jax.numpy as jnp
import numpy as np


class Clock(NamedTuple):
    """The length of a run, from its number of images, its batch size and its epochs."""

    steps_per_epoch: float
    total_steps: int


def _warm_up(peak, schedule, clock, epochs, first=0.0):
    """Linear from `first` to `peak` in the first `epochs`, then `schedule`."""
    steps = epochs * clock.steps_per_epoch if epochs else 0.0
    return lambda step: jnp.where(step < steps, first + (peak - first) * step / max(steps, 1.0), schedule(step))


def constant(value, clock=None, warmup_epochs=0.0, first=0.0):
    """Always `value`, after a linear warm-up from `first`."""
    return _warm_up(value, lambda step: jnp.float32(value), clock, warmup_epochs, first)


def cosine(start, end, clock, warmup_epochs=0.0, first=0.0):
    """A linear warm-up from `first` to `start`, then half a cosine from `start` to `end` at the end of the run."""
    warmup = warmup_epochs * clock.steps_per_epoch

    def schedule(step):
        fraction = jnp.clip((step - warmup) / max(clock.total_steps - warmup, 1.0), 0.0, 1.0)
        return end + (start - end) * (1 + jnp.cos(jnp.pi * fraction)) / 2

    return _warm_up(start, schedule, clock, warmup_epochs, first)


def linear(start, end, clock, stretch=1.0):
    """Linear from `start` to `end` in `stretch` times the run: above 1, `end` is not reached (V-JEPA's EMA: 1.25)."""
    return lambda step: start + (end - start) * jnp.clip(step / (stretch * clock.total_steps), 0.0, 1.0)


def teacher_momentum(start, clock):
    """From `start` to 1 along a cosine (BYOL, MoCo v3, DINO). A start of 0 stays 0: the teacher equals the student."""
    return cosine(start, 1.0, clock) if start else constant(0.0)


def step(start, milestones, clock, warmup_epochs=0.0, first=0.0, factor=0.1):
    """A linear warm-up from `first` to `start`; times `factor` at every milestone, in epochs from the run's start."""
    at = np.array([epoch * clock.steps_per_epoch for epoch in milestones], np.float32)
    return _warm_up(start, lambda step: start * factor ** jnp.sum(step >= at), clock, warmup_epochs, first)


def epoch_ramp(first, last, epochs, clock):
    """From `first` in epoch 0 to `last` in the last of `epochs`, constant within an epoch; then `last` (DINO, iBOT)."""

    def schedule(step):
        epoch = jnp.floor(step / clock.steps_per_epoch)
        return jnp.where(epoch < epochs, first + (last - first) * epoch / max(epochs - 1, 1.0), last)

    return schedule
