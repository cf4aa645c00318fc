"""What each piece of code for the CPU alone gains: whole training steps with it, and with XLA's own way in its place.

    taskset -c 0 python tests/benchmarks/cpu_ways.py                   # one core, by processor time
    python tests/benchmarks/cpu_ways.py --only=mae:tiny --rounds=20    # all cores, by the clock

The pieces are `jax_ssl/models/` conv.py, dense.py and attend.py. The programs take turns in one process, and the
fastest turn of each counts: other work on the machine only adds time.
"""

import argparse
import os
import time
from contextlib import ExitStack
from unittest import mock

os.environ.setdefault("JAX_PLATFORMS", "cpu")

import jax  # noqa: E402
import jax.numpy as jnp  # noqa: E402

from jax_ssl import config as configs  # noqa: E402
from jax_ssl import sharding, train  # noqa: E402
from jax_ssl.benchmark.input import cores  # noqa: E402
from jax_ssl.data import pipeline  # noqa: E402
from jax_ssl.models import dense, dvae, resnet, transformer  # noqa: E402
from jax_ssl.run import devices  # noqa: E402

RESNET = ["model.stem=cifar", "model.depth=18", "model.stages=()", "model.width=1.0", "batch_size=128"]
VIT = ["model.width=192", "model.depth=6", "model.heads=3", "method.decoder_width=128", "method.decoder_depth=2",
       "batch_size=128"]  # fmt: skip
TASKS = {  # the two of vs_torch.py, and what a reader tries first
    "resnet18": ("simclr:tiny", RESNET),
    "vit": ("mae:tiny", VIT),
    "simclr:tiny": ("simclr:tiny", []),
    "mae:tiny": ("mae:tiny", []),
    "dino:tiny": ("dino:tiny", []),
}


def plain_attention(query, key, value, relative):
    """What a compiler that needs no help would be given."""
    logits = jnp.einsum("bqhd,bkhd->bhqk", query, key) * query.shape[-1] ** -0.5
    weights = jax.nn.softmax(logits if relative is None else logits + relative)
    return jnp.einsum("bhqk,bkhd->bqhd", weights, value)


WITHOUT = {  # piece: what takes its place
    "conv.py": [(module, "convolve", jax.lax.conv_general_dilated) for module in (resnet, dvae)],
    "dense.py": [(dense, "multiply", dense.native)],
    "attend.py": [(transformer, "attend", plain_attention)],
}


def step_of(config, pieces):
    """-> function that runs one training step on a finished batch. pieces: those that are left out."""
    data, mesh = pipeline.open_data(config), sharding.make_mesh()
    method, tx, _ = train.build(config, data.source.count)
    resident = sharding.replicate(data.resident, mesh)
    batch = jax.jit(train.preparation(config))(sharding.shard_batch(next(data.batches(0)), mesh), resident)
    shapes = jax.tree.map(lambda x: jax.ShapeDtypeStruct(x.shape, x.dtype), batch)
    with ExitStack() as stack, jax.set_mesh(mesh):
        for piece in pieces:
            for place in WITHOUT[piece]:
                stack.enter_context(mock.patch.object(*place))
        program = train.compile_step(method, tx, lambda views, resident: views, mesh, shapes)
        state = program.init(jax.random.key(0))
        step = program.step.lower(state, batch, ()).compile()
    held = {"state": state}

    def run():
        held["state"], metrics = step(held["state"], batch, ())
        jax.block_until_ready((held["state"], metrics))

    return run


def fastest(runs: dict, rounds: int) -> dict[str, float]:
    """Seconds of each one's fastest turn; of processor time on one core, where nothing spins while it waits."""
    clock = time.process_time if cores() == 1 else time.perf_counter
    best = dict.fromkeys(runs, float("inf"))
    for _ in range(1 + rounds):  # the first finds cold caches
        for name, run in runs.items():
            start = clock()
            run()
            best[name] = min(best[name], clock() - start)
    return best


def main() -> None:
    flags = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    flags.add_argument("--only", choices=tuple(TASKS), help="one of them")
    flags.add_argument("--rounds", type=int, default=8, help="turns of each program")
    args = flags.parse_args()
    devices.check_devices()  # as a run starts
    load = f"load {os.getloadavg()[0]:.1f}"
    print(f"jax {jax.__version__}, {cores()} core(s), {load}, ms of a step, the fastest of {args.rounds}")
    for task in [args.only] if args.only else TASKS:
        name, settings = TASKS[task]
        config = configs.load(name, [f"--config.{setting}" for setting in settings])
        fits = ["conv.py"] if config.model.name == "resnet" else ["dense.py", "attend.py"]
        runs = {"all": step_of(config, [])} | {f"without {piece}": step_of(config, [piece]) for piece in fits}
        best = fastest(runs, args.rounds)
        told = "".join(f"   {who} {1e3 * s:,.1f} ({s / best['all']:.2f})" for who, s in best.items())
        print(f"{task:<12}{told}", flush=True)


if __name__ == "__main__":
    main()
