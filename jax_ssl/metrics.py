"""A run's numbers, in the forms that people and tools read: JSON lines, TensorBoard, a log, a bar.

    writer = Writer(workdir, step=restored_step, total=steps, images_per_step=batch_size)
    batch = writer.clock.next(batches)              # measures the data wait
    writer.tick()                                   # every step
    writer.update(step, metrics)                    # every log step
    writer.say("a sentence")                        # terminal and log.txt

A killed run may leave a torn last line, and lines past its last checkpoint; a resumed run removes both first, so each
step stands in metrics.jsonl once. Numbers that are not finite are `null`: JSON has no NaN, and a string would break
whoever plots the column.
"""

import datetime
import json
import math
import shutil
import tempfile
import time
from pathlib import Path

from etils import epath
from tensorboardX import SummaryWriter

from jax_ssl.progress import Clock, Progress

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
        if not active:
            return
        self._remote = epath.Path(workdir) if is_remote(workdir) else None
        self._folder = Path(tempfile.mkdtemp()) if self._remote else Path(workdir)
        self._folder.mkdir(parents=True, exist_ok=True)
        self._uploaded = time.monotonic()
        self._download("metrics.jsonl", "log.txt", "goodput.json")
        trim(self._folder / "metrics.jsonl", step)
        self._resume_account(step or 0)
        self._lines = (self._folder / "metrics.jsonl").open("a")
        self._log = (self._folder / "log.txt").open("a")
        # purge_step hides what an interrupted run drew past the step from which this one goes on.
        purge, name = (None, "") if step is None else (step + 1, f".from{step}")
        events = str(self._folder / "events")
        self._events = SummaryWriter(events, purge_step=purge, flush_secs=30, filename_suffix=name)
        self._progress = Progress(total, step or 0)

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
            self._lines.write(json_line({"step": int(step), **metrics}))
            self._lines.flush()
            for name, value in metrics.items():
                if math.isfinite(value):
                    self._events.add_scalar(name, value, int(step))
            self._note(self._progress.show(int(step), metrics))
            self._keep_account()
            if self._remote and time.monotonic() - self._uploaded > UPLOAD_SECONDS:
                self.flush()
        return metrics

    def saved(self, step: int) -> None:
        """The step can be gone on from."""
        self.clock.account.mark(step)
        self._keep_account()

    def say(self, sentence: str) -> None:
        """One sentence for the person who watches, and for the log."""
        if self.active:
            self._progress.say(sentence)
            self._note(sentence)

    def flush(self) -> None:
        """All that was written is on disk, or uploaded."""
        if not self.active:
            return
        self._lines.flush()
        self._log.flush()
        self._events.flush()
        if self._remote:
            self._upload()
            self._uploaded = time.monotonic()

    def close(self) -> None:
        if not self.active:
            return
        self._progress.close()
        self._events.close()
        self.flush()
        self._lines.close()
        self._log.close()
        if self._remote:
            shutil.rmtree(self._folder)
        self.active = False

    def _note(self, text: str) -> None:
        now = datetime.datetime.now().astimezone().isoformat(sep=" ", timespec="seconds")
        self._log.write(f"{now}  {text}\n")
        self._log.flush()

    def _resume_account(self, step: int) -> None:
        """Goes on with the account of time of the attempts before; one that a kill has torn is lost."""
        path = self._folder / "goodput.json"
        record = _parse(path.read_text()) if path.exists() else None
        if record is not None:
            self.clock.account.resume(record, step)

    def _keep_account(self) -> None:
        if self.active:
            temporary = self._folder / "goodput.tmp"
            temporary.write_text(json.dumps(self.clock.account.record(), indent=1) + "\n")
            temporary.replace(self._folder / "goodput.json")

    def _download(self, *names: str) -> None:
        for name in names:
            if self._remote and (self._remote / name).exists():
                (self._folder / name).write_bytes((self._remote / name).read_bytes())

    def _upload(self) -> None:
        for path in self._folder.rglob("*"):
            if path.is_file():
                target = self._remote / str(path.relative_to(self._folder))
                target.parent.mkdir(parents=True, exist_ok=True)
                target.write_bytes(path.read_bytes())


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
    temporary = path.with_suffix(".tmp")
    temporary.write_text("".join(kept))
    temporary.replace(path)


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

    weights: "pixels", "untrained", "student", "teacher" or a name; k: None where the task has none.
    """
    record = dict(task=task, weights=weights, metric=metric, value=_plain(value), data=data, split=split)
    record |= dict(k=k, protocol=protocol, step=int(step), seed=int(seed))
    path = epath.Path(workdir) / "results.jsonl"
    path.parent.mkdir(parents=True, exist_ok=True)
    before = path.read_bytes() if path.exists() else b""
    whole = before[: before.rfind(b"\n") + 1]  # without the line that a kill has torn
    line = json_line(record).encode()
    if is_remote(workdir) or whole != before:
        path.write_bytes(whole + line)
    else:
        with path.open("ab") as file:  # one write, so that a training run and an evaluation may both append
            file.write(line)
    return record


def json_line(record: dict) -> str:
    """One line of strict JSON; floats in full, what is not finite as null."""
    return json.dumps(_strict(record), allow_nan=False) + "\n"


def is_remote(path) -> bool:
    return "://" in str(path)


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
