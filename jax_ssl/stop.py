"""How a run is asked to stop: a signal sets a flag, and the loop saves at the next step."""

import signal


class Stop:
    """SIGTERM and Ctrl-C ask for a stop at the next step; a second Ctrl-C does not wait."""

    def __init__(self):
        self.asked = False

    def __enter__(self):
        self.before = {s: signal.signal(s, self._ask) for s in (signal.SIGTERM, signal.SIGINT)}
        return self

    def __exit__(self, *_):
        for number, handler in self.before.items():
            signal.signal(number, handler)

    def _ask(self, number, frame):
        if self.asked and number == signal.SIGINT:
            raise KeyboardInterrupt
        self.asked = True
