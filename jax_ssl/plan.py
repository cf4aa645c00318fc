"""Compile a config's training step for a TPU pod that you don't have, with the TPU's own compiler: does it fit?

It is the step that `train` runs, from `train.build` and `train.compile_step`, at the pod's size; only shapes go in, so
no data and no accelerator are needed. Memory and collectives are the compiler's; nothing here says how fast it is.
"""

import importlib.metadata
import importlib.util
import json
import math
import os
import re
import time
from datetime import date
from pathlib import Path

import jax
from jax.experimental import topologies

from jax_ssl import flops, sharding, train
from jax_ssl.chips import CHIPS
from jax_ssl.collectives import census
from jax_ssl.data import pipeline
from jax_ssl.errors import UserError

# libtpu asks Google's metadata server for these, and locks the TPU. Here is none, and several may plan at once.
LIBTPU = {
    "TPU_SKIP_MDS_QUERY": "1",
    "TPU_ACCELERATOR_TYPE": "v5litepod-4",
    "TPU_WORKER_HOSTNAMES": "localhost",
    "TPU_WORKER_ID": "0",
    "ALLOW_MULTIPLE_LIBTPU_LOAD": "1",
}
IMAGENET = 1_281_167
SETS = {  # images and their side, None where it varies: what a run learns by opening them
    "embedded": (5000, 32),
    "synthetic": (1000, 32),
    "tfds:cifar10": (50000, 32),
    "tfds:cifar100": (50000, 32),
    "tfds:imagenet2012": (IMAGENET, None),
}
SCALES = (("T", 2**40), ("G", 2**30), ("M", 2**20), ("K", 2**10))


def run(config, names, out: str = "", spec: str = "") -> list[dict]:
    """Plans the config for each topology, prints one table, and writes the reports to the JSON file `out`.

    names: topologies such as "v3:8x8". spec: what the user called the config, overrides included, for the report.
    """
    devices = {name: describe(name) for name in names}
    for name in names:
        train.check(config, len(devices[name]))
    versions = {package: importlib.metadata.version(package) for package in ("jax", "libtpu")}
    about = {"config": spec, "method": config.method.name, "date": date.today().isoformat(), "versions": versions}
    reports = [about | {"topology": name} | compile_for(config, devices[name]) for name in names]
    print(table(spec, reports))
    if out:
        Path(out).write_text(json.dumps(reports, indent=1) + "\n")
    return reports


def describe(name: str) -> list:
    """The devices of a topology such as v3:8x8 (a v3 pod of 64 chips, 128 devices), none of which needs to exist."""
    if importlib.util.find_spec("libtpu") is None:
        raise UserError("A plan needs the TPU compiler: pip install 'jax_ssl[plan]' (Linux on x86).")
    for key, value in LIBTPU.items():
        os.environ.setdefault(key, value)
    jax.config.update("jax_platforms", "cpu")  # the description is all there is to find
    # Both cores of a v4 chip are one device to JAX, as on the real machine.
    options = {"chip_config_name": "megacore"} if name.startswith("v4") else {}
    try:
        return topologies.get_topology_desc(name, "tpu", **options).devices
    except jax.errors.JaxRuntimeError as error:
        reason = str(error).removeprefix("INVALID_ARGUMENT: ").splitlines()[0]
        raise UserError(
            f"There is no topology {name!r} ({reason}): write it as v3:8x8, v5e:16x16 or v4:4x4x8, in multiples of 2x2."
        ) from error


def compile_for(config, devices) -> dict:
    """One report: the step compiled for these devices. Bytes are per device, FLOPs of all devices together."""
    state, traced = trace(config, devices)
    report = {
        "devices": len(devices),
        "device_kind": devices[0].device_kind,
        "batch_size": config.batch_size,
        "fsdp": config.mesh.fsdp,
        "state": state_bytes(state),
        "flops": flops.count(traced.jaxpr),
    }
    usable = CHIPS[devices[0].device_kind].memory
    start = time.perf_counter()
    try:
        measured = read(traced.lower().compile(), usable)
    except jax.errors.JaxRuntimeError as error:
        if "RESOURCE_EXHAUSTED" not in str(error):
            raise
        measured = refusal(str(error), usable)
    return report | measured | {"compile_seconds": round(time.perf_counter() - start, 1)}


def trace(config, devices):
    """(the state's shapes and layout, the traced step) of the program that `train` runs, for these devices."""
    mesh = sharding.make_mesh(config.mesh.fsdp, devices)
    images, side = SETS.get(config.data.name, (IMAGENET, None))
    method, tx, _ = train.build(config, images)
    with jax.set_mesh(mesh):
        raw, resident = inputs(config, images, side)
        program = train.compile_step(method, tx, train.preparation(config), mesh, raw, resident)
        return program.state, program.step.trace(program.state, raw, resident)


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


def state_bytes(state) -> dict[str, int]:
    """What a device holds between steps, by part; without the padding of tiles, which the compiler's count has."""
    parts = {"params": state.params, "optimizer": state.opt_state, "teacher": state.teacher, "extra": state.extra}
    held = lambda x: x.dtype.itemsize * math.prod(x.sharding.shard_shape(x.shape))
    return {name: sum(held(x) for x in jax.tree.leaves(tree)) for name, tree in parts.items()}


def read(compiled, usable: int) -> dict:
    """What the compiler says of a program that it compiled."""
    sizes, cost = compiled.memory_analysis(), compiled.cost_analysis()
    memory = {
        "arguments": sizes.argument_size_in_bytes,
        "outputs": sizes.output_size_in_bytes,
        "temporaries": sizes.temp_size_in_bytes,
        "alias": sizes.alias_size_in_bytes,  # outputs that take the place of an argument: the donated state
        "code": sizes.generated_code_size_in_bytes,
    }
    total = sum(memory.values()) - 2 * memory["alias"]
    return {
        "fits": total <= usable,
        "memory": memory | {"total": total, "usable": usable},
        "bytes_loops_once": cost.get("bytes accessed"),  # XLA counts a loop's body once, whatever its length
        "collectives": census(compiled.as_text()),
        "compiler_says": "",
    }


def refusal(message: str, usable: int) -> dict:
    """The same for a program that the compiler refused for want of memory, with the figure that it gives."""
    needed = re.search(r"(?:temporaries|Used|used) \(?([\d.]+)([TGMK])", message)
    total = round(float(needed[1]) * dict(SCALES)[needed[2]]) if needed else None
    return {
        "fits": False,
        "memory": {"total": total, "usable": usable},
        "bytes_loops_once": None,
        "collectives": {},
        "compiler_says": message.splitlines()[0],
    }


def table(spec: str, reports: list[dict]) -> str:
    """One column a topology, one row a quantity."""
    kinds = sorted({kind for report in reports for kind in report["collectives"]})
    rows = [
        ("topology", [report["topology"] for report in reports]),
        ("verdict", ["fits" if report["fits"] else "does not fit" for report in reports]),
        ("devices", [f"{report['devices']} {report['device_kind']}" for report in reports]),
        ("images a step, a device", [f"{report['batch_size'] / report['devices']:g}" for report in reports]),
    ]
    for name in ("arguments", "outputs", "temporaries", "alias", "total", "usable"):
        rows.append((f"memory: {name}", [size(report["memory"].get(name)) for report in reports]))
    for name in ("params", "optimizer", "teacher", "extra"):
        rows.append((f"of it {name}", [size(report["state"][name]) for report in reports]))
    rows.append(("FLOPs a step", [f"{report['flops'] / report['devices'] / 1e9:,.2f} G" for report in reports]))
    rows.append(("bytes moved, loops once", [size(report["bytes_loops_once"]) for report in reports]))
    for kind in kinds:
        entries = [report["collectives"].get(kind, {"count": 0, "bytes": 0}) for report in reports]
        rows.append((kind, [f"{entry['count']} x, {size(entry['bytes'])}" for entry in entries]))
    rows.append(("compiled in", [f"{report['compile_seconds']:.0f} s" for report in reports]))
    said = [f"{report['topology']}: {report['compiler_says']}" for report in reports if report["compiler_says"]]
    return "\n".join([spec, *aligned(rows), "", "memory, FLOPs and bytes are per device", *said])


def size(count: float | None) -> str:
    """Bytes as a person reads them: `3.21 GiB`."""
    if count is None:
        return "-"
    for letter, scale in SCALES:
        if count >= scale:
            return f"{count / scale:.2f} {letter}iB"
    return f"{count:.0f} B"


def aligned(rows) -> list[str]:
    """Lines of (name, cells): names to the left, cells to the right."""
    first = max(len(name) for name, _ in rows)
    widths = [max(len(cells[column]) for _, cells in rows) for column in range(len(rows[0][1]))]
    return [
        "  ".join([name.ljust(first), *(cell.rjust(width) for cell, width in zip(cells, widths, strict=True))])
        for name, cells in rows
    ]
