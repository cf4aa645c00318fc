"""Images a second and core: this library's input beside torchvision on PIL images, for the same recipes and files.

    pip install torch==2.13.0 && pip install --no-deps torchvision==0.28.0 timm
    taskset -c 0 python tests/benchmarks/input_vs_torchvision.py simclr dino     # one core, on a machine that is quiet

torchvision's loader is a function here, called image after image: a DataLoader's worker does no more. The three take
turns in one process, so that whatever else the machine does hits all, and the median turn counts.
"""

import os
import sys
import tempfile
import time
from pathlib import Path

os.environ.setdefault("JAX_PLATFORMS", "cpu")

import numpy as np  # noqa: E402
import torch  # noqa: E402
from PIL import Image  # noqa: E402
from torch_side import transform  # noqa: E402

from jax_ssl import config as configs  # noqa: E402
from jax_ssl.benchmark import input  # noqa: E402

IMAGES = 128  # a turn
MODES = ("host", "hybrid")


def torchvision_loader(config, folder: str):
    """-> function: count -> that many images read, decoded and made into all views of the config."""
    files = sorted(Path(folder).iterdir())
    mean, std = config.data.mean, config.data.std
    recipes = [recipe for group in config.data.crops.values() for recipe in group]
    made = [(recipe["count"], transform(recipe, mean, std)) for recipe in recipes]

    def load(count: int) -> None:
        for number in range(count):
            with Image.open(files[number % len(files)]) as opened:
                image = opened.convert("RGB")
            for views, apply in made:
                torch.stack([apply(image) for _ in range(views)])

    return load


def rates(config, folder: str) -> dict[str, float]:
    """{who: images a second}, on one core."""
    load, seconds = torchvision_loader(config, folder), {name: [] for name in ("torchvision", *MODES)}
    load(4)
    for _ in range(input.TURNS):
        start = time.perf_counter()
        load(IMAGES)
        seconds["torchvision"].append((time.perf_counter() - start) / IMAGES)
        for mode in MODES:
            stream = input.open_batches(config, mode)
            seconds[mode].append(input.time_batches(stream, IMAGES // input.BATCH) / IMAGES)
            del stream
    return {name: 1 / float(np.median(turns)) for name, turns in seconds.items()}


def main() -> None:
    if input.cores() > 1:
        sys.exit("The one function of torchvision has one core: give this process one, with `taskset -c 0`.")
    torch.set_num_threads(1)
    with tempfile.TemporaryDirectory() as folder:
        input.photographs(folder)
        for name in sys.argv[1:] or ("simclr", "dino"):
            config = configs.load(name, [f"--config.data.name=folder:{folder}"])
            measured = rates(config, folder)
            for who, rate in measured.items():
                ratio = rate / measured["torchvision"]
                print(f"{name:<8} {who:<12} {rate:>7,.0f} images/s a core  {ratio:>5.1f} times torchvision")


if __name__ == "__main__":
    main()
