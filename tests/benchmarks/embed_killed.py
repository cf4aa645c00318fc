"""`embed` of many images, killed with SIGKILL at random moments, ends with the bytes of a call that was not killed.

    python -m tests.benchmarks.embed_killed npz                     # or parquet, or projector
    python -m tests.benchmarks.embed_killed parquet --images=2000 --kills=3 --seed=1

It makes the images, small JPEGs with all kinds of names and some that can't be read, and a tiny untrained network. Then
it runs the command once undisturbed, and once with kills: the last one while the file itself is written. It prints what
was killed when, and what came out.
"""

import argparse
import hashlib
import os
import random
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import numpy as np
from PIL import Image

from tests.runs import save_run

ODD = (
    "<img src=x onerror=alert(1)>", "größe ångström", "写真", "صورة", "🦊 fox", "e\u0301 decomposed", "é composed",
    "two  spaces", "tab\there", "line\nbreak", "-rf", "'quoted' \"twice\"", "100% #1 &amp; ?x=1", "a;b|c`d$e",
    "no utf-8 \udcff\udcfe", "x" * 200,
)  # fmt: skip
BROKEN = 5  # files that are no image
OUT = {"npz": "x.npz", "parquet": "x.parquet", "projector": "x"}


def make_images(folder: Path, count: int) -> None:
    """`count` JPEGs of 64 pixels with odd names, most in folders, some at the top; the last BROKEN are no JPEG."""
    pixels = np.random.RandomState(0)
    for number in range(count):
        odd = ODD[number % len(ODD)] if number % 3 == 0 else "image"
        place = folder / f"class {number % 20}" / odd if number % 50 else folder
        place.mkdir(parents=True, exist_ok=True)
        file = place / f"{odd[:40]} {number}{('.jpg', '.JPEG')[number % 2]}"
        if number >= count - BROKEN:
            file.write_bytes(b"no image")
            continue
        small = Image.fromarray(pixels.randint(0, 256, (6, 6, 3), np.uint8))
        small.resize((64, 64), Image.Resampling.BICUBIC).save(file, "JPEG", quality=80)


def start(run: Path, images: Path, out: Path) -> subprocess.Popen:
    call = [sys.executable, "-m", "jax_ssl", "embed", f"--run={run}", f"--images={images}", f"--out={out}"]
    return subprocess.Popen(call, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)


def kill_when(process: subprocess.Popen, reached) -> None:
    """Kills the process by SIGKILL as soon as `reached()`; it must not have ended before."""
    while not reached():
        if process.poll() is not None:
            raise AssertionError(f"it ended before it was killed: {process.stdout.read()}")
        time.sleep(0.002)
    os.kill(process.pid, signal.SIGKILL)
    process.communicate()


def size(path: Path) -> int:
    try:
        return path.stat().st_size
    except FileNotFoundError:
        return 0


def images_done(features: Path, count: int) -> int:
    """How many of `count` images have features: a byte each in KEY.read, or all of them when there is KEY.npy."""
    return count if list(features.glob("*.npy")) else sum(map(size, features.glob("*.read")))


def digests(out: Path) -> dict[str, str]:
    files = sorted(out.iterdir()) if out.is_dir() else [out]
    return {file.name: hashlib.sha256(file.read_bytes()).hexdigest()[:16] for file in files}


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("kind", choices=OUT)
    parser.add_argument("--images", type=int, default=20_000)
    parser.add_argument("--kills", type=int, default=4)
    parser.add_argument("--seed", type=int, default=0)
    args = parser.parse_args()
    draw = random.Random(args.seed)
    with tempfile.TemporaryDirectory() as folder:
        root = Path(folder)
        run = save_run(root / "run", "moco")
        make_images(root / "images", args.images)
        (root / "whole").mkdir()
        (root / "killed").mkdir()
        begun = time.time()
        process = start(run, root / "images", root / "whole" / OUT[args.kind])
        told = process.communicate()[0]
        assert process.returncode == 0, told
        print(f"{args.kind}: {args.images:,} images in {time.time() - begun:.0f} s undisturbed", flush=True)
        shutil.rmtree(run / "features")
        out = root / "killed" / OUT[args.kind]
        done = lambda: images_done(run / "features", args.images)
        for share in sorted(draw.uniform(0.02, 0.98) for _ in range(args.kills)):
            wait = draw.uniform(0, 0.3)  # so that it is killed anywhere in a batch
            process, due = start(run, root / "images", out), []

            def reached(share=share, wait=wait, due=due):
                if not due and done() >= share * args.images:
                    due.append(time.time() + wait)
                return bool(due) and time.time() >= due[0]

            kill_when(process, reached)
            print(f"killed with {done():,} images done", flush=True)
        made = out.with_name(f".{out.name}.tmp")
        process = start(run, root / "images", out)
        kill_when(process, made.exists)
        print("killed while the file was written", flush=True)
        process = start(run, root / "images", out)
        told = process.communicate()[0]
        assert process.returncode == 0, told
        print("\n".join(line for line in told.splitlines() if "going on" in line or "could not" in line))
        assert digests(out) == digests(root / "whole" / OUT[args.kind])
        left = sorted(path.name for path in (root / "killed").iterdir())
        assert left == [out.name], left
        print("the same bytes:", digests(out), flush=True)
        check(args.kind, out, args.images)


def check(kind: str, out: Path, count: int) -> None:
    """Opens what was made as its readers do, and prints its size."""
    good = count - BROKEN
    if kind == "npz":
        found = np.load(out)
        assert found["features"].shape[0] == len(found["files"]) == len(found["labels"]) == good
        assert len(set(found["files"].tolist())) == good
        print(f"features {found['features'].shape}, {size(out) / 1e6:.1f} MB")
    elif kind == "parquet":
        import pandas

        found = pandas.read_parquet(out)
        assert len(found) == good and found["file"].is_unique
        print(found.dtypes.to_string(), f"\n{size(out) / 1e6:.1f} MB")
    else:
        rows = [(out / name).read_text(encoding="utf-8").count("\n") for name in ("tensors.tsv", "metadata.tsv")]
        assert rows == [good, good + 1]  # labels are a second column, so that there is a header
        sprite = Image.open(out / "sprite.png").size
        assert sprite[0] == sprite[1] <= 8192
        print(f"{good:,} points, sprite {sprite}, {sum(size(file) for file in out.iterdir()) / 1e6:.1f} MB")


if __name__ == "__main__":
    main()
