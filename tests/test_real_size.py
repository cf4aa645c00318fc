"""At the size that people train at: 5 000 JPEGs, 224 pixels, ResNet-50 and ViT-S, from the first step to the pictures.

    pytest -n 0 -m slow -s tests/test_real_size.py

Each command is a process of its own, whose seconds and peak memory are printed. docs/real_size.md has what was seen.
"""

import json
import os
import shutil
import signal
import subprocess
import sys
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from jax_ssl.data.sources import open_source

ROOT = Path(__file__).parents[1]
GIB = 2**30
BOUND = 8 * GIB  # of each process
STEPS, BATCH, IMAGES = 10, 8, 5000
COMMON = [f"--config.batch_size={BATCH}", f"--config.epochs={STEPS * BATCH / 4500}", "--config.log_every=1",
          "--config.data.augment=hybrid", "--config.data.workers=2", "--config.optim.warmup_epochs=0",
          "--config.model.dtype=float32"]  # fmt: skip
RUNS = {
    "resnet50": ["--config=configs/simclr.py", "--config.data.probe.train=40", "--config.data.probe.test=40"],
    "vit_s": ["--config=configs/mae.py:base", "--config.model.width=384", "--config.model.heads=6",
              "--config.data.probe.train=400", "--config.data.probe.test=100"],
}  # fmt: skip


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """The embedded images, enlarged to 400 to 500 pixels, with grain: 500 JPEGs in each of ten class folders."""
    root = tmp_path_factory.mktemp("images")
    source = open_source("embedded", "train")
    grain = np.random.RandomState(0).randint(-20, 21, (600, 600, 3)).astype(np.int16)

    def save(record):
        random = np.random.RandomState(record)
        height, width = random.randint(400, 501, 2)
        y, x = random.randint(0, 600 - 500, 2)
        large = np.asarray(source.read(record).resize((width, height), Image.Resampling.BICUBIC), np.int16)
        pixels = np.clip(large + grain[y : y + height, x : x + width], 0, 255).astype(np.uint8)
        Image.fromarray(pixels).save(root / str(source.labels[record]) / f"{record}.jpg", quality=85)

    for label in range(10):
        (root / str(label)).mkdir()
    with ThreadPoolExecutor(2) as pool:
        list(pool.map(save, range(IMAGES)))
    yield root
    shutil.rmtree(root)


def command(name, *arguments, until=None):
    """Runs the verb in a child; asserts that it ends well and within BOUND, and returns what it printed.

    until: a function of nothing; when it says True, the child gets SIGTERM.
    """
    environ = {key: value for key, value in os.environ.items() if key != "XLA_FLAGS"}
    begun, stopped = time.monotonic(), False
    with subprocess.Popen([sys.executable, "-m", "jax_ssl", *arguments], env=environ, text=True, cwd=ROOT,
                          stdout=subprocess.PIPE, stderr=subprocess.STDOUT) as child:  # fmt: skip
        with ThreadPoolExecutor(1) as reader:
            printed = reader.submit(child.stdout.read)
            while True:
                pid, status, usage = os.wait4(child.pid, os.WNOHANG)
                if pid:
                    break
                if until is not None and not stopped and until():
                    child.send_signal(signal.SIGTERM)
                    stopped = True
                time.sleep(0.2)
            child.returncode = os.waitstatus_to_exitcode(status)
            text = printed.result()
    peak = usage.ru_maxrss * (1 if sys.platform == "darwin" else 1024)
    print(f"{name:34} {time.monotonic() - begun:6.0f} s  {peak / GIB:5.2f} GiB", flush=True)
    assert child.returncode == 0, text
    assert peak < BOUND, f"{peak / GIB:.1f} GiB: {text}"
    return text


def lines(run, name):
    """The objects of a file of the run, without a line that is being written."""
    text = (run / name).read_text() if (run / name).exists() else ""
    return [json.loads(line) for line in text.rpartition("\n")[0].splitlines()]


def steps_of(run):
    return [line["step"] for line in lines(run, "metrics.jsonl")]


@pytest.mark.slow
@pytest.mark.parametrize("name", RUNS)
def test_train_stop_resume_evaluate_and_draw(name, folder, tmp_path):
    run = tmp_path / name
    flags = ["train", *RUNS[name], *COMMON, f"--config.data.name=folder:{folder}", f"--workdir={run}"]
    print()
    command(f"{name}: train, stopped by a signal", *flags, until=lambda: steps_of(run))
    assert 1 <= steps_of(run)[-1] < STEPS
    command(f"{name}: resume to the end", *flags)
    assert steps_of(run) == list(range(1, STEPS + 1))
    seconds = sorted(line["step_seconds"] for line in lines(run, "metrics.jsonl"))[STEPS // 2]
    print(f"{name}: {STEPS} steps of {BATCH} images, {seconds:.1f} s each", flush=True)
    drawn = {path.name for path in (run / "pictures").iterdir()}
    assert any(name.startswith("views_") for name in drawn) and "curves.png" in drawn

    printed = command(f"{name}: evaluate", "evaluate", f"--run={run}")
    assert "raw pixels, at 32 x 32" in printed
    found = {(record["weights"], record["task"]) for record in lines(run, "results.jsonl")}
    assert {(w, task) for w in ("pixels", "untrained", "student") for task in ("knn", "linear")} <= found
    whole = ["--config.data.probe.train=0", "--config.data.probe.test=0"]
    command(f"{name}: evaluate, pixels of all", "evaluate", f"--run={run}", "--weights=pixels", *whole)
    protocol = lines(run, "results.jsonl")[-1]["protocol"]
    assert protocol["train_images"] + protocol["test_images"] == IMAGES and protocol["resized_to"] == 32

    command(f"{name}: visualize", "visualize", f"--run={run}", "--count=4")
    assert (run / "pictures" / "pca_student.png").exists()
