"""What a user sees while a run trains: a bar on a terminal, one line per log step elsewhere. Also the clock of a run.

Nothing here uses a device: the clock reads host time, which costs a few microseconds per step.
"""

import contextlib
import math
import sys
import threading
import time
from collections.abc import Iterator

from tqdm import tqdm

from jax_ssl.run.goodput import Account
from jax_ssl.run.watchdog import calling_after

WIDTH = 9  # columns of a number in a plain line
# {metric: its name in a line} of those that are shown.
SHOWN = {"loss": "loss", "learning_rate": "lr", "knn": "knn", "linear": "linear", "feature_std": "feature_std",
         "rankme": "rankme"}  # fmt: skip


def shown(metrics: dict) -> dict[str, str]:
    """{metric: its name in a line} of those worth a column; a method's own puzzle comes last."""
    own = {name: name.removeprefix("pretext_") for name in metrics if name.startswith("pretext_")}
    return {name: short for name, short in SHOWN.items() if name in metrics} | own


class Clock:
    """Throughput and data wait between two calls of `read`; pauses (compiling, evaluating, saving) do not count.

    account: where all seconds of the run went, pauses included; see goodput.py.
    """

    def __init__(self, images_per_step: int, now=time.perf_counter):
        self.images_per_step = images_per_step
        self._now = now
        self.account = Account()
        self._begin()

    def next(self, batches: Iterator):
        """The next batch; the time spent in here is the data wait."""
        start = self._now()
        with self.account.count_as("data"):
            batch = next(batches)
        self._waited += self._now() - start
        return batch

    def tick(self) -> None:
        """One step was dispatched."""
        self._steps += 1

    @contextlib.contextmanager
    def paused(self, kind: str):
        """Inside `with` is work other than training: one of the KINDS of goodput.py."""
        start = self._now()
        try:
            with self.account.count_as(kind):
                yield
        finally:
            self._paused += self._now() - start

    def read(self) -> dict[str, float]:
        """{images_per_second, step_seconds, data_wait in seconds, data_wait_share 0 to 1} since the last call.

        {} if there was no step.
        """
        seconds = max(self._now() - self._start - self._paused, 1e-9)
        steps, waited = self._steps, self._waited
        self._begin()
        if steps == 0:
            return {}
        return {
            "images_per_second": steps * self.images_per_step / seconds,
            "step_seconds": seconds / steps,
            "data_wait": waited,
            "data_wait_share": min(waited / seconds, 1.0),
        }

    def _begin(self):
        self._start, self._steps, self._waited, self._paused = self._now(), 0, 0.0, 0.0


class Progress:
    """`tick` moves the bar by a step, `show` shows new metrics, `say` prints a sentence without breaking the bar."""

    def __init__(self, total: int, start: int = 0, stream=None):
        self.total = total
        self._stream = sys.stdout if stream is None else stream
        self._bar = None
        if total and self._stream.isatty():
            self._bar = tqdm(
                total=total,
                initial=start,
                file=self._stream,
                dynamic_ncols=True,
                bar_format="{percentage:3.0f}% {bar} step {n_fmt}/{total_fmt}, ETA {remaining}{postfix}",
            )

    def tick(self) -> None:
        if self._bar is not None:
            self._bar.update(1)

    def show(self, step: int, metrics: dict) -> str:
        """Shows the metrics of a step; returns the plain line, for the log."""
        line = plain_line(step, self.total, metrics)
        if self._bar is None:
            print(line, file=self._stream, flush=True)
        else:
            self._bar.set_postfix_str(_short(metrics), refresh=False)
            self._bar.n = max(self._bar.n, step)
            self._bar.refresh()
        return line

    def say(self, sentence: str) -> None:
        if self._bar is None:
            print(sentence, file=self._stream, flush=True)
        else:
            self._bar.write(sentence, file=self._stream)

    def close(self) -> None:
        if self._bar is not None:
            self._bar.close()
            self._bar = None


class Counter:
    """Shows how many of `total` images were done: a bar on a terminal, elsewhere a line every EVERY seconds.

    what: a few words on the work. Work that takes less than a few seconds shows nothing.
    """

    EVERY = 20.0

    def __init__(self, what: str, total: int, say=print, stream=None, now=time.monotonic):
        self.what, self.total, self.done, self._say, self._now = what, total, 0, say, now
        self._start = self._last = now()
        stream = sys.stdout if stream is None else stream
        form = "{desc} {percentage:3.0f}% {bar} {n_fmt}/{total_fmt} images, {rate_fmt}, ETA {remaining}"
        options = dict(total=total, desc=what, file=stream, delay=2, leave=False, dynamic_ncols=True, bar_format=form)
        self._bar = tqdm(**options) if stream.isatty() else None

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self.close()

    def add(self, count: int) -> None:
        """So many more images are done."""
        self.done += count
        if self._bar is not None:
            self._bar.update(count)
        elif self._now() - self._last >= self.EVERY and self.done < self.total:
            self._last = self._now()
            speed = self.done / (self._last - self._start)
            left = _duration((self.total - self.done) / speed)
            self._say(f"{self.what}: {self.done:,} of {self.total:,} images, {speed:,.0f} images/s, ETA {left}")

    def close(self) -> None:
        if self._bar is not None:
            self._bar.close()


@contextlib.contextmanager
def told_if_slow(work: str, done: str, say, seconds: float = Counter.EVERY):
    """Inside `with` is work that can't say how far it is: after some seconds, and then at its end, one line tells.

    work, done: two sentences; {seconds} in the second one is how long it took.
    """
    begun, slow = time.monotonic(), threading.Event()
    with calling_after(seconds, lambda: (slow.set(), say(work))):
        yield
    if slow.is_set():
        say(done.format(seconds=f"{time.monotonic() - begun:.0f} s"))


def plain_line(step: int, total: int, metrics: dict) -> str:
    """`step   120/2000  loss   5.1234  1830 images/s  data wait  3 %  ETA 0:01:30`, in columns of fixed width."""
    digits = len(str(total or 10**6))
    parts = [f"step {step:>{digits}}" + (f"/{total}" if total else "")]
    parts += [f"{short} {_number(metrics[name]):>{WIDTH}}" for name, short in shown(metrics).items()]
    if "images_per_second" in metrics:
        parts.append(f"{metrics['images_per_second']:>{WIDTH},.0f} images/s")
        parts.append(f"data wait {100 * metrics['data_wait_share']:>3.0f} %")
        if total:
            parts.append(f"ETA {_duration((total - step) * metrics['step_seconds'])}")
    return "  ".join(parts)


def _short(metrics: dict) -> str:
    parts = [f"{SHOWN[name]} {_number(metrics[name])}" for name in ("loss", "knn") if name in metrics]
    if "images_per_second" in metrics:
        parts.insert(0, f"{metrics['images_per_second']:,.0f} images/s")
        parts.append(f"data wait {100 * metrics['data_wait_share']:.0f} %")
    return ", ".join(parts)


def _number(value) -> str:
    return f"{value:.4f}" if math.isfinite(value) and 1e-3 <= abs(value) < 1e4 or value == 0 else f"{value:.2e}"


def _duration(seconds: float) -> str:
    minutes, seconds = divmod(round(max(seconds, 0)), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours}:{minutes:02d}:{seconds:02d}"
