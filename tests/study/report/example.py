"""The folder of a small run with everything that a page shows, made without training; names that try to be HTML."""

import json

import numpy as np
from PIL import Image

from jax_ssl.run import results
from tests.pictures import some_image
from tests.runs import save_run

EVIL = "<img src=x onerror=alert(1)>"
CLASSES = ("cats & dogs", EVIL, "ships")


def make_images(folder, each=14):
    """Three classes of images in files; the classes differ in brightness. One name of a file is HTML too."""
    for number, name in enumerate(CLASSES):
        (folder / name).mkdir(parents=True)
        for image in range(each):
            file = f"{EVIL}{image}.png" if number == 2 else f"{image}.png"
            pixels = some_image(32, 32, 100 * number + image) // 2 + 60 * number
            Image.fromarray(pixels.astype(np.uint8)).save(folder / name / file)
    return folder


def make_run(folder, name="simclr", images=None):
    """The folder of a run of `name` under `folder`, on the images of `make_images`."""
    images = images or make_images(folder / "images")
    # Nearly all images are test images: the probe learns from the rest.
    run = save_run(folder / "runs" / f"{name}{EVIL[:4]}", name, f"--config.data.name=folder:{images}")
    lines = [{"step": step, "loss": 5.0 - step, "uniform_loss": 6.2, "feature_std": 0.9, "knn": 0.3 + step / 50,
              "linear": 0.4, "rankme": 20.0, "skipped": 0, "data_wait_share": 0.1, "learning_rate": 1e-3 / step,
              "images_per_second": 500.0, "own number": float(step)} for step in (1, 2, 3)]  # fmt: skip
    (run / "metrics.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines))
    (run / "data.json").write_text(json.dumps({"name": f"folder:{images}", "class_names": sorted(CLASSES)}))
    (run / "goodput.json").write_text(json.dumps({"seconds": {"step": 60.0, "compile": 30.0, "down": 10.0}}))
    (run / "log.txt").write_text(
        "2026-01-02 03:04:05+00:00  method     simclr trains resnet\n"
        "2026-01-02 03:04:05+00:00  length     1 epochs are 3 steps of 32 images\n"
        f"2026-01-02 03:04:05+00:00  note       {EVIL} is a strange name\n"
    )
    for weights, value in (("pixels", 0.378), ("untrained", 0.286), ("student", 0.44)):
        record_accuracies(run, weights, value)
    (run / "pictures").mkdir()
    for step in (1, 3):
        Image.fromarray(some_image(40, 60, step)).save(run / "pictures" / f"views_{step:07d}.png")
    return run


def record_accuracies(run, weights, value, step=3, **protocol):
    where = dict(data="here", split="test", step=step, seed=0)
    protocol = {"test_images": 1000, "frozen": True} | protocol
    for k in (10, 20):
        results.record_result(run, "knn", weights, "top1", value - (k == 10) / 100, k=k, protocol=protocol, **where)
    results.record_result(run, "linear", weights, "top1", value + 0.05, k=None, protocol=protocol, **where)
