"""What later steps have shown of a run's checkpoints: `checkpoints/verdict.json`, a few numbers, kept over restarts.

Good means more than a checksum. An update can ruin a network whose weights are all finite: no gradient after it is. So
a checkpoint is *proven* when a later step was finite. The newest proven one is never deleted, and it is the one to go
back to when a run ends because its steps are not finite.

It lies beside the steps because a step does not change after it was committed. Only files here: no arrays, no jax.
"""

import json
from dataclasses import asdict, dataclass, field

from etils import epath

from jax_ssl import paths

NAME = "verdict.json"


@dataclass
class Verdict:
    """finite: the newest step that was finite, as far as was looked. ruined: the run ended because none after it was.

    scores: of steps, the higher the better.
    """

    finite: int = 0
    ruined: bool = False
    scores: dict[int, float] = field(default_factory=dict)

    def proven(self, step: int) -> bool:
        """Whether a step after this one is known to have been finite."""
        return step < self.finite

    def against(self, step: int) -> str | None:
        """Why a step with good files is not to be used, as the end of a sentence; None if nothing speaks against it."""
        return "no step after it was finite" if self.ruined and not self.proven(step) else None

    def back_to(self, step: int | None) -> "Verdict":
        """The verdict of a run that goes on from this step (None = the start): what is known of later ones is void."""
        if step is None:
            return Verdict()
        return Verdict(min(self.finite, step + 1), False, {s: score for s, score in self.scores.items() if s <= step})


def read(folder: epath.Path) -> Verdict:
    """Of a `checkpoints` folder; nothing is known where the file is missing or torn."""
    try:
        found = json.loads((folder / NAME).read_text())
        return Verdict(found["finite"], found["ruined"], {int(step): score for step, score in found["scores"].items()})
    except (FileNotFoundError, ValueError, KeyError, TypeError, AttributeError):
        return Verdict()


def write(folder: epath.Path, verdict: Verdict) -> None:
    paths.write(folder / NAME, json.dumps(asdict(verdict), sort_keys=True) + "\n")
