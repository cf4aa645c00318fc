"""One rival of one task of `accelerator.py` in a process of its own: compiles a training step and runs turns of it.

    python tests/benchmarks/accelerator_side.py jax simclr_resnet18 --small

It writes lines that begin with @ and go on in JSON: first what it compiled, then, for each line `turn` that it reads,
the seconds of a step in each of its ways. Two processes, so that neither's memory or crash is the other's.
"""

import argparse
import gc
import json
import math
import sys
import time

from accelerator_tasks import SMALL_BATCH, TASKS, config_of

TURN = 1.5  # seconds that a turn should take
LEAST, SMALL_STEPS = 3, 1  # steps of a turn


def jax_side(name: str, small: bool, batch: int) -> tuple[dict, dict]:
    """(facts, {way: run}): `fed` by the pipeline, with views made on the device, or `alone` on a finished batch."""
    import jax

    from jax_ssl import sharding, train
    from jax_ssl.benchmark import step as benchmark
    from jax_ssl.data import pipeline
    from jax_ssl.plan import flops

    config = config_of(name, small).unlock()
    config.batch_size = batch
    data, mesh, prepare = pipeline.open_data(config), sharding.make_mesh(), train.preparation(config)
    shapes = train.shapes_of(data.example)
    resident, batches = sharding.replicate(data.resident, mesh), data.batches(0)

    def way(prepare, shapes, resident, next_batch):
        method, tx, _ = train.build(config, data.source.count)
        with jax.set_mesh(mesh):
            program = train.compile_step(method, tx, prepare, mesh, shapes, resident)
            start = time.perf_counter()
            held = {"state": program.init(jax.random.key(0)), "batch": next_batch()}
            traced = program.step.trace(program.state, shapes, resident)
            compiled = traced.lower().compile()
            seconds = time.perf_counter() - start

        def run(steps):
            start = time.perf_counter()
            for _ in range(steps):
                held["state"], metrics = compiled(held["state"], held["batch"], resident)
                held["batch"] = next_batch()  # while the step computes, as in training
            jax.block_until_ready((held["state"], metrics))
            return (time.perf_counter() - start) / steps

        return run, seconds, traced

    fed, compile_seconds, traced = way(prepare, shapes, resident, lambda: sharding.shard_batch(next(batches), mesh))
    ways, fed_once = {"fed": fed}, fed(1)
    if TASKS[name].rival and config.model.name == "resnet":  # where making the views is a good part of the step
        finished = jax.jit(prepare)(sharding.shard_batch(next(batches), mesh), resident)
        as_is = jax.tree.map(lambda x: jax.ShapeDtypeStruct(x.shape, x.dtype), finished)
        ways["alone"] = way(lambda views, resident: views, as_is, (), lambda: finished)[0]
    work = flops.count(traced.jaxpr)
    facts = {"jax": jax.__version__, "device_kind": jax.devices()[0].device_kind, "batch": batch,
             "compile_seconds": compile_seconds, "first_step": fed_once, "flops": work,
             "model_flops": plain_flops(config, data, shapes, resident, mesh) or work,
             "peak": benchmark.peak_flops(jax.devices()), **benchmark.peak_memory()}  # fmt: skip
    return facts, ways


def plain_flops(config, data, shapes, resident, mesh) -> float:
    """FLOPs of a step that computes nothing twice, by which utilisation is usually told; 0.0 where none does."""
    import jax

    from jax_ssl import train
    from jax_ssl.plan import flops

    if config.model.get("remat", "none") == "none":
        return 0.0
    config.model.remat = "none"
    method, tx, _ = train.build(config, data.source.count)
    with jax.set_mesh(mesh):
        program = train.compile_step(method, tx, train.preparation(config), mesh, shapes, resident)
        return flops.count(program.step.trace(program.state, shapes, resident).jaxpr)


def torch_side(name: str, small: bool, batch: int) -> tuple[dict, dict]:
    """The same network and loss in PyTorch on a finished batch: bfloat16, channels last, compiled, fused attention."""
    import torch
    from torch_side import network

    config, on = config_of(name, small), "cuda" if torch.cuda.is_available() else "cpu"
    torch.set_float32_matmul_precision("high")
    torch.backends.cudnn.benchmark = True
    net = network(config).to(on)
    optimiser = torch.optim.AdamW(net.parameters(), 1e-4, fused=True)
    views = sum(recipe["count"] for recipe in config.data.crops["views"])
    size = config.data.crops["views"][0]["size"]
    given = torch.randn(batch, views, 3, size, size, device=on)
    loss = net if small else torch.compile(net)

    def run(steps):
        start = time.perf_counter()
        for _ in range(steps):
            optimiser.zero_grad(set_to_none=True)
            with torch.autocast(on, torch.bfloat16):
                value = loss(given)
            value.backward()
            optimiser.step()
        if on == "cuda":
            torch.cuda.synchronize()
        return (time.perf_counter() - start) / steps

    start = time.perf_counter()
    run(1)
    facts = {"torch": torch.__version__, "batch": batch, "compile_seconds": time.perf_counter() - start,
             "compiled": not small, "device": torch.cuda.get_device_name() if on == "cuda" else "cpu"}  # fmt: skip
    return facts, {"alone": run}


def fitting(make, name: str, small: bool) -> tuple[dict, dict]:
    """`make` at the task's batch, or at half of it, or at a quarter, where the memory ends before."""
    batch = SMALL_BATCH if small else TASKS[name].batch
    for share in (1, 2, 4):
        try:
            return make(name, small, batch // share)
        except Exception as error:
            ended = any(word in f"{type(error).__name__} {error}" for word in ("RESOURCE_EXHAUSTED", "OutOfMemory"))
            if share == 4 or not ended:
                raise
        gc.collect()
    raise AssertionError


def say(told: dict) -> None:
    print("@" + json.dumps(told), flush=True)


def main() -> None:
    flags = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    flags.add_argument("side", choices=("jax", "torch"))
    flags.add_argument("task", choices=tuple(TASKS))
    flags.add_argument("--small", action="store_true", help="at a size for a CPU")
    args = flags.parse_args()
    facts, ways = fitting(jax_side if args.side == "jax" else torch_side, args.task, args.small)
    steps = {}
    for name, run in ways.items():
        run(1)
        steps[name] = SMALL_STEPS if args.small else max(LEAST, math.ceil(TURN / run(LEAST)))
    say(facts | {"steps": steps})
    for line in sys.stdin:
        if line.strip() != "turn":
            break
        told = {}
        for name, run in ways.items():
            run(1)  # what waited in a pipeline while nobody computed
            told[name] = run(steps[name])
        say(told)


if __name__ == "__main__":
    main()
