"""The peak memory of `evaluate` on a folder of many photographs, above their features.

    python tests/benchmarks/evaluate_large.py --images=60000 --size=224 --task=knn,logreg,cluster

Makes a folder of ten classes, of links to a few hundred JPEG files of 256 x 256, and measures a file of weights in a
process of its own. Prints seconds, the peak of its memory, and what that is above the features.
"""

import argparse
import os
import resource
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import numpy as np
from PIL import Image

CLASSES, FILES = 10, 400
FILE = Path(__file__).parents[1] / "golden" / "dino_vit.pth"


def make_folder(root: Path, count: int) -> None:
    """`count` images in ROOT/images/CLASS, all but FILES of them links to other names of the same files."""
    random, kept = np.random.default_rng(0), root / "kept"
    kept.mkdir()
    for number in range(FILES):
        coarse = random.integers(0, 256, (8, 8, 3)).astype(np.float32) / 2 + 12 * (number % CLASSES)
        picture = Image.fromarray(coarse.clip(0, 255).astype(np.uint8)).resize((256, 256), Image.Resampling.BICUBIC)
        picture.save(kept / f"{number}.jpg", quality=90)
    for label in range(CLASSES):
        (root / "images" / f"class{label}").mkdir(parents=True)
    for number in range(count):
        os.link(kept / f"{number % FILES}.jpg", root / "images" / f"class{number % CLASSES}" / f"{number:06}.jpg")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--images", type=int, default=60_000)
    parser.add_argument("--size", type=int, default=224)
    parser.add_argument("--task", default="knn,logreg")
    parser.add_argument("--weights", default=str(FILE))
    args = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        make_folder(Path(folder), args.images)
        words = [sys.executable, "-m", "jax_ssl", "evaluate", f"--weights={args.weights}", f"--out={folder}/out",
                 f"--data=folder:{folder}/images", f"--size={args.size}", f"--task={args.task}",
                 "--which=student"]  # fmt: skip
        begun = time.perf_counter()
        environment = os.environ | {"JAX_SSL_CACHE": f"{folder}/cache"}
        done = subprocess.run(words, cwd=Path(__file__).parents[2], env=environment)
        seconds = time.perf_counter() - begun
        peak = resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss / 2**20
        features = sum(file.stat().st_size for file in Path(folder, "out", "features").glob("*.npy")) / 2**30
    print(f"exit code {done.returncode}, {seconds:.0f} s, peak {peak:.2f} GB: {peak - features:.2f} GB above the "
          f"{features:.3f} GB of features")  # fmt: skip
    sys.exit(done.returncode)


if __name__ == "__main__":
    main()
