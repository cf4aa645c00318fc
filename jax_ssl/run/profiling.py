"""A profile of a few steps, for TensorBoard, XProf or Perfetto: `train --profile=START:STOP`."""

import shutil
import tempfile
from pathlib import Path

import jax

from jax_ssl import paths
from jax_ssl.errors import UserError


def parse(text: str) -> tuple[int, int]:
    """`10:20` -> (10, 20), the first and the last step of a profile. Raises UserError."""
    first, colon, last = text.partition(":")
    if not (colon and first.isdecimal() and last.isdecimal() and 1 <= int(first) <= int(last)):
        raise UserError(f"--profile={text}: give the first and the last step as START:STOP, counted from 1.")
    return int(first), int(last)


def check(steps: tuple[int, int] | None, total: int) -> None:
    """Raises UserError for a profile that begins after the last step of a run."""
    if steps and steps[0] > total:
        raise UserError(f"--profile={steps[0]}:{steps[1]}: the run has only {total:,} steps.")


class Profile:
    """Traces a first to a last step into `folder`; `say` gets a sentence with the place, or why there is no trace.

    jax can only write to a disk: for a bucket the trace is made in a temporary folder and then copied.
    steps: (first, last), None = nothing is traced; done: how many steps the run has made before.
    """

    def __init__(self, steps: tuple[int, int] | None, folder: str, say, done: int = 0):
        self.first, self.last = steps or (0, 0)  # no step has the number 0
        self.folder, self.say = folder, say
        self._on = False
        if 0 < self.first <= done:  # no error: a stopped run is restarted with the same command
            say(f"no profile: the run is past step {self.first:,}, with which --profile begins")

    def before_step(self, step: int, state) -> None:
        """Starts or ends the trace; call it before each step. state: result of the last step, awaited at both ends."""
        if step == self.first:
            jax.block_until_ready(state)
            self._local = tempfile.mkdtemp() if paths.is_remote(self.folder) else str(paths.resolve(self.folder))
            jax.profiler.start_trace(self._local)
            self._on = True
        elif self._on and step == self.last + 1:
            jax.block_until_ready(state)
            self.close()

    def close(self) -> None:
        """Ends the trace, if one was started, and writes it."""
        if self._on:
            jax.profiler.stop_trace()
            self._on = False
            if paths.is_remote(self.folder):
                send(Path(self._local), self.folder)
            self.say(f"a profile of the steps from {self.first:,} is in {self.folder}, for TensorBoard or XProf")


def send(local: Path, folder: str) -> None:
    """Moves the files below a folder of a disk to a bucket."""
    for path in local.rglob("*"):
        if path.is_file():
            target = paths.resolve(folder) / str(path.relative_to(local))
            target.parent.mkdir(parents=True, exist_ok=True)
            target.write_bytes(path.read_bytes())
    shutil.rmtree(local)
