"""How fast a config trains on this machine, measured over a few steps with the real input pipeline."""

import resource
import sys
import time
from datetime import date

import jax
import numpy as np

from jax_ssl import sharding, train
from jax_ssl.data import pipeline
from jax_ssl.errors import UserError
from jax_ssl.plan import flops
from jax_ssl.plan.chips import CHIPS
from jax_ssl.run.checks import check
from jax_ssl.run.progress import Clock

WARM_UP = 3  # steps that are not measured: the pipeline's threads start, memory is allocated


def run(config, steps: int = 30, spec: str = "") -> dict:
    """Measures, prints a table and returns the numbers. spec: the config as the user wrote it. Raises UserError."""
    if steps < 1:
        raise UserError(f"--steps={steps}: measure at least one step.")
    result = {"config": spec, **measure(config, steps), "date": date.today().isoformat(), "jax": jax.__version__}
    print(table(result))
    return result


def measure(config, steps: int) -> dict:
    """{name: number} of the compiled step on batches from the pipeline, as `train` runs it; no probes, no saving."""
    check(config, jax.device_count())
    data = pipeline.open_data(config, jax.process_index(), jax.process_count())
    method, tx, _ = train.build(config, data.source.count)
    mesh = sharding.make_mesh(config.mesh.fsdp)
    with jax.set_mesh(mesh):
        raw = train.shapes_of(data.example)
        resident = () if data.resident is None else sharding.replicate(data.resident, mesh)
        program = train.compile_step(method, tx, train.preparation(config), mesh, raw, resident)
        state = program.init(jax.random.key(config.seed))
        start = time.perf_counter()
        traced = program.step.trace(program.state, raw, resident)
        step = traced.lower().compile()
        compile_seconds = time.perf_counter() - start
        clock = Clock(config.batch_size)
        seconds = time_steps(step, state, data.batches(0), resident, mesh, steps, clock)
    work, memory = flops.count(traced.jaxpr), peak_memory()
    return {
        "device_kind": jax.devices()[0].device_kind,
        "devices": jax.device_count(),
        "augment": config.data.augment,
        "batch_size": config.batch_size,
        "examples": int(data.source.count),
        "steps": steps,
        "compile_seconds": compile_seconds,
        **quartiles(seconds),
        "images_per_second": config.batch_size / float(np.median(seconds)),
        "data_wait_share": clock.read()["data_wait_share"],
        **memory,
        "flops": work,
        "utilisation": utilisation(work, float(np.median(seconds)), jax.devices()),
    }


def time_steps(step, state, batches, resident, mesh, steps: int, clock: Clock) -> list[float]:
    """Seconds of each step: the step, the wait for the next batch, and its transfer to the devices.

    As in training, the next batch is fetched while the devices compute. Unlike training, each step is waited for.
    """
    batch = sharding.shard_batch(next(batches), mesh)
    seconds = []
    for number in range(WARM_UP + steps):
        if number == WARM_UP:
            clock.read()  # starts a new window, without the warm-up
        start = time.perf_counter()
        state, metrics = step(state, batch, resident)
        clock.tick()
        batch = sharding.shard_batch(clock.next(batches), mesh)
        jax.block_until_ready((state, metrics, batch))
        seconds.append(time.perf_counter() - start)
    return seconds[WARM_UP:]


def quartiles(seconds: list[float]) -> dict[str, float]:
    """The median and the lower and upper quartile, in milliseconds."""
    low, median, high = np.percentile(np.asarray(seconds) * 1000, (25, 50, 75))
    return {"step_ms": float(median), "step_ms_low": float(low), "step_ms_high": float(high)}


def peak_memory() -> dict:
    """Peak memory so far, in bytes: of the device with the highest, or of this process if devices do not report it."""
    stats = [device.memory_stats() or {} for device in jax.local_devices()]
    if all("peak_bytes_in_use" in each for each in stats):
        return {"peak_memory": max(each["peak_bytes_in_use"] for each in stats), "peak_memory_of": "device"}
    most = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * (1 if sys.platform == "darwin" else 1024)
    return {"peak_memory": most, "peak_memory_of": "process"}


def utilisation(work: float, seconds: float, devices) -> float | None:
    """FLOPs per second as a share of the devices' bfloat16 peak; None if that is not in the table, as for a CPU."""
    peak = peak_flops(devices)
    return None if peak is None else work / seconds / peak


def peak_flops(devices) -> float | None:
    """bfloat16 FLOP/s of all devices together at most; None if that is not in the table of `plan/chips.py`."""
    chip = CHIPS.get(devices[0].device_kind)
    return None if chip is None else len(devices) * chip.peak


def table(result: dict) -> str:
    """The numbers as text, one line each."""
    wait, used = result["data_wait_share"], result["utilisation"]
    rows = {
        "config": result["config"],
        "devices": f"{result['devices']} {result['device_kind']}, {result['augment']} augmentation",
        "compile": f"{result['compile_seconds']:.1f} s",
        "step": f"{result['step_ms']:.1f} ms, half of them {result['step_ms_low']:.1f} to {result['step_ms_high']:.1f}",
        "images/s": f"{result['images_per_second']:,.1f} (median of {result['steps']} steps of {result['batch_size']})",
        "data wait": f"{100 * wait:.1f} % of the time",
        "peak memory": f"{result['peak_memory'] / 2**30:.2f} GiB of the {result['peak_memory_of']}",
        "FLOPs a step": f"{result['flops'] / 1e9:,.1f} G in matmuls and convolutions",
        "utilisation": "peak of this device not known" if used is None else f"{100 * used:.1f} % of bfloat16 peak",
    }
    return "\n".join(f"{name:<13} {text}" for name, text in rows.items())
