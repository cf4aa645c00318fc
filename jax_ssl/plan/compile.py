"""The training step of a config, compiled for the devices of a described pod: memory, FLOPs, bytes, collectives.

It is the step that `train` runs, from `train.build` and `train.compile_step`, at the pod's size; only shapes go in, so
no data and no accelerator are needed.
"""

import math
import re
import time

import jax

from jax_ssl import sharding, train
from jax_ssl.data import pipeline
from jax_ssl.errors import UserError
from jax_ssl.models import implementation
from jax_ssl.plan import flops, traffic
from jax_ssl.plan.chips import CHIPS
from jax_ssl.plan.collectives import census

IMAGENET = 1_281_167
SETS = {  # images and their side, None where it varies: what a run learns by opening them
    "embedded": (5000, 32),
    "synthetic": (1000, 32),
    "tfds:cifar10": (50000, 32),
    "tfds:cifar100": (50000, 32),
    "tfds:imagenet2012": (IMAGENET, None),
}
SCALES = {"T": 2**40, "G": 2**30, "M": 2**20, "K": 2**10}


def compile_for(config, devices, slices: int = 1, quick: bool = False) -> dict:
    """One report: the step compiled for these devices. Bytes are per device, FLOPs of all devices together.

    quick: at XLA's optimisation level O1 instead of its default, which `train` has. Seen: two fifths of the time;
    memory 6 % less to 33 % more, bytes as many to 75 % more (DINO).
    """
    with implementation.noted() as attention:
        state, clock, traced = trace(config, devices)
    report = {
        "devices": len(devices),
        "device_kind": devices[0].device_kind,
        "slices": slices,
        "quick": quick,
        "batch_size": config.batch_size,
        "fsdp": config.mesh.fsdp,
        "micro_batch": config.micro_batch,
        "total_steps": clock.total_steps,
        "state": state_bytes(state),
        "flops": flops.count(traced.jaxpr),
        "attention": [
            {"tokens": tokens, "width": width, "heads": heads} | choice._asdict()
            for (tokens, width, heads), choice in sorted(attention.items())
        ],
    }
    usable = CHIPS[devices[0].device_kind].memory
    start = time.perf_counter()
    try:
        measured = read(compiled(traced, quick), usable, axes(config.mesh.fsdp, len(devices), slices))
    except jax.errors.JaxRuntimeError as error:
        if "RESOURCE_EXHAUSTED" not in str(error):
            raise
        measured = refusal(str(error), usable)
    return report | measured | {"compile_seconds": round(time.perf_counter() - start, 1)}


def trace(config, devices):
    """(the state's shapes and layout, the clock, the traced step): the program that `train` runs, for these devices."""
    mesh = sharding.make_mesh(config.mesh.fsdp, devices)
    images, side = SETS.get(config.data.name, (IMAGENET, None))
    method, tx, clock = train.build(config, images)
    with jax.set_mesh(mesh):
        raw, resident = inputs(config, images, side)
        program = train.compile_step(method, tx, train.preparation(config), mesh, raw, resident)
        return program.state, clock, program.step.trace(program.state, raw, resident)


def compiled(traced, quick: bool):
    """The program of a traced step, which a cache of programs does not keep: without a TPU it can't be read again."""
    level = "O1" if quick else jax.config.jax_optimization_level  # the compiler's: it has no flag of a call
    options = {"jax_optimization_level": level, "jax_persistent_cache_min_compile_time_secs": float("inf")}
    before = {name: getattr(jax.config, name) for name in options}
    try:
        for name, value in options.items():
            jax.config.update(name, value)
        return traced.lower().compile()
    finally:
        for name, value in before.items():
            jax.config.update(name, value)


def inputs(config, images: int, side: int | None):
    """Shapes of (raw batch, resident images) that the pipeline would make; () when no images stay on the device."""
    if config.data.augment == "device" and side is None:
        raise UserError(
            f"A plan opens no data and doesn't know the size of {config.data.name}, which data.augment='device' keeps "
            "on the device: set data.augment='hybrid'."
        )
    shape = (images, side, side, 3)
    on_device = config.data.augment == "device"
    raw = train.shapes_of(pipeline.example(config, shape))
    return raw, jax.ShapeDtypeStruct(shape, "uint8") if on_device else ()


def axes(fsdp: int, devices: int, slices: int) -> dict[str, int]:
    """The mesh, outermost axis first: slices are the outermost part of its data axis."""
    return {"slices": slices, "data": devices // slices // fsdp, "fsdp": fsdp}


def state_bytes(state) -> dict[str, int]:
    """What a device holds between steps, by part; without the padding of tiles, which the compiler's count has."""
    parts = {"params": state.params, "optimizer": state.opt_state, "teacher": state.teacher, "extra": state.extra}
    held = lambda x: x.dtype.itemsize * math.prod(x.sharding.shard_shape(x.shape))
    return {name: sum(held(x) for x in jax.tree.leaves(tree)) for name, tree in parts.items()}


def read(compiled, usable: int, mesh_axes: dict[str, int] | None = None) -> dict:
    """What the compiler says of a program that it compiled."""
    sizes, cost, text = compiled.memory_analysis(), compiled.cost_analysis(), compiled.as_text()
    memory = {
        "arguments": sizes.argument_size_in_bytes,
        "outputs": sizes.output_size_in_bytes,
        "temporaries": sizes.temp_size_in_bytes,
        "alias": sizes.alias_size_in_bytes,  # outputs that take the place of an argument: the donated state
        "code": sizes.generated_code_size_in_bytes,
    }
    total = sum(memory.values()) - 2 * memory["alias"]
    moves = list(traffic.instructions(text))
    return {
        "fits": total <= usable,
        "memory": memory | {"total": total, "usable": usable},
        "bytes": traffic.total(moves),
        "heaviest": traffic.heaviest(moves),
        "bytes_loops_once": cost.get("bytes accessed"),  # XLA counts a loop's body once, whatever its length
        "collectives": census(text, mesh_axes),
        "compiler_says": "",
    }


def refusal(message: str, usable: int) -> dict:
    """The same for a program that the compiler refused for want of memory, with the figure that it gives."""
    needed = re.search(r"(?:temporaries|Used|used) \(?([\d.]+)([TGMK])", message)
    total = round(float(needed[1]) * SCALES[needed[2]]) if needed else None
    return {
        "fits": False,
        "memory": {"total": total, "usable": usable},
        "bytes": None,
        "heaviest": [],
        "bytes_loops_once": None,
        "collectives": {},
        "compiler_says": message.splitlines()[0],
    }
