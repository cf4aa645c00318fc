"""Orbax's manager of a folder of checkpoints, with our own rules for which steps are not deleted.

These are the newest, those with the best scores, and always the newest proven one (see verdict.py): while steps are
being skipped, new checkpoints do not replace the last one from before the trouble.
"""

import importlib.util

import orbax.checkpoint as ocp
from orbax.checkpoint._src.path import gcs_utils
from orbax.checkpoint.checkpoint_managers import AnyPreservationPolicy, LatestN

from jax_ssl.run.verdict import Verdict


def allow_plain_buckets() -> None:
    """Lets Orbax delete and list steps in a bucket where the library google-cloud-storage is not installed.

    Orbax needs that library only to ask whether a bucket has a hierarchical namespace, and fails without it. Usual
    buckets have none; for one that has, install the library.
    """
    try:
        known = importlib.util.find_spec("google.cloud.storage") is not None
    except ModuleNotFoundError:
        known = False
    if not known:
        gcs_utils.is_hierarchical_namespace_enabled = lambda path: False


class Manager(ocp.CheckpointManager):
    """Orbax's manager, which does not ask whether all processes stop: the training loop does."""

    def reached_preemption(self, step: int) -> bool:
        # jax stores the number of the last call. Orbax asks late, in a thread, with the step of a finished save: jax
        # would then choose a turn that this process has passed, and the others would stop without it.
        return False


class BestAndProven:
    """A preservation policy: the `best` steps with the highest scores, and the newest proven step.

    Orbax's BestN reads the metrics of every step when the folder is opened and fails on a damaged one.
    """

    def __init__(self, verdict: Verdict, best: int):
        self.verdict = verdict
        self.best = best

    def should_preserve(self, checkpoints, *, context) -> list[bool]:
        steps, scores = [info.step for info in checkpoints], self.verdict.scores
        scored = [step for step in steps if step in scores]
        # Of equal scores the newer step, which has seen more images.
        best = sorted(scored, key=lambda step: (scores[step], step), reverse=True)[: self.best]
        proven = max(filter(self.verdict.is_proven, steps), default=None)
        return [step in best or step == proven for step in steps]


def policy(verdict: Verdict, newest: int, best: int) -> AnyPreservationPolicy:
    """The policy to keep the `newest` steps, at least one, the `best`, and the newest proven one."""
    return AnyPreservationPolicy([LatestN(max(newest, 1)), BestAndProven(verdict, best)])
