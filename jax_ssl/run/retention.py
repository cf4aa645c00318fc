"""Orbax's manager of a folder of checkpoints, with our own rules for which steps stay.

The newest, those with the best scores, and always the newest proven one (see `verdict`): while steps are being skipped,
no save pushes out the last network from before the trouble.
"""

import importlib.util

import orbax.checkpoint as ocp
from orbax.checkpoint._src.path import gcs_utils
from orbax.checkpoint.checkpoint_managers import AnyPreservationPolicy, LatestN

from jax_ssl.run.verdict import Verdict


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


class BestAndProven:
    """A preservation policy: the `best` steps with the highest scores, and the newest that is proven.

    Orbax's BestN reads the metrics of every step when the folder is opened and fails on a damaged one.
    """

    def __init__(self, verdict: Verdict, best: int):
        self.verdict = verdict
        self.best = best

    def should_preserve(self, checkpoints, *, context) -> list[bool]:
        steps, scores = [info.step for info in checkpoints], self.verdict.scores
        scored = [step for step in steps if step in scores]
        # Of equal scores the newer: it has seen more images.
        best = sorted(scored, key=lambda step: (scores[step], step), reverse=True)[: self.best]
        proven = max(filter(self.verdict.proven, steps), default=None)
        return [step in best or step == proven for step in steps]


def policy(verdict: Verdict, newest: int, best: int) -> AnyPreservationPolicy:
    """Keeps the `newest` steps, at least one, the `best`, and the newest proven one."""
    return AnyPreservationPolicy([LatestN(max(newest, 1)), BestAndProven(verdict, best)])
