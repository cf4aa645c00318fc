"""Writes a run's numbers: metrics.jsonl, TensorBoard, log.txt, and the lines or the bar on the terminal.

    writer = Writer(workdir, step=restored_step, total=steps, images_per_step=batch_size)
    batch = writer.clock.next(batches)              # measures the data wait
    writer.tick()                                   # every step
    writer.update(step, metrics)                    # every log step
    writer.say("a sentence")                        # terminal and log.txt

A killed run may leave an incomplete last line, and lines after its last checkpoint; a resumed run removes both first,
so that each step is in metrics.jsonl once. Numbers that are not finite are `null`: JSON has no NaN, and a string would
break programs that plot the column. If numbers can't be written (a full disk, a bucket that can't be reached), one
sentence says so and the run goes on; checkpoints have errors of their own.
"""

import contextlib
import datetime
import errno
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

    step: the restored step, None for a run from the start. active: False on all processes but one; then every method
    may be called, but nothing is written or shown. Object stores cannot append: for a remote workdir the files grow in
    a temporary folder and are uploaded once a minute and at the end.
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
        self._download("metrics.jsonl", "log.txt", "goodput.json")  # must not fail: the next upload overwrites them
        with self._tolerate_disk_errors():
            trim(self._folder / "metrics.jsonl", step)
        self._resume_account(step or 0)
        with self._tolerate_disk_errors():
            self._remove_old_events(step)
            self._events = open_events(self._folder / "events", step)

    def tick(self) -> None:
        """Counts one step that was dispatched, and moves the bar; does not wait for the step."""
        self.clock.tick()
        if self.active:
            self._progress.tick()

    def update(self, step: int, metrics: dict) -> dict:
        """Writes and shows the metrics (scalars on the host) of a step and those of the clock; returns all of them."""
        metrics = {name: plain_number(value) for name, value in metrics.items()} | self.clock.read()
        metrics["goodput"] = self.clock.account.goodput()
        if self.active:
            with self._tolerate_disk_errors():
                self._lines.write(json_line({"step": int(step), **metrics}))
            with self._tolerate_disk_errors():
                self._write_events(int(step), metrics)
            self._write_log(self._progress.show(int(step), metrics))
            self._write_account()
            if self._remote and time.monotonic() - self._uploaded > UPLOAD_SECONDS:
                self.flush()
        return metrics

    def least(self, name: str) -> float:
        """The smallest value of a metric in the lines so far; 0.0 if there is none, or this writer is not active."""
        lines = paths.json_lines(self._folder / "metrics.jsonl") if self.active else []
        return min((line[name] for line in lines if line.get(name) is not None), default=0.0)

    def saved(self, step: int) -> None:
        """To be called when the checkpoint of `step` is saved."""
        self.clock.account.mark(step)
        self._write_account()

    def say_once(self, sentence: str) -> None:
        """`say`, unless this writer has said the same sentence before."""
        if sentence not in self._said:
            self._said.add(sentence)
            self.say(sentence)

    def say(self, sentence: str) -> None:
        """Shows one sentence, and writes it to log.txt."""
        if self.active:
            sentence = sentence.encode("utf-8", "backslashreplace").decode()  # the name of a file may be no UTF-8
            self._progress.say(sentence)
            self._write_log(sentence)

    def flush(self) -> None:
        """For a remote workdir: uploads what was written until now."""
        if self.active and self._remote:
            with self._tolerate_disk_errors():
                self._upload()
            self._uploaded = time.monotonic()

    def close(self) -> None:
        if not self.active:
            return
        self._progress.close()
        with self._tolerate_disk_errors():
            if self._events is not None:
                self._events.close()
        self.flush()
        if self._remote and self._sent == self._states():
            shutil.rmtree(self._folder)
        elif self._remote:
            self._progress.say(f"not all metrics were uploaded to {self._remote}: they are in {self._folder}")
        self.active = False

    @contextlib.contextmanager
    def _tolerate_disk_errors(self):
        """Inside `with`, an error of the disk or bucket is reported once, and the run goes on."""
        try:
            yield
        except Exception as error:
            if paths.reason(error) is None:
                raise
            if not self._failed:
                self._failed = True
                where = self._remote or self._folder
                self._progress.say(f"metrics can't be written to {where} ({paths.reason(error)}): the run goes on")

    def _write_events(self, step: int, metrics: dict) -> None:
        """Writes the finite metrics of a step for TensorBoard."""
        for name, value in metrics.items():
            if self._events is not None and math.isfinite(value):
                self._events.write_event(Event(wall_time=time.time(), step=step, summary=scalar(name, value)))
        if self._events is not None:
            self._events.flush()

    def _write_log(self, text: str) -> None:
        now = datetime.datetime.now().astimezone().isoformat(sep=" ", timespec="seconds")
        with self._tolerate_disk_errors():
            self._log.write(f"{now}  {text}\n")

    def _resume_account(self, step: int) -> None:
        """Goes on with the account of time of earlier attempts; an incomplete file is ignored."""
        path = self._folder / "goodput.json"
        record = _parse(path.read_text()) if path.exists() else None
        if record is not None:
            self.clock.account.resume(record, step)

    def _remove_old_events(self, step: int | None) -> None:
        """Deletes the event files of an earlier attempt, if the run starts from the beginning (None)."""
        folder = (self._remote or self._folder) / "events"
        if step is None and folder.exists():
            for path in folder.iterdir():
                if path.name.startswith("events.out.tfevents"):
                    path.unlink(missing_ok=True)

    def _write_account(self) -> None:
        if self.active:
            with self._tolerate_disk_errors():
                write_whole(self._folder / "goodput.json", json.dumps(self.clock.account.record(), indent=1) + "\n")

    def _download(self, *names: str) -> None:
        for name in names:
            if self._remote and (self._remote / name).exists():
                (self._folder / name).write_bytes((self._remote / name).read_bytes())

    def _states(self) -> dict:
        """{file of the temporary folder: (size, time of change)}."""
        files = [path for path in self._folder.rglob("*") if path.is_file()]
        return {path: (path.stat().st_size, path.stat().st_mtime_ns) for path in files}

    def _upload(self) -> None:
        """Uploads the files that have changed since the last upload."""
        for path, state in self._states().items():
            if self._sent.get(path) != state:
                target = self._remote / str(path.relative_to(self._folder))
                target.parent.mkdir(parents=True, exist_ok=True)
                target.write_bytes(path.read_bytes())
                self._sent[path] = state


class Lines:
    """A file on a disk to which whole lines are added. Characters that are no UTF-8 are written as \\udc80.

    `write` raises OSError; if a full disk cuts a line short, the next line starts on a new one.
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
    """A new file of events for TensorBoard. tensorboardX's own writer waits for ever when a disk is full.

    step: the restored step; TensorBoard hides what an interrupted run wrote after it.
    """
    folder.mkdir(parents=True, exist_ok=True)
    events = EventsWriter(str(folder / "events"), "" if step is None else f".from{step}")
    if step is not None:
        start = SessionLog(status=SessionLog.START)
        events.write_event(Event(wall_time=time.time(), step=step + 1, session_log=start))
    events.flush()
    return events


def write_whole(path: Path, text: str) -> None:
    """Writes a file on a disk as a whole: a kill leaves the old file or the new one."""
    temporary = path.with_suffix(".tmp")
    temporary.write_text(text)
    temporary.replace(path)


def trim(path: Path, step: int | None) -> None:
    """Keeps the whole lines of a metrics.jsonl up to and including `step`; none for a run from the start (None)."""
    if not path.exists():
        return
    kept = []
    if step is not None:
        # A kill can cut a line in the middle of a character.
        for line in path.read_bytes().decode(errors="replace").splitlines():
            with_step = _parse(line)
            if with_step is not None and with_step.get("step", math.inf) <= step:
                kept.append(line + "\n")
    write_whole(path, "".join(kept))


def json_line(record: dict) -> str:
    """One line of strict JSON; floats at full precision, `null` for those that are not finite."""
    return json.dumps(_strict(record), allow_nan=False) + "\n"


def _strict(value):
    if isinstance(value, dict):
        return {key: _strict(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [_strict(item) for item in value]
    if isinstance(value, float) and not math.isfinite(value):
        return None
    return value


def plain_number(value) -> int | float:
    """A Python number for any scalar: NumPy's, jax's, bool's."""
    value = value.item() if hasattr(value, "item") else value
    return int(value) if isinstance(value, bool | int) else float(value)


def _parse(line: str) -> dict | None:
    try:
        record = json.loads(line)
    except ValueError:
        return None
    return record if isinstance(record, dict) else None
