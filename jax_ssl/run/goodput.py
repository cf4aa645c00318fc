"""Where a run's time went, over all of its attempts: wall-clock seconds, by kind.

Each second counts once, as one kind. Two kinds are the cost of restarts: `repeated`, steps of an attempt after the
checkpoint from which the next one went on, and `down`, the time when no attempt ran.
"""

import contextlib
import time

KINDS = ("init", "compile", "data", "step", "checkpoint", "evaluation", "pictures", "repeated", "down")
LOST = ("data", "step")  # kinds that are repeated after a restart
MARKS = 16  # checkpoints for which the seconds are stored; a run can only go on from the newest few
BEGUN = time.time()  # about the start of this process


class Account:
    """The seconds of each kind up to now; starts with `init`, at `begun`."""

    def __init__(self, now=time.time, begun: float = BEGUN):
        self._now = now
        self._begun = self._since = begun
        self._kind = "init"
        self.seconds = dict.fromkeys(KINDS, 0.0)
        self.marks = {}  # {step of a checkpoint: seconds of the kinds in LOST up to it}

    @contextlib.contextmanager
    def count_as(self, name: str):
        """Inside `with`, time counts as that kind."""
        before = self._switch(name)
        try:
            yield
        finally:
            self._switch(before)

    def mark(self, step: int) -> None:
        """Notes the seconds up to now for the checkpoint of `step`."""
        self._switch(self._kind)
        self.marks[step] = {kind: self.seconds[kind] for kind in LOST}
        self.marks = {step: self.marks[step] for step in sorted(self.marks)[-MARKS:]}

    def record(self) -> dict:
        """The account for `resume` of the next attempt, ready for JSON."""
        self._switch(self._kind)
        return {"until": self._since, "seconds": self.seconds, "marks": self.marks}

    def resume(self, record: dict, step: int) -> None:
        """Goes on with the account of an earlier attempt, from the checkpoint of `step` (0 = from the start)."""
        marks = {int(saved): seconds for saved, seconds in record["marks"].items() if int(saved) <= step}
        kept = marks[max(marks)] if marks else dict.fromkeys(LOST, 0.0)
        for kind, seconds in record["seconds"].items():
            self.seconds[kind] += seconds
        for kind in LOST:
            again = record["seconds"][kind] - kept[kind]
            self.seconds[kind] -= again
            self.seconds["repeated"] += again
        self.seconds["down"] += max(self._begun - record["until"], 0.0)
        self.marks = marks

    def goodput(self) -> float:
        """The share of all seconds spent in steps that were not repeated, 0 to 1."""
        self._switch(self._kind)
        return self.seconds["step"] / max(sum(self.seconds.values()), 1e-9)

    def sentence(self) -> str:
        """`0:12:03 in all: 81 % step, 10 % compile, 6 % init, 3 % data`: kinds of at least half a per cent."""
        self._switch(self._kind)
        total = max(sum(self.seconds.values()), 1e-9)
        minutes, seconds = divmod(round(total), 60)
        shares = sorted(((100 * value / total, kind) for kind, value in self.seconds.items()), reverse=True)
        parts = [f"{share:.0f} % {kind}" for share, kind in shares if share >= 0.5]
        return f"{minutes // 60}:{minutes % 60:02d}:{seconds:02d} in all: {', '.join(parts)}"

    def _switch(self, kind: str) -> str:
        """Adds the time since the last call to the old kind, which is returned; from now on time is of `kind`."""
        now, before = self._now(), self._kind
        self.seconds[before] += max(now - self._since, 0.0)
        self._since, self._kind = now, kind
        return before
