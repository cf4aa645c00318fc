"""The phases of `accelerator.py` that are other programs: what the device is, the tests, and the CIFAR-10 run."""

import json
import os
import re
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import NamedTuple

import numpy as np
import parts

ROOT = Path(__file__).parents[2]
GROUPS = {  # of tests that one device can run: files, what of them, and what the environment has to say
    "losses": (["tests/losses"], "not mesh", {}),
    "attention": (["tests/models/test_implementation.py", "tests/models/test_fused_attention.py",
                   "tests/models/test_attend.py"], "not mesh and not devices and not compiler", {}),
    "methods": (["tests/methods/test_contract.py", "tests/test_core.py"],
                "(gradient_reaches or can_be_frozen or cached) and (simclr or byol or dino or mae or ijepa)",
                {"JAX_DEFAULT_MATMUL_PRECISION": "highest"}),
    "the rest": (["tests/evaluate/test_knn.py", "tests/optim", "tests/views/test_device.py"],
                 "not mesh and not devices and not sharded", {"JAX_DEFAULT_MATMUL_PRECISION": "highest"}),
}  # fmt: skip
SMALL_GROUPS = {"one file": (["tests/losses/test_masked.py"], "", {})}
SAVING = 40  # seconds before the end in which a run is told to save and stop
LAST = 5  # seconds that are left for the table
TOO_LATE = 90  # seconds that are left when a run that has to compile first is not begun any more
EPOCHS = 200


class Clock:
    """The seconds that are left, of all or of the share that a phase may use."""

    def __init__(self, seconds: float, now=time.monotonic):
        self.seconds, self.now, self.start = seconds, now, now()

    def left(self) -> float:
        return self.start + self.seconds - self.now()

    def until(self, share: float) -> "Clock":
        """A clock that ends earlier, after that share of all the time."""
        other = Clock(share * self.seconds, self.now)
        other.start = self.start
        return other


class Ended(NamedTuple):
    """How a child ended: its exit code, or None where its time was over; and what it printed last."""

    code: int | None
    output: str


def environment(**more: str) -> dict[str, str]:
    """The variables of this process, with the package importable."""
    paths = os.pathsep.join([str(ROOT), *filter(None, [os.environ.get("PYTHONPATH")])])
    return {**os.environ, "PYTHONPATH": paths, "PYTHONUNBUFFERED": "1", "TF_CPP_MIN_LOG_LEVEL": "3", **more}


def kill(process: subprocess.Popen) -> None:
    """Ends a process and those that it started."""
    try:
        os.killpg(process.pid, signal.SIGKILL)
    except ProcessLookupError:
        pass


def child(arguments: list[str], seconds: float, politely: float = 0.0, **more: str) -> Ended:
    """Runs Python with these arguments in the repository, for so long at most.

    politely: seconds that it gets after that to end on a SIGTERM, before it is killed. more: environment variables.
    """
    process = subprocess.Popen([sys.executable, *arguments], cwd=ROOT, env=environment(**more), text=True,
                               stdout=subprocess.PIPE, stderr=subprocess.STDOUT, start_new_session=True)  # fmt: skip
    for wait, signals in ((max(1.0, seconds), False), (politely, True)):
        if signals:
            process.terminate()
        try:
            output, _ = process.communicate(timeout=wait)
            return Ended(None if signals and process.returncode < 0 else process.returncode, output)
        except subprocess.TimeoutExpired:
            pass
    kill(process)
    return Ended(None, process.communicate()[0])


DEVICE = """
import importlib.metadata as m, json, jax
d = jax.devices()
names = ("jax", "jaxlib", "flax", "optax", "orbax-checkpoint", "numpy", "torch")
versions = {n: m.version(n) for n in names if any(True for _ in m.distributions(name=n))}
memory = (d[0].memory_stats() or {}).get("bytes_limit")
print("@" + json.dumps({"platform": jax.default_backend(), "kind": d[0].device_kind, "count": len(d), "memory": memory,
                        "versions": versions}))
"""


def told(output: str) -> list[dict]:
    """The lines of an output that begin with @, as JSON."""
    return [json.loads(line[1:]) for line in output.splitlines() if line.startswith("@")]


def device_facts(clock: Clock) -> dict:
    """What the device is, and the versions of what is installed."""
    ended = child(["-c", DEVICE], min(90.0, clock.left()))
    if not told(ended.output):
        raise RuntimeError(f"jax does not start: {last_lines(ended.output)}")
    return told(ended.output)[-1]


def last_lines(output: str, count: int = 6) -> str:
    return "\n".join(output.strip().splitlines()[-count:])[-1500:]


def run_tests(state: dict, clock: Clock, platform: str, small: bool) -> None:
    """Fills `state` with the outcome of each group of tests; a group that passed in an earlier call is left out.

    Losses ask for the precision that they need, and run as they are. Methods compare networks in float32, which a GPU
    would multiply in TF32: they run at the highest precision. platform: what JAX calls it; the CPU, which some tests
    compare with, comes second.
    """
    for name, (files, chosen, more) in (SMALL_GROUPS if small else GROUPS).items():
        if state.get(name, {}).get("failed", 1) == 0 and not state[name]["cut"]:
            continue
        there = [file for file in files if (ROOT / file).exists()]
        flags = ["-q", "--no-header", "-p", "no:cacheprovider", "-W", "default", *(["-k", chosen] if chosen else [])]
        ended = child(["-m", "pytest", *flags, *there], clock.left(), JAX_SSL_TESTS_ON=platform, **more)
        state[name] = outcome(ended)


def outcome(ended: Ended) -> dict:
    """{"passed", "failed", "cut", "failures"} of a call of pytest. cut: its time was over, and its dots are counted."""
    marks = "".join(re.findall(r"^([.sxFE]+)(?:\s+\[|$)", ended.output, re.M))
    found = re.findall(r"(\d+) (passed|failed|skipped|error)", ended.output.splitlines()[-1] if ended.output else "")
    counts = {word: int(number) for number, word in found}
    failed = counts.get("failed", 0) + counts.get("error", 0) if counts else sum(map(marks.count, "FE"))
    state = {"passed": counts.get("passed", marks.count(".")), "failed": failed, "cut": ended.code is None,
             "failures": re.findall(r"^(?:FAILED|ERROR) (.{0,300})", ended.output, re.M)}  # fmt: skip
    if not marks and not state["cut"]:  # it did not even begin
        state |= {"failed": max(1, failed), "failures": state["failures"] or [last_lines(ended.output)]}
    return state


def joined(folder: Path | None, run: Path, small: bool) -> str:
    """The run's `data.name`: the parts as one file beside the run, or the embedded images at a small size."""
    if folder is None:
        if small:
            return "embedded"
        raise ValueError("no --data was given: there is no CIFAR-10 run without its images")
    file = run.with_suffix(".npz")
    if not file.exists():
        np.savez(file, **parts.join(folder))
    return f"arrays:{file}"


def train_cifar(state: dict, clock: Clock, run: Path, data: Path | None, small: bool) -> None:
    """Goes on with the run until it is done or the time is over, then measures kNN; fills `state`."""
    if "knn" in state:
        return
    name = joined(data, run, small)
    settings = dict(probe_every=0, picture_every=0, evaluate_at_end=False, checkpoint_every=500, log_every=20)
    settings |= dict(epochs=0.1, batch_size=32) if small else dict(epochs=EPOCHS)
    settings |= {"model.stages": "(1,)", "model.width": 0.125} if small else {}
    overrides = [f"--config.{key}={value}" for key, value in {"data.name": name, **settings}.items()]
    if clock.left() < TOO_LATE and not small:
        raise RuntimeError(f"{clock.left():.0f} s were left, too few to compile the step and save: give more --minutes")
    if not state.get("done"):
        ended = child(["-m", "jax_ssl", "train", "--config=simclr:resnet18", f"--workdir={run}", *overrides],
                      clock.left() - SAVING, politely=SAVING - LAST)  # fmt: skip
        lines = (run / "metrics.jsonl").read_text().splitlines() if (run / "metrics.jsonl").exists() else []
        rows = [json.loads(line) for line in lines]
        rates = sorted(row["images_per_second"] for row in rows if "images_per_second" in row)
        last = {key: rows[-1][key] for key in ("step", "loss") if key in rows[-1]} if rows else {}
        middle = rates[len(rates) // 2] if rates else None
        state |= last | {"images_per_second": middle, "said": last_lines(ended.output)}
        if ended.code not in (0, None):
            raise RuntimeError(f"train ended with {ended.code}: {last_lines(ended.output)}")
        state["done"] = ended.code == 0 and "stopped at step" not in ended.output
    if state["done"]:
        weights = "student" if small else "pixels,untrained,student"
        command = ["-m", "jax_ssl", "evaluate", f"--run={run}", "--task=knn", f"--weights={weights}"]
        ended = child(command, clock.left() - LAST)
        results = [json.loads(line) for line in (run / "results.jsonl").read_text().splitlines()]
        state["knn"] = {f"{r['weights']} k={r['k']}": r["value"] for r in results if r["task"] == "knn" and "k" in r}
        if ended.code != 0:
            raise RuntimeError(f"evaluate ended with {ended.code}: {last_lines(ended.output)}")
