"""A run's numbers, in the forms that people and tools read: JSON lines, TensorBoard, a log, a bar.

    writer = Writer(workdir, step=restored_step, total=steps, images_per_step=batch_size)
    batch = writer.clock.next(batches)              # measures the data wait
    writer.tick()                                   # every step
    writer.update(step, metrics)                    # every log step
    writer.say("a sentence")                        # terminal and log.txt

A killed run may leave a torn last line, and lines past its last checkpoint; a resumed run removes both first, so each
step stands in metrics.jsonl once. Numbers that are not finite are `null`: JSON has no NaN, and a string would break
whoever plots the column. What can't be written (a full disk, a bucket that is out of reach) is said once and ends no
run: numbers can be done without, and checkpoints have errors of their own.
"""

import contextlib
import datetime
import errno
import functools
import json
import math
import os
import shutil
import tempfile
import time
from pathlib import Path

from tensorboardX.event_file_writer import EventsWriter
from tensorboardX.proto.event_pb2 import Event, SessionLog
from tensorboardX.summary import scalar

from jax_ssl import paths
from jax_ssl.run.progress import Clock, Progress

UPLOAD_SECONDS = 60  # between two uploads to a remote workdir


class Writer:
    """One run's metrics.jsonl, events/, log.txt, goodput.json and progress.

    step: the restored step, None for a run from the start. active: False on all processes but one; then nothing is
    written or shown, and every method may be called all the same. Object stores cannot append: for a remote workdir
    the files grow in a temporary folder and are uploaded once a minute and at the end.
    """

    def __init__(self, workdir, step: int | None = None, total: int = 0, images_per_step: int = 0, active=True):
        self.clock = Clock(images_per_step)
        self.active = active
        self._said: set[str] = set()
        if not active:
            return
        self._progress = Progress(total, step or 0)
        self._failed = False
        self._remote = paths.resolve(workdir) if paths.is_remote(workdir) else None
        self._folder = Path(tempfile.mkdtemp() if self._remote else paths.resolve(workdir))
        self._uploaded, self._sent = time.monotonic(), {}
        self._lines = Lines(self._folder / "metrics.jsonl")
        self._log = Lines(self._folder / "log.txt")
        self._events = None
        self._folder.mkdir(parents=True, exist_ok=True)
        self._download("metrics.jsonl", "log.txt", "goodput.json")  # not without: they would be lost by the next upload
        with self._going_on():
            trim(self._folder / "metrics.jsonl", step)
        self._resume_account(step or 0)
        with self._going_on():
            self._remove_old_events(step)
            self._events = open_events(self._folder / "events", step)

    def tick(self) -> None:
        """One step was dispatched; moves the bar, waits for nothing."""
        self.clock.tick()
        if self.active:
            self._progress.tick()

    def update(self, step: int, metrics: dict) -> dict:
        """Writes and shows the metrics (scalars on the host) of a step, with the clock's; returns them all."""
        metrics = {name: _plain(value) for name, value in metrics.items()} | self.clock.read()
        metrics["goodput"] = self.clock.account.goodput()
        if self.active:
            with self._going_on():
                self._lines.write(json_line({"step": int(step), **metrics}))
            with self._going_on():
                self._draw(int(step), metrics)
            self._note(self._progress.show(int(step), metrics))
            self._keep_account()
            if self._remote and time.monotonic() - self._uploaded > UPLOAD_SECONDS:
                self.flush()
        return metrics

    def saved(self, step: int) -> None:
        """The step can be gone on from."""
        self.clock.account.mark(step)
        self._keep_account()

    def say_once(self, sentence: str) -> None:
        """`say`, unless this process has said the same sentence of this run before."""
        if sentence not in self._said:
            self._said.add(sentence)
            self.say(sentence)

    def say(self, sentence: str) -> None:
        """One sentence for the person who watches, and for the log."""
        if self.active:
            sentence = sentence.encode("utf-8", "backslashreplace").decode()  # a file's name may be no UTF-8
            self._progress.say(sentence)
            self._note(sentence)

    def flush(self) -> None:
        """All that was written is on disk, or uploaded."""
        if self.active and self._remote:
            with self._going_on():
                self._upload()
            self._uploaded = time.monotonic()

    def close(self) -> None:
        if not self.active:
            return
        self._progress.close()
        with self._going_on():
            if self._events is not None:
                self._events.close()
        self.flush()
        if self._remote and self._sent == self._states():
            shutil.rmtree(self._folder)
        elif self._remote:
            self._progress.say(f"not all metrics reached {self._remote}: they lie in {self._folder}")
        self.active = False

    @contextlib.contextmanager
    def _going_on(self):
        """Says once what a file system refuses, and goes on."""
        try:
            yield
        except Exception as error:
            if paths.reason(error) is None:
                raise
            if not self._failed:
                self._failed = True
                where = self._remote or self._folder
                self._progress.say(f"metrics can't be written to {where} ({paths.reason(error)}): the run goes on")

    def _draw(self, step: int, metrics: dict) -> None:
        """The finite metrics of a step, for TensorBoard."""
        for name, value in metrics.items():
            if self._events is not None and math.isfinite(value):
                self._events.write_event(Event(wall_time=time.time(), step=step, summary=scalar(name, value)))
        if self._events is not None:
            self._events.flush()

    def _note(self, text: str) -> None:
        now = datetime.datetime.now().astimezone().isoformat(sep=" ", timespec="seconds")
        with self._going_on():
            self._log.write(f"{now}  {text}\n")

    def _resume_account(self, step: int) -> None:
        """Goes on with the account of time of the attempts before; one that a kill has torn is lost."""
        path = self._folder / "goodput.json"
        record = _parse(path.read_text()) if path.exists() else None
        if record is not None:
            self.clock.account.resume(record, step)

    def _remove_old_events(self, step: int | None) -> None:
        """Deletes what an earlier try drew for TensorBoard, if the run starts from the beginning (None)."""
        folder = (self._remote or self._folder) / "events"
        if step is None and folder.exists():
            for path in folder.iterdir():
                if path.name.startswith("events.out.tfevents"):
                    path.unlink(missing_ok=True)

    def _keep_account(self) -> None:
        if self.active:
            with self._going_on():
                replace(self._folder / "goodput.json", json.dumps(self.clock.account.record(), indent=1) + "\n")

    def _download(self, *names: str) -> None:
        for name in names:
            if self._remote and (self._remote / name).exists():
                (self._folder / name).write_bytes((self._remote / name).read_bytes())

    def _states(self) -> dict:
        """{file of the temporary folder: its size and time}."""
        files = [path for path in self._folder.rglob("*") if path.is_file()]
        return {path: (path.stat().st_size, path.stat().st_mtime_ns) for path in files}

    def _upload(self) -> None:
        """Sends the files that have changed since they were sent."""
        for path, state in self._states().items():
            if self._sent.get(path) != state:
                target = self._remote / str(path.relative_to(self._folder))
                target.parent.mkdir(parents=True, exist_ok=True)
                target.write_bytes(path.read_bytes())
                self._sent[path] = state


class Lines:
    """A file on a disk that grows by whole lines. What is no UTF-8, as in a file's name, is written as \\udc80.

    `write` raises OSError; a line that a full disk has cut short is ended before the next one.
    """

    def __init__(self, path: Path):
        self._path = path
        self._cut = False

    def write(self, line: str) -> None:
        data = b"\n" * self._cut + line.encode("utf-8", "backslashreplace")
        with open(self._path, "ab", buffering=0) as file:
            written = file.write(data)
        self._cut = written < len(data) if written else self._cut
        if written < len(data):
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))


def open_events(folder: Path, step: int | None) -> EventsWriter:
    """A new file of events for TensorBoard. tensorboardX's own writer would wait for ever when a disk is full.

    step: the restored step: what an interrupted run drew past it is hidden.
    """
    folder.mkdir(parents=True, exist_ok=True)
    events = EventsWriter(str(folder / "events"), "" if step is None else f".from{step}")
    if step is not None:
        start = SessionLog(status=SessionLog.START)
        events.write_event(Event(wall_time=time.time(), step=step + 1, session_log=start))
    events.flush()
    return events


def replace(path: Path, text: str) -> None:
    """Writes a file of a disk: all of it or nothing."""
    temporary = path.with_suffix(".tmp")
    temporary.write_text(text)
    temporary.replace(path)


def trim(path: Path, step: int | None) -> None:
    """Keeps the whole lines of a metrics.jsonl up to and including `step`; none for a run from the start (None)."""
    if not path.exists():
        return
    kept = []
    if step is not None:
        # A kill can tear a line in the middle of a character.
        for line in path.read_bytes().decode(errors="replace").splitlines():
            with_step = _parse(line)
            if with_step is not None and with_step.get("step", math.inf) <= step:
                kept.append(line + "\n")
    replace(path, "".join(kept))


def record_result(
    workdir,
    task: str,
    weights: str,
    metric: str,
    value: float,
    data: str,
    split: str,
    k: int | None,
    protocol: dict,
    step: int,
    seed: int,
) -> dict:
    """Appends one number to results.jsonl and returns the record. Values are fractions: 0.612, not 61.2.

    weights: "pixels", "untrained", "student", "teacher" or a name; k: None where the task has none. A folder that can't
    be written, as a colleague's run, is told once: the number is there all the same.
    """
    record = dict(task=task, weights=weights, metric=metric, value=_plain(value), data=data, split=split)
    record |= dict(k=k, protocol=protocol, step=int(step), seed=int(seed))
    path = paths.resolve(workdir) / "results.jsonl"
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        before = path.read_bytes() if path.exists() else b""
        whole = before[: before.rfind(b"\n") + 1]  # without the line that a kill has torn
        if whole != before:
            path.write_bytes(whole)
        paths.append(path, json_line(record))
    except Exception as error:
        if paths.reason(error) is None:
            raise
        tell_once(f"not recorded, because {path} can't be written ({paths.reason(error)})")
    return record


@functools.cache
def tell_once(sentence: str) -> None:
    """Prints a sentence the first time that a process says it."""
    print(sentence, flush=True)


def json_line(record: dict) -> str:
    """One line of strict JSON; floats in full, what is not finite as null."""
    return json.dumps(_strict(record), allow_nan=False) + "\n"


def _strict(value):
    if isinstance(value, dict):
        return {key: _strict(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [_strict(item) for item in value]
    if isinstance(value, float) and not math.isfinite(value):
        return None
    return value


def _plain(value) -> int | float:
    """A Python number for any scalar: NumPy's, jax's, bool's."""
    value = value.item() if hasattr(value, "item") else value
    return int(value) if isinstance(value, bool | int) else float(value)


def _parse(line: str) -> dict | None:
    try:
        record = json.loads(line)
    except ValueError:
        return None
    return record if isinstance(record, dict) else None
