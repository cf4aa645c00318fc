"""The timings of `accelerator.py`: rivals compiled in processes of their own, then turns of one after the other."""

import contextlib
import json
import os
import queue
import signal
import statistics
import subprocess
import sys
import threading
from pathlib import Path

from accelerator_children import ROOT, Clock, environment, kill, last_lines

TURNS, SMALL_TURNS = 5, 2
READY = 240  # seconds that a rival may take to compile
ONE_TURN = 60  # seconds that a turn may take
SIDE = Path(__file__).with_name("accelerator_side.py")


class Rival:
    """A process that holds a compiled training step, and runs a turn of it when it is asked to."""

    def __init__(self, side: str, task: str, small: bool):
        # Each takes what memory it needs and no more; PyTorch's network borrows a function that is written in JAX.
        more = dict(XLA_PYTHON_CLIENT_PREALLOCATE="false") | (dict(JAX_PLATFORMS="cpu") if side == "torch" else {})
        command = [sys.executable, str(SIDE), side, task, *(["--small"] if small else [])]
        pipes = dict(stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)
        self.process = subprocess.Popen(command, cwd=ROOT, env=environment(**more), start_new_session=True, **pipes)
        self.lines, self.said = queue.Queue(), []
        threading.Thread(target=self._listen, daemon=True).start()

    def _listen(self) -> None:
        for line in self.process.stdout:
            if line.startswith("@"):
                self.lines.put(json.loads(line[1:]))
            else:
                self.said.append(line)
        self.lines.put(None)

    def answer(self, seconds: float) -> dict:
        """What it says next. Raises RuntimeError if it ends before, or takes longer."""
        try:
            told = self.lines.get(timeout=max(0.1, seconds))
        except queue.Empty:
            raise RuntimeError(f"no answer after {seconds:.0f} s: {last_lines(''.join(self.said))}") from None
        if told is None:
            raise RuntimeError(f"ended with {self.process.wait()}: {last_lines(''.join(self.said))}")
        return told

    def turn(self) -> dict:
        """Seconds of a step in each of its ways."""
        with contextlib.suppress(BrokenPipeError):
            print("turn", file=self.process.stdin, flush=True)
        return self.answer(ONE_TURN)

    def signal(self, number: int) -> None:
        with contextlib.suppress(ProcessLookupError):
            os.killpg(self.process.pid, number)


def rivals(task: str, both: bool, small: bool) -> dict[str, Rival]:
    """The sides of a task, which begin to compile."""
    return {side: Rival(side, task, small) for side in (("jax", "torch") if both else ("jax",))}


def measure(found: dict, clock: Clock, small: bool, save) -> None:
    """Fills `found` task by task. While one is timed the next one's processes are held; before that they compile."""
    from accelerator_tasks import TASKS, in_order  # late: it needs packages whose lack is this phase's error alone

    names = [name for name in in_order(small) if "fed" not in found.get(name, {}).get("jax", {})]
    ahead = {}
    try:
        for name, following in zip(names, [*names[1:], None]):
            if clock.left() < 10:
                break
            running = ahead or rivals(name, TASKS[name].rival, small)
            ahead = rivals(following, TASKS[following].rival, small) if following else {}
            try:
                found[name] = {"goal": TASKS[name].goal} | one(running, ahead, clock, SMALL_TURNS if small else TURNS)
            finally:
                stop(running)
            save()
            print(line(name, found[name]), flush=True)
    finally:
        stop(ahead)
    found["not reached"] = [name for name in names if name not in found]


def one(running: dict[str, Rival], ahead: dict[str, Rival], clock: Clock, turns: int) -> dict:
    """{side: facts and seconds, or its error}: the rivals take turns, and the median counts."""
    told, seconds = {}, {}
    for side, rival in running.items():
        with noting(told, side):
            told[side] = rival.answer(min(READY, clock.left()))
            seconds[side] = []
    for rival in ahead.values():
        rival.signal(signal.SIGSTOP)
    try:
        for _ in range(turns):
            for side in list(seconds):
                with noting(told, side):
                    seconds[side].append(running[side].turn())
                if "error" in told[side]:
                    del seconds[side]
            if clock.left() < 0:
                break
    finally:
        for rival in ahead.values():
            rival.signal(signal.SIGCONT)
    for side, rows in seconds.items():
        for way in rows[0] if rows else ():
            told[side][way] = summary([row[way] for row in rows], told[side])
    return told


@contextlib.contextmanager
def noting(told: dict, side: str):
    """What goes wrong in here is the side's error."""
    try:
        yield
    except RuntimeError as error:
        told[side] = told.get(side, {}) | {"error": str(error)}


def summary(seconds: list[float], facts: dict) -> dict:
    """Milliseconds of a step, images a second, and what share of the peak its FLOPs are, where both are known."""
    middle = statistics.median(seconds)
    peak, work = facts.get("peak"), facts.get("model_flops")
    return {"step_ms": 1e3 * middle, "least": 1e3 * min(seconds), "most": 1e3 * max(seconds), "turns": len(seconds),
            "images_per_second": facts["batch"] / middle,
            "utilisation": work / middle / peak if peak and work else None}  # fmt: skip


def stop(running: dict[str, Rival]) -> None:
    for rival in running.values():
        kill(rival.process)
        rival.process.wait()


def line(name: str, result: dict) -> str:
    """A task's row: images a second of both, by the way that both have, and what it was expected to reach."""
    ours, theirs = result.get("jax", {}), result.get("torch", {})
    if "fed" not in ours:
        return f"{name:<18} {ours.get('error', 'not measured').splitlines()[-1][:90]}"
    fed, same = ours["fed"], ours.get("alone", ours["fed"])
    used = "-" if fed["utilisation"] is None else f"{100 * fed['utilisation']:.0f} %"
    row = f"{name:<18}{ours['batch']:>6}{fed['step_ms']:>10.1f}{fed['images_per_second']:>11,.0f}{used:>7}"
    row += f"{same['images_per_second']:>11,.0f}"
    if "alone" in theirs:
        other = theirs["alone"]["images_per_second"]
        row += f"{other:>11,.0f}{same['images_per_second'] / other:>7.2f}"
    elif theirs:
        row += f"   {theirs.get('error', '').splitlines()[-1][:60]}"
    return row + (f"   goal {result['goal']:,.0f}" if result.get("goal") else "")


def table(found: dict) -> str:
    """All that was found, for people."""
    device, cifar = found["device"], found["cifar"]
    versions = ", ".join(f"{name} {version}" for name, version in device.get("versions", {}).items())
    lines = [f"{device.get('count', 0)} {device.get('kind', 'no device')}; {versions}"]
    for name, group in found["tests"].items():
        if isinstance(group, dict):
            lines.append(f"tests, {name}: {group['passed']} passed, {group['failed']} failed"
                         f"{', cut off' if group['cut'] else ''}")  # fmt: skip
            lines += [f"    {failure}" for failure in group["failures"]]
    head = f"{'':<18}{'batch':>6}{'ms a step':>10}{'images/s':>11}{'peak':>7}"
    lines.append(f"{head}{'step alone':>11}{'PyTorch':>11}{'times':>7}")
    lines += [line(name, result) for name, result in found["timings"].items() if isinstance(result, dict)]
    if "step" in cifar:
        rate, state = cifar["images_per_second"] or 0, "done" if cifar.get("done") else "to be gone on with"
        lines.append(f"CIFAR-10, SimCLR, ResNet-18: step {cifar['step']:,}, {rate:,.0f} images/s, {state}")
    lines += [f"    kNN, {name}: {100 * value:.1f} %" for name, value in cifar.get("knn", {}).items()]
    lines += [f"{phase}: {found[phase]['error']}" for phase in ("device", "tests", "timings", "cifar")
              if "error" in found[phase]]  # fmt: skip
    return "\n".join(lines)
