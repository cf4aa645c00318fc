"""Orbax's manager of a folder of checkpoints, with our own rules for which steps stay."""

import orbax.checkpoint as ocp
from orbax.checkpoint.checkpoint_managers import AnyPreservationPolicy, LatestN


class Manager(ocp.CheckpointManager):
    """Orbax's, which leaves the question whether all processes stop to the loop that asks it."""

    def reached_preemption(self, step: int) -> bool:
        # jax keeps the number of the last call. Orbax asks late and in a thread, about the step of a save that ends:
        # jax would then agree on a turn that this process has passed, and the others would stop without it.
        return False


class Best:
    """A preservation policy: the `count` steps with the highest scores.

    Orbax's BestN reads the metrics of every step when the folder is opened and fails on a damaged one; our scores
    come from the manifests.
    """

    def __init__(self, count: int):
        self.count = count
        self.scores: dict[int, float | None] = {}

    def should_preserve(self, checkpoints, *, context) -> list[bool]:
        steps = [info.step for info in checkpoints]
        scored = [step for step in steps if self.scores.get(step) is not None]
        # Of equal scores the newer: it has seen more images.
        best = sorted(scored, key=lambda step: (self.scores[step], step), reverse=True)[: self.count]
        return [step in best for step in steps]


def newest_and(best: Best, newest: int) -> AnyPreservationPolicy:
    """Keeps the `newest` steps, at least one, and those of `best`."""
    return AnyPreservationPolicy([LatestN(max(newest, 1)), best])
