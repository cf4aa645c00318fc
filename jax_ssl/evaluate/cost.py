"""What does a network cost: time, FLOPs, parameters, memory, and what its run had spent when its kNN was good?

images_per_second is that of the encoder alone, whose images wait on the devices; end_to_end_per_second has everything
that features cost: images are read, cut and moved to the devices, and features come back. Both are medians of rounds in
turns, after one that does not count. gflops: of one image, two for each multiply-add of matmuls and convolutions.
memory_mib: weights, images, temporaries and features of a batch on each device, by the compiler; peak_mib: the most
that a device has held since this process began, where it reports that.

to_knn_seconds, _images and _tflop are what the training steps had taken when the run's own kNN probe reached `knn`, on
a straight line between two probes. Seconds have the wait for images in them, but no compiling, saving or probing, and
no steps that a restart has repeated.
"""

import itertools
import time
from collections.abc import Callable
from typing import NamedTuple

import jax
import numpy as np

from jax_ssl import encoder
from jax_ssl.errors import UserError
from jax_ssl.sharding import batched, make_mesh, replicated
from jax_ssl.views.sizes import Size, sides, size_of

NEEDS = ("network",)
DECIDES = "end_to_end_per_second"
SHOWN = (
    "images_per_second", "end_to_end_per_second", "gflops", "mparameters", "memory_mib", "to_knn_seconds",
    "to_knn_images", "to_knn_tflop",
)  # fmt: skip
SECONDS = 0.4  # of a round, at least


class Training(NamedTuple):
    """What a run has spent. probes: (step, seconds of training steps, kNN), oldest first; batch: images of a step.

    flops: a function that counts those of a step, None where it can't. parameters: of all that is trained. repeated:
    seconds of steps that were made again after restarts.
    """

    probes: list[tuple[int, float, float]]
    batch: int
    flops: Callable[[], float | None]
    parameters: int
    repeated: float


def measure(case, seed, *, knn=0.0, batch=0, rounds=5) -> tuple[dict, dict]:
    """The numbers above of a network on the test images. knn: a share of right answers, 0 = the best of the probes.

    batch: images at a time, 0 = as features are made. Raises UserError for options without a meaning.
    """
    if not 0 <= knn < 1:
        raise UserError(f"--config.cost.knn={knn}: it is a share of right answers; give 0.4 for 40 %, or 0.")
    if rounds < 1 or batch < 0:
        raise UserError(f"The cost with rounds={rounds} and batch={batch}: give a round at least, and 0 or more.")
    size, devices = size_of(*case.test.images.shape[1:3]), jax.device_count()
    batch = -(-(batch or encoder.batch_size(case.encode, size)) // devices) * devices
    program, arguments = compiled(case.encode, size, batch)
    alone, whole = speeds(program, arguments, case, batch, rounds)
    numbers = {"images_per_second": alone, "end_to_end_per_second": whole, "gflops": case.flops() / 1e9}
    numbers |= {"mparameters": count(case.encode.variables["params"]) / 1e6, **memory(program)}
    protocol = {
        "name": "cost", "batch": batch, "rounds": rounds, "devices": devices, "statistic": "median",
        "end_to_end": "read, cut, moved to the devices, features back on the host",
        "memory": "of each device, by the compiler",
    }  # fmt: skip
    if case.training is None:
        return numbers, protocol
    spent, how = until(case.training(), knn)
    return numbers | spent, protocol | how


def count(tree) -> int:
    return sum(np.size(leaf) for leaf in jax.tree.leaves(tree))


def compiled(encode, size: Size, batch: int):
    """The compiled forward pass of a batch of normalised images, and weights and images for it on the devices."""
    mesh = make_mesh()
    variables = jax.device_put(encode.variables, replicated(mesh))
    images = np.random.default_rng(0).integers(0, 256, (batch, *sides(size), 3), np.uint8)
    images = jax.device_put(np.asarray(encode.normalise(images)), batched(mesh))
    forward = jax.jit(lambda variables, images: encoder.pooled_of(encode.backbone.apply(variables, images)))
    with jax.set_mesh(mesh):
        return forward.lower(variables, images).compile(), (variables, images)


def memory(program) -> dict[str, float]:
    """{memory_mib, peak_mib} of a compiled program and of the devices; what they do not say is left out."""
    sizes = program.memory_analysis()
    found = {}
    if sizes is not None:
        parts = sizes.argument_size_in_bytes, sizes.output_size_in_bytes, sizes.temp_size_in_bytes
        found["memory_mib"] = (sum(parts) - sizes.alias_size_in_bytes) / 2**20
    peaks = [(device.memory_stats() or {}).get("peak_bytes_in_use") for device in jax.local_devices()]
    return found | ({"peak_mib": max(peaks) / 2**20} if all(peaks) else {})


def speeds(program, arguments, case, batch: int, rounds: int) -> tuple[float, float]:
    """Images a second of the encoder alone and from end to end: medians of `rounds` in turns, after a first one."""
    images, alone, whole = case.test.images, [], []
    for _ in range(1 + rounds):
        alone.append(per_second(itertools.repeat(batch), lambda _: jax.block_until_ready(program(*arguments))))
        number = min(len(images), batch * -(-int(SECONDS * alone[-1]) // batch))
        made = case.stream(images[start : start + batch] for start in range(0, number, batch))
        whole.append(per_second([number], lambda _: list(made)))  # noqa: B023
    return float(np.median(alone[1:])), float(np.median(whole[1:]))


def per_second(counts, work: Callable) -> float:
    """Images a second of work(count) for one count after the other, until SECONDS are over."""
    begun, done = time.perf_counter(), 0
    for number in counts:
        work(number)
        done, spent = done + number, time.perf_counter() - begun
        if spent >= SECONDS:
            break
    return done / spent


def until(training: Training, knn: float) -> tuple[dict, dict]:
    """What a run had spent when its kNN reached `knn`, 0 = its best; and what a protocol has to say of that."""
    probes = training.probes
    said = {"probe": "the run's own, of the student", "trained_parameters": training.parameters,
            "repeated_seconds": training.repeated}  # fmt: skip
    if not probes:
        return {}, said | {"note": "metrics.jsonl has no kNN, as the run had no probe: train with probe_every above 0."}
    best = max(probes, key=lambda probe: probe[2])
    target = knn or best[2]
    said |= {"knn": target}
    found = reach(probes, target)
    if found is None:
        return {}, said | {
            "note": f"A kNN of {target:.4g} was never reached: the best of {len(probes)} probes is {best[2]:.4g}, at "
            f"step {best[0]:,}, after {best[1]:,.1f} s."
        }
    steps, seconds = found
    flops = training.flops()
    numbers = {"to_knn": target, "to_knn_seconds": seconds, "to_knn_images": steps * training.batch}
    note = f"to_knn: until the run's own probe reached a kNN of {target:.4g}, at step {steps:,.0f}."
    numbers |= {} if flops is None else {"to_knn_tflop": steps * flops / 1e12}
    return numbers, said | {"note": note}


def reach(probes, target: float) -> tuple[float, float] | None:
    """(step, seconds) where kNN first has the target, on the line from the probe before; None where it never has.

    Before the first probe nothing is known: there it counts as reached at that probe.
    """
    place = next((number for number, probe in enumerate(probes) if probe[2] >= target), None)
    if not place:
        return None if place is None else (float(probes[0][0]), probes[0][1])
    before, after = (np.array(probe, np.float64) for probe in probes[place - 1 : place + 1])
    step, seconds, _ = before + (after - before) * (target - before[2]) / (after[2] - before[2])
    return float(step), float(seconds)
