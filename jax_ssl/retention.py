"""Orbax's manager of a folder of checkpoints, with our own rules for which steps stay."""

import importlib.util

import orbax.checkpoint as ocp
from orbax.checkpoint._src.path import gcs_utils
from orbax.checkpoint.checkpoint_managers import AnyPreservationPolicy, LatestN


def allow_plain_buckets() -> None:
    """Lets Orbax delete and list steps in a bucket where the library google-cloud-storage is not installed.

    It needs that one for a single question, whether a bucket has folders of its own (a hierarchical namespace), and
    fails without. The usual bucket has none; for one that has, install the library.
    """
    try:
        known = importlib.util.find_spec("google.cloud.storage") is not None
    except ModuleNotFoundError:
        known = False
    if not known:
        gcs_utils.is_hierarchical_namespace_enabled = lambda path: False


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
