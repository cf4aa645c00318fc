"""Everything that is worth measuring on a machine with one GPU or TPU, in the minutes that there are.

    python tests/benchmarks/accelerator.py --minutes=8 --out=found.json --data=parts/   # on the machine
    python tests/benchmarks/accelerator.py --minutes=8 --out=found.json --data=parts/   # again: goes on
    python tests/benchmarks/accelerator.py --small --out=found.json                     # on a CPU, under a minute

The machine needs Python with jax, flax, optax, orbax, einops, ml_collections, tensorboardX and pytest, and PyTorch,
timm and torchvision for the comparison alone; no network, no TensorFlow. `parts/` is CIFAR-10 as `parts.py` writes it.

    tests     of losses, attention and methods, as far as one device can run them
    timings   training steps, compiled before, in turns with PyTorch's of the same network where there is one
    cifar     SimCLR, ResNet-18, 200 epochs; it goes on in the next call, and is measured by kNN when it is done

Each part runs in a process of its own, and what fails is noted and ends nothing else. The file is written after each
part, so that whoever is cut off keeps what was there. A later call with the same file does what is not there yet.
"""

import argparse
import datetime
import json
import os
import sys
import time
from pathlib import Path

from accelerator_children import ROOT, Clock, device_facts, run_tests, train_cifar
from accelerator_timings import measure, table

SHARES = {"tests": 0.2, "timings": 0.72}  # of the time, until which a phase may go on; the rest is the run's
SMALL_MINUTES = 4.0  # more than it takes


def read(path: Path) -> dict:
    """What earlier calls found, or the beginning of it."""
    if path.exists():
        return json.loads(path.read_text())
    return {"calls": [], "device": {}, "tests": {}, "timings": {}, "cifar": {}}


def write(path: Path, found: dict) -> None:
    """Written aside and renamed: whoever is cut off in here keeps the file of before."""
    aside = path.with_suffix(".tmp")
    aside.write_text(json.dumps(found, indent=1) + "\n")
    os.replace(aside, path)


def noted(found: dict, phase: str, path: Path, work) -> None:
    """Runs a phase, which fills found[phase] and may call what it is given to have that saved; notes its error."""
    start, state = time.monotonic(), found[phase]
    state.pop("error", None)
    try:
        work(state, lambda: write(path, found))
    except Exception as error:
        state["error"] = f"{type(error).__name__}: {error}"[-2000:]
    state["seconds"] = round(time.monotonic() - start, 1)
    write(path, found)
    print(f"{phase}: {state.get('error', 'done')}, {state['seconds']} s", flush=True)


def platform(found: dict) -> str:
    """What the tests' JAX_PLATFORMS is: the accelerator, and the CPU beside it."""
    kind = {"gpu": "cuda"}.get(found["device"].get("platform"), found["device"].get("platform", "cpu"))
    return kind if kind == "cpu" else f"{kind},cpu"


def main() -> None:
    flags = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    flags.add_argument("--minutes", type=float, help="until everything ends; default 8")
    flags.add_argument("--out", type=Path, required=True, help="the JSON file; the run lies beside it, as FILE.run")
    flags.add_argument("--data", type=Path, help="CIFAR-10 as a folder of parts; without it there is no CIFAR-10 run")
    flags.add_argument("--only", help="phases, with commas: tests, timings, cifar")
    flags.add_argument("--small", action="store_true", help="tiny networks, one file of tests: for a CPU")
    args = flags.parse_args()
    clock = Clock(60 * (args.minutes or (SMALL_MINUTES if args.small else 8)))
    phases = args.only.split(",") if args.only else ["tests", "timings", "cifar"]
    if unknown := set(phases) - {"tests", "timings", "cifar"}:
        sys.exit(f"--only={args.only}: there is no phase {', '.join(sorted(unknown))}.")
    args.out.parent.mkdir(parents=True, exist_ok=True)
    out = args.out.resolve()
    found = read(out)
    found["calls"].append({"when": datetime.datetime.now(datetime.UTC).isoformat(timespec="seconds"),
                           "arguments": sys.argv[1:]})  # fmt: skip
    os.chdir(ROOT)
    cache = out.with_suffix(".cache")  # of compiled programs, for the next call on the same machine
    os.environ.update(JAX_COMPILATION_CACHE_DIR=str(cache), TORCHINDUCTOR_CACHE_DIR=f"{cache}/torch")
    noted(found, "device", out, lambda state, save: state.update(device_facts(clock)))
    data = args.data and args.data.resolve()
    work = {
        "tests": lambda state, save: run_tests(state, clock.until(SHARES["tests"]), platform(found), args.small),
        "timings": lambda state, save: measure(state, clock.until(SHARES["timings"]), args.small, save),
        "cifar": lambda state, save: train_cifar(state, clock, out.with_suffix(".run"), data, args.small),
    }
    for phase in phases:
        noted(found, phase, out, work[phase])
    print(table(found))


if __name__ == "__main__":
    main()
