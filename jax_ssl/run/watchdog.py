"""Ends a run that hangs: a collective waits for ever if one process is alive but stuck."""

import contextlib
import faulthandler
import os
import sys
import threading
import time
from collections.abc import Callable

from jax_ssl import paths
from jax_ssl.errors import EXIT, LostError

LOOK_EVERY = 30.0  # seconds between two checks, at most


@contextlib.contextmanager
def calling_after(seconds: float, call: Callable[[], None]):
    """If the code inside `with` takes longer, `call` is called once, from another thread."""
    timer = threading.Timer(seconds, call)
    timer.daemon = True
    timer.start()
    try:
        yield
    finally:
        timer.cancel()


class Watchdog:
    """Inside `with`, the process ends and shows its stacks if `alive` is not called for `seconds`; 0 = never.

    The stacks go to stderr, and to a file in the run's folder if that is on a disk. The exit code is that of LostError,
    so that a launcher repeats the command.
    """

    def __init__(self, seconds: float, workdir: str, process: int = 0):
        self.seconds = seconds
        self.path = None if paths.is_remote(workdir) else paths.resolve(workdir) / f"hang_of_process_{process}.txt"
        self._last = time.monotonic()
        self._over = threading.Event()
        self._thread = threading.Thread(target=self._watch, name="watchdog", daemon=True)

    def __enter__(self):
        self.alive()
        if self.seconds > 0:
            self._thread.start()
        return self

    def __exit__(self, *_):
        self._over.set()
        if self.seconds > 0:
            self._thread.join()
            faulthandler.cancel_dump_traceback_later()

    def alive(self) -> None:
        """To be called in every turn of the loop."""
        self._last = time.monotonic()

    def _watch(self) -> None:
        look_every = min(LOOK_EVERY, self.seconds / 4)
        while True:
            # If a library hangs while it has Python's global lock, this thread hangs too. This timer, in C, does not.
            faulthandler.dump_traceback_later(self.seconds + look_every, file=sys.__stderr__, exit=True)
            if self._over.wait(look_every):
                return
            if time.monotonic() - self._last > self.seconds:
                self._end()

    def _end(self) -> None:
        with contextlib.suppress(OSError):  # a lost terminal must not keep the process from ending
            print(
                f"jax_ssl: nothing has moved for {self.seconds:g} seconds (config.hosts.hang_seconds): this process "
                "ends, and the same command goes on from the last checkpoint. The stacks of its threads:",
                file=sys.__stderr__,
                flush=True,
            )
        faulthandler.dump_traceback(file=sys.__stderr__)
        if self.path:
            with open(self.path, "a") as file:
                faulthandler.dump_traceback(file=file)
        os._exit(EXIT[LostError])
