"""jax_ssl beside PyTorch on this machine's CPU: the same networks, losses and view recipes, each with its own pipeline.

    pip install torch==2.13.0 && pip install --no-deps torchvision==0.28.0 timm
    python tests/benchmarks/vs_torch.py      # both methods, ResNet-18 at full width; on a machine that is quiet
    python tests/benchmarks/vs_torch.py --only=simclr --width=16 --batch=256

PyTorch gets what makes it fastest here: channels-last convolutions, fused AdamW and attention, and the number of
DataLoader workers that a trial finds best. The two take turns in one process, so that whatever else the machine does
hits both; a ratio compares two neighbouring turns.
"""

import argparse
import os
import time

os.environ.setdefault("JAX_PLATFORMS", "cpu")

import jax  # noqa: E402
import numpy as np  # noqa: E402
import torch  # noqa: E402
from torch_side import Side, torch_side  # noqa: E402

from jax_ssl import config as configs  # noqa: E402
from jax_ssl import sharding, train  # noqa: E402
from jax_ssl.data import pipeline  # noqa: E402

BAR = 1.5
FLOAT32 = ["--config.data.name=embedded", "--config.data.augment=device", "--config.model.dtype=float32"]


def jax_side(config) -> Side:
    """What `jax_ssl train` runs: the real pipeline and the real compiled step."""
    data = pipeline.open_data(config)
    method, tx, _ = train.build(config, data.source.count)
    mesh, prepare = sharding.make_mesh(), train.preparation(config)
    shapes = jax.tree.map(lambda x: jax.ShapeDtypeStruct(x.shape, x.dtype), data.example)
    resident = sharding.replicate(data.resident, mesh)
    batches = data.batches(0)
    finished = jax.jit(prepare)(sharding.shard_batch(next(batches), mesh), resident)

    def runner(prepare, shapes, resident, next_batch):
        with jax.set_mesh(mesh):
            program = train.compile_step(method, tx, prepare, mesh, shapes, resident)
            held = {"state": program.init(jax.random.key(0)), "batch": next_batch()}

        def run(steps):
            start = time.perf_counter()
            with jax.set_mesh(mesh):
                for _ in range(steps):
                    held["state"], metrics = program.step(held["state"], held["batch"], resident)
                    held["batch"] = next_batch()  # while the step computes, as in training
                jax.block_until_ready((held["state"], metrics))
            return (time.perf_counter() - start) / steps

        return run, sum(x.size for x in jax.tree.leaves(held["state"].params))

    fed, parameters = runner(prepare, shapes, resident, lambda: sharding.shard_batch(next(batches), mesh))
    as_is = jax.tree.map(lambda x: jax.ShapeDtypeStruct(x.shape, x.dtype), finished)
    alone, _ = runner(lambda views, resident: views, as_is, (), lambda: finished)
    return Side(parameters, 2, fed, alone)  # two batches of numbers: pipeline._ahead


def turns(ours: Side, theirs: Side, count: int, steps: int) -> dict[str, np.ndarray]:
    """Seconds a step for both ways of running, (count, 2) = (theirs, ours), each side in turn; compiled before."""
    for side in (theirs, ours):
        side.fed(1)
        side.alone(1)
    fed, alone = [], []
    for _ in range(count):
        fed.append([])
        for side in (theirs, ours):
            side.fed(1 + side.ahead)  # what its pipeline prepared while the other computed would come for nothing
            fed[-1].append(side.fed(steps))
        alone.append([])
        for side in (theirs, ours):
            side.alone(1)
            alone[-1].append(side.alone(steps))
    return {"fed": np.asarray(fed), "alone": np.asarray(alone)}


def report(name: str, config, ours: Side, theirs: Side, seconds: dict) -> None:
    """One small table and a plain verdict."""
    print(f"\n{name}, batch {config.batch_size}, {torch.get_num_threads()} cores, load {os.getloadavg()[0]:.1f}")
    print(f"{'':<28}{'torch ' + torch.__version__:>16}{'jax ' + jax.__version__:>16}   ratio (min, max)")
    share = ours.parameters / theirs.parameters
    print(f"{'parameters':<28}{theirs.parameters:>16,}{ours.parameters:>16,}   {share:.4f}")
    for way, label in (("fed", "images/s with pipeline"), ("alone", "images/s of the step alone")):
        them, us = config.batch_size / np.median(seconds[way], axis=0)
        ratios = seconds[way][:, 0] / seconds[way][:, 1]
        spread = f"{np.median(ratios):.2f} ({ratios.min():.2f}, {ratios.max():.2f})"
        print(f"{label:<28}{them:>16,.1f}{us:>16,.1f}   {spread}")
    median = np.median(seconds["fed"][:, 0] / seconds["fed"][:, 1])
    print(f"bar {BAR}x: {'met' if median >= BAR else 'not met'} ({median:.2f}x)", flush=True)


def main() -> None:
    flags = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    flags.add_argument("--only", choices=("simclr", "mae"), help="one of the two")
    flags.add_argument("--batch", type=int, default=128, help="images a step")
    flags.add_argument("--width", type=int, default=64, help="channels of the ResNet's first stage; 64 is ResNet-18")
    flags.add_argument("--turns", type=int, default=5, help="of each side")
    flags.add_argument("--steps", type=int, default=3, help="measured in a turn")
    flags.add_argument("--compile", action="store_true", help="torch.compile; needs a C++ compiler")
    args = flags.parse_args()
    torch.set_num_threads(len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count())
    resnet = ["stem=cifar", "depth=18", "stages=()", f"width={args.width / 64}"]
    vit = ["patch=4", "width=192", "depth=6", "heads=3", "remat=none"]
    decoder = ["decoder_width=128", "decoder_depth=2", "decoder_heads=4"]
    tasks = {
        "simclr": (f"SimCLR, ResNet-18 of width {args.width}", [f"--config.model.{setting}" for setting in resnet]),
        "mae": ("MAE, ViT 192 x 6, decoder 128 x 2, 75 % hidden",
                [f"--config.model.{setting}" for setting in vit] + [f"--config.method.{d}" for d in decoder]),
    }  # fmt: skip
    for task in [args.only] if args.only else tasks:
        name, settings = tasks[task]
        config = configs.load(f"{task}:tiny", [*FLOAT32, f"--config.batch_size={args.batch}", *settings])
        ours, theirs = jax_side(config), torch_side(config, args.compile, args.steps)
        report(name, config, ours, theirs, turns(ours, theirs, args.turns, args.steps))


if __name__ == "__main__":
    main()
