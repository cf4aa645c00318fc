"""How many images a second the host can prepare for a config, in each of the three modes. No step is computed.

The modes are measured in turns, so that other work of the machine slows all of them alike. The median of the turns is
reported.
"""

import os
import tempfile
import time
from datetime import date
from pathlib import Path

import numpy as np
from PIL import Image

from jax_ssl.data import pipeline
from jax_ssl.errors import UserError

WIDTH, HEIGHT, FILES = 500, 375, 64  # the median photograph of ImageNet, and how many are made of the sample
BATCH, TURNS = 64, 3
WARM_UP = 4  # batches that are not measured: as many as a pipeline prepares in advance


def run(config, batches: int = 4, spec: str = "") -> dict:
    """Measures, prints a table and returns the numbers. batches: of 64 images, in each turn.

    The images are the config's, if they are files (data.name=folder:PATH); otherwise JPEGs made of a sample photograph.
    """
    if batches < 1:
        raise UserError(f"--steps={batches}: measure at least one batch.")
    with tempfile.TemporaryDirectory() as folder:
        images = config.data.name
        if not images.startswith("folder:"):
            images, config.data.name = "a sample photograph", f"folder:{photographs(folder)}"
        rates = measure(config, batches)
    result = {
        "config": spec, "images": images, "cores": cores(), "date": date.today().isoformat(),
        "images_per_second_per_core": rates,
    }  # fmt: skip
    print(table(result))
    return result


def photographs(folder: str) -> str:
    """Writes JPEGs of ImageNet's usual size, crops of the photograph that comes with matplotlib; returns the folder."""
    import matplotlib

    picture = Image.open(Path(matplotlib.get_data_path()) / "sample_data" / "grace_hopper.jpg")
    numbers = np.random.default_rng(0)
    for number in range(FILES):
        part = numbers.uniform(0.6, 1.0)
        width, height = part * picture.width, part * picture.width * HEIGHT / WIDTH
        left, top = numbers.uniform(0, picture.width - width), numbers.uniform(0, picture.height - height)
        box = (left, top, left + width, top + height)
        picture.resize((WIDTH, HEIGHT), Image.Resampling.BICUBIC, box).save(f"{folder}/{number:03d}.jpg", quality=90)
    return folder


def measure(config, batches: int) -> dict[str, float]:
    """{mode: images per second and core}, the median over the turns."""
    seconds = {mode: [] for mode in ("host", "hybrid", "device")}
    for _ in range(TURNS):
        for mode, turns in seconds.items():
            stream = open_batches(config, mode)  # a new one each turn, so that no threads of another mode still run
            turns.append(time_batches(stream, batches))
            del stream
    return {mode: batches * BATCH / float(np.median(turns)) / cores() for mode, turns in seconds.items()}


def cores() -> int:
    """The number of CPU cores that this process may use, or of all where the system does not say."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count()


def time_batches(stream, batches: int) -> float:
    """Seconds that so many batches take, after the warm-up."""
    for _ in range(WARM_UP):
        next(stream)
    start = time.perf_counter()
    for _ in range(batches):
        next(stream)
    return time.perf_counter() - start


def open_batches(config, mode: str):
    """An endless iterator of the batches of a mode. With `device`, the host only draws numbers, whatever the images."""
    changed = config.copy_and_resolve_references()
    changed.batch_size, changed.data.augment = BATCH, mode
    if mode == "device":
        changed.data.name = "synthetic"
    return pipeline.open_data(changed).batches(0)


def table(result: dict) -> str:
    """The numbers as text, one line per mode."""
    rates = result["images_per_second_per_core"]
    lines = [f"{result['config']}, {result['images']}, {result['cores']} core(s)"]
    for mode, rate in rates.items():
        lines.append(f"{mode:<8} {rate:>9,.0f} images/s a core  {rate / rates['host']:>6.1f} times host")
    return "\n".join(lines)
