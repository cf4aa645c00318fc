"""jax_ssl beside PyTorch on this machine's CPU: the same networks, losses and view recipes, each with its own pipeline.

    pip install torch==2.13.0 && pip install --no-deps torchvision==0.28.0 timm
    python tests/benchmarks/vs_torch.py      # both methods, ResNet-18 at full width; on a machine that is quiet
    python tests/benchmarks/vs_torch.py --only=simclr --width=16 --batch=256
    taskset -c 0 python tests/benchmarks/vs_torch.py    # one core: processor time, on a machine that does other work

PyTorch gets what makes it fastest here: channels-last convolutions, fused AdamW and attention, and the number of
DataLoader workers that a trial finds best. The two take turns in one process, so that whatever else the machine does
hits both; a ratio compares two neighbouring turns, and the fastest turn of each side stands beside it.
"""

import argparse
import os

os.environ.setdefault("JAX_PLATFORMS", "cpu")

import jax  # noqa: E402
import numpy as np  # noqa: E402
import torch  # noqa: E402
from torch_side import CLOCK, ONE_CORE, Side, torch_side  # noqa: E402

from jax_ssl import config as configs  # noqa: E402
from jax_ssl import sharding, train  # noqa: E402
from jax_ssl.data import pipeline  # noqa: E402
from jax_ssl.run import devices  # noqa: E402

BAR = 1.0  # on the fastest turns
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
            start = CLOCK()
            with jax.set_mesh(mesh):
                for _ in range(steps):
                    held["state"], metrics = program.step(held["state"], held["batch"], resident)
                    held["batch"] = next_batch()  # while the step computes, as in training
                jax.block_until_ready((held["state"], metrics))
            return (CLOCK() - start) / steps

        return run, sum(x.size for x in jax.tree.leaves(held["state"].params))

    fed, parameters = runner(prepare, shapes, resident, lambda: sharding.shard_batch(next(batches), mesh))
    as_is = jax.tree.map(lambda x: jax.ShapeDtypeStruct(x.shape, x.dtype), finished)
    alone, _ = runner(lambda views, resident: views, as_is, (), lambda: finished)
    return Side(parameters, 2, fed, alone)  # two batches of numbers: pipeline._ahead


def turns(ours: Side, theirs: Side, count: int, steps: int) -> dict[str, np.ndarray]:
    """Seconds a step for both ways of running, (count, 2) = (theirs, ours), each side in turn; compiled before."""
    warm_up = {"fed": lambda side: 1 + side.ahead, "alone": lambda side: 1}  # what a pipeline has ready is for nothing
    found = {way: [] for way in warm_up if way == "alone" or not ONE_CORE}
    for turn in range(1 + count):  # the first one compiles
        for way, rows in found.items():
            row = []
            for side in (theirs, ours):
                run = getattr(side, way)
                run(warm_up[way](side))
                row.append(run(steps))
            rows += [row] if turn else []
    return {way: np.asarray(rows) for way, rows in found.items()}


def report(name: str, config, ours: Side, theirs: Side, seconds: dict) -> None:
    """One small table and a plain verdict."""
    print(f"\n{name}, batch {config.batch_size}, {torch.get_num_threads()} cores, load {os.getloadavg()[0]:.1f}")
    columns = f"{'torch ' + torch.__version__:>16}{'jax ' + jax.__version__:>16}"
    print(f"{'':<28}{columns}   ratio (min, max), of the fastest turns")
    share = ours.parameters / theirs.parameters
    print(f"{'parameters':<28}{theirs.parameters:>16,}{ours.parameters:>16,}   {share:.4f}")
    for way, label in (("fed", "images/s with pipeline"), ("alone", "images/s of the step alone")):
        if way not in seconds:
            continue
        them, us = config.batch_size / np.median(seconds[way], axis=0)
        ratios, fastest = seconds[way][:, 0] / seconds[way][:, 1], seconds[way].min(axis=0)
        spread = f"{np.median(ratios):.2f} ({ratios.min():.2f}, {ratios.max():.2f}), {fastest[0] / fastest[1]:.2f}"
        met = "met" if fastest[0] / fastest[1] >= BAR else "not met"
        print(f"{label:<28}{them:>16,.1f}{us:>16,.1f}   {spread}: the bar of {BAR} is {met}", flush=True)


def main() -> None:
    flags = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    flags.add_argument("--only", choices=("simclr", "mae"), help="one of the two")
    flags.add_argument("--batch", type=int, default=128, help="images a step")
    flags.add_argument("--width", type=int, default=64, help="channels of the ResNet's first stage; 64 is ResNet-18")
    flags.add_argument("--turns", type=int, default=5, help="of each side")
    flags.add_argument("--steps", type=int, default=3, help="measured in a turn")
    flags.add_argument("--compile", action="store_true", help="torch.compile; needs a C++ compiler")
    args = flags.parse_args()
    devices.check_devices()  # as a run starts; PyTorch keeps freed memory as well, which makes it no slower
    torch.set_num_threads(len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count())
    resnet = ["stem=cifar", "depth=18", "stages=()", f"width={args.width / 64}"]
    vit = ["patch=4", "width=192", "depth=6", "heads=3", "remat=none", "unroll=True"]
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
