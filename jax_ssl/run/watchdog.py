"""Ends a run that hangs: a collective that waits for a process which is alive but stuck waits for ever."""

import contextlib
import faulthandler
import os
import sys
import threading
import time

from jax_ssl import paths
from jax_ssl.errors import EXIT, LostError

LOOK_EVERY = 30.0  # seconds, at most


class Watchdog:
    """Between `with` and its end, `alive` has to be called every `seconds`, or the process shows its stacks and ends.

    They go to stderr, and to a file in the run's folder if that is a local one; the exit code is that of LostError, so
    that whoever started the run starts it again. seconds: 0 = never.
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
        """The loop has gone on."""
        self._last = time.monotonic()

    def _watch(self) -> None:
        look_every = min(LOOK_EVERY, self.seconds / 4)
        while True:
            # A library that hangs may hold Python's lock, and then this thread hangs too: this timer, in C, does not.
            faulthandler.dump_traceback_later(self.seconds + look_every, file=sys.__stderr__, exit=True)
            if self._over.wait(look_every):
                return
            if time.monotonic() - self._last > self.seconds:
                self._end()

    def _end(self) -> None:
        with contextlib.suppress(OSError):  # a terminal that is gone must not keep the process from its end
            print(
                f"jax_ssl: nothing has moved for {self.seconds:g} seconds (config.hosts.hang_seconds): this process "
                "ends, and the same command goes on from the last checkpoint. This is where it stood:",
                file=sys.__stderr__,
                flush=True,
            )
        faulthandler.dump_traceback(file=sys.__stderr__)
        if self.path:
            with open(self.path, "a") as file:
                faulthandler.dump_traceback(file=file)
        os._exit(EXIT[LostError])
