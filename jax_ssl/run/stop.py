"""How a run is asked to stop: a signal sets a flag, and the loop saves at the next step.

The rule: Ctrl-C, SIGTERM and SIGHUP (a terminal or an ssh that is lost) are answered alike. Whoever has SIGHUP ignored
from the start, as nohup does, wants the run to go on.
"""

import os
import signal
from collections.abc import Callable


def signals() -> tuple[signal.Signals, ...]:
    """Those that ask a run to stop."""
    ignored = signal.getsignal(signal.SIGHUP) == signal.SIG_IGN
    return (signal.SIGINT, signal.SIGTERM) if ignored else (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)


class Stop:
    """A signal asks for a stop at the next step; a second Ctrl-C does not wait.

    agree: for several processes, a function of the turn that says on all of them, at one and the same turn, that one
    of them got a SIGTERM. It has a handler of that signal of its own, so none is installed here.
    """

    def __init__(self, agree: Callable[[int], bool] | None = None):
        self._agree = agree
        self._asked = False
        self._turn = 0

    def __enter__(self):
        mine = [number for number in signals() if not (self._agree and number == signal.SIGTERM)]
        self._before = {number: signal.signal(number, self._ask) for number in mine}
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
