"""Where a run's time went, over all of its attempts: seconds on the wall, by kind.

Each moment counts once, as one kind. What restarts have cost is two kinds of its own: `repeated`, steps that an attempt
had made beyond the checkpoint from which the next one went on, and `down`, the time when no attempt ran.
"""

import contextlib
import time

KINDS = ("init", "compile", "data", "step", "checkpoint", "evaluation", "pictures", "repeated", "down")
LOST = ("data", "step")  # kinds that have to be done again
MARKS = 16  # checkpoints at which the account is remembered; only of the newest few can a run go on
BEGUN = time.time()  # of this process, or nearly


class Account:
    """The seconds of each kind up to now; begins with `init`, at `begun`."""

    def __init__(self, now=time.time, begun: float = BEGUN):
        self._now = now
        self._begun = self._since = begun
        self._kind = "init"
        self.seconds = dict.fromkeys(KINDS, 0.0)
        self.marks = {}  # step of a checkpoint -> the seconds of the kinds of LOST, up to then

    @contextlib.contextmanager
    def kind(self, name: str):
        """What happens in here is of that kind."""
        before = self._switch(name)
        try:
            yield
        finally:
            self._switch(before)

    def mark(self, step: int) -> None:
        """That step is saved."""
        self._switch(self._kind)
        self.marks[step] = {kind: self.seconds[kind] for kind in LOST}
        self.marks = {step: self.marks[step] for step in sorted(self.marks)[-MARKS:]}

    def record(self) -> dict:
        """What the next attempt has to know, for JSON."""
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
        """The share of all seconds in which steps were made that lasted."""
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
        """Books the time since the last call as of the old kind, and returns that."""
        now, before = self._now(), self._kind
        self.seconds[before] += max(now - self._since, 0.0)
        self._since, self._kind = now, kind
        return before
