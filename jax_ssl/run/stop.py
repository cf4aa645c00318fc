"""How a run is asked to stop: a signal sets a flag, and the loop saves after the current step and ends.

Ctrl-C, SIGTERM and SIGHUP (a lost terminal or ssh connection) do the same. If SIGHUP is ignored from the start, as with
nohup, it does not stop the run.
"""

import os
import signal
from collections.abc import Callable


def signals() -> tuple[signal.Signals, ...]:
    """The signals that ask a run to stop."""
    ignored = signal.getsignal(signal.SIGHUP) == signal.SIG_IGN
    return (signal.SIGINT, signal.SIGTERM) if ignored else (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)


class Stop:
    """Inside `with`, a signal asks for a stop after the current step; a second Ctrl-C interrupts at once.

    agree: for several processes, a function turn -> bool that becomes true on all of them at the same turn, after one
    of them got a SIGTERM. It has its own handler of that signal, so none is installed here.
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
        """Whether this turn of the loop is the last one. Every process has to ask once in every turn."""
        # Turns, not steps: jax's agreement starts at zero, and the first step of a resumed run does not.
        self._turn += 1
        return self._agree(self._turn) if self._agree else self._asked

    def _ask(self, number, frame):
        if self._asked and number == signal.SIGINT:
            raise KeyboardInterrupt
        self._asked = True
        if self._agree:
            os.kill(os.getpid(), signal.SIGTERM)  # jax's handler of SIGTERM tells the other processes
