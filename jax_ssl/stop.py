"""How a run is asked to stop: a signal sets a flag, and the loop saves at the next step."""

import os
import signal
from collections.abc import Callable


class Stop:
    """SIGTERM and Ctrl-C ask for a stop at the next step; a second Ctrl-C does not wait.

    agree: for several processes, a function of the turn that says on all of them, at one and the same turn, that one
    of them got a SIGTERM. It has a handler of that signal of its own, so none is installed here.
    """

    def __init__(self, agree: Callable[[int], bool] | None = None):
        self._agree = agree
        self._asked = False
        self._turn = 0

    def __enter__(self):
        mine = (signal.SIGINT,) if self._agree else (signal.SIGTERM, signal.SIGINT)
        self._before = {s: signal.signal(s, self._ask) for s in mine}
        return self

    def __exit__(self, *_):
        for number, handler in self._before.items():
            signal.signal(number, handler)

    def asked(self) -> bool:
        """Whether this turn is the last; every process asks once at every turn."""
        # Turns, not steps: a resumed run's first step lies beyond what the processes agree on before any has asked.
        self._turn += 1
        return self._agree(self._turn) if self._agree else self._asked

    def _ask(self, number, frame):
        if self._asked and number == signal.SIGINT:
            raise KeyboardInterrupt
        self._asked = True
        if self._agree:
            os.kill(os.getpid(), signal.SIGTERM)  # the others are to know
