"""Which checkpoints of a run are proven by later steps: `checkpoints/verdict.json`, a few numbers.

Files with the right checksums are not enough. After a bad update, all weights can be finite while every later gradient
is not. So a checkpoint is *proven* when a later step was finite. The newest proven one is never deleted. When a run
ends because its steps are not finite, it is the one to go back to.

The file is beside the steps because a step does not change after it was committed. This file needs no jax.
"""

import json
from dataclasses import asdict, dataclass, field

from etils import epath

from jax_ssl import paths

NAME = "verdict.json"


@dataclass
class Verdict:
    """finite: the newest step known to be finite. ruined: the run ended because no step after it was finite.

    scores: {step: score}, the higher the better.
    """

    finite: int = 0
    ruined: bool = False
    scores: dict[int, float] = field(default_factory=dict)

    def is_proven(self, step: int) -> bool:
        """Whether a step after this one is known to have been finite."""
        return step < self.finite

    def objection(self, step: int) -> str | None:
        """Why a step with good files must not be used, as the end of a sentence; None if it may."""
        return "no step after it was finite" if self.ruined and not self.is_proven(step) else None

    def up_to(self, step: int | None) -> "Verdict":
        """The verdict of a run that goes on from this step (None = the start), without what is known of later steps."""
        if step is None:
            return Verdict()
        return Verdict(min(self.finite, step + 1), False, {s: score for s, score in self.scores.items() if s <= step})


def read(folder: epath.Path) -> Verdict:
    """The Verdict of a `checkpoints` folder; an empty one where the file is missing or incomplete."""
    try:
        found = json.loads((folder / NAME).read_text())
        return Verdict(found["finite"], found["ruined"], {int(step): score for step, score in found["scores"].items()})
    except (FileNotFoundError, ValueError, KeyError, TypeError, AttributeError):
        return Verdict()


def write(folder: epath.Path, verdict: Verdict) -> None:
    """Writes the Verdict of a `checkpoints` folder."""
    paths.write(folder / NAME, json.dumps(asdict(verdict), sort_keys=True) + "\n")
