"""A pod by either of its names, `v5e:16x16` or `v5litepod-256`, as the TPU compiler describes it without one."""

import importlib.util
import math
import os
import re
from typing import NamedTuple

import jax
from jax.experimental import topologies

from jax_ssl.errors import UserError

# libtpu asks Google's metadata server for these, and locks the TPU. Here is none, and several may plan at once.
LIBTPU = {
    "TPU_SKIP_MDS_QUERY": "1",
    "TPU_ACCELERATOR_TYPE": "v5litepod-4",
    "TPU_WORKER_HOSTNAMES": "localhost",
    "TPU_WORKER_ID": "0",
    "ALLOW_MULTIPLE_LIBTPU_LOAD": "1",
}
CPUS = "/sys/devices/system/cpu/possible"  # libtpu counts them there, and aborts the process where it can't
FLAT = {  # chips of a 2D torus; https://cloud.google.com/tpu/docs/v5e
    1: (1, 1), 4: (2, 2), 8: (2, 4), 16: (4, 4), 32: (4, 8), 64: (8, 8), 128: (8, 16), 256: (16, 16), 512: (16, 32),
    1024: (32, 32),
}  # fmt: skip
# What the number of a Google name counts, and the most chips of a pod.
GENERATIONS = {
    "v2": ("cores", 256), "v3": ("cores", 1024), "v4": ("cores", 4096), "v5e": ("chips", 256), "v5p": ("cores", 6144),
    "v6e": ("chips", 256), "tpu7x": ("cores", 9216),
}  # fmt: skip
CUBES = ("v4", "v5p", "tpu7x")  # a 3D torus; the others are flat


class Topology(NamedTuple):
    """`slices` equal pods that are connected by the data centre's network."""

    generation: str  # v5e
    shape: tuple[int, ...]  # chips along each axis of one slice
    slices: int = 1

    @property
    def chips(self) -> int:
        return self.slices * math.prod(self.shape)

    @property
    def name(self) -> str:
        """`2 x v5e:16x16`, in the form that the compiler knows."""
        slices = f"{self.slices} x " if self.slices > 1 else ""
        return f"{slices}{self.generation}:{'x'.join(map(str, self.shape))}"

    @property
    def type(self) -> str:
        """Google's name of one slice, which counts cores in most generations: v3-128, v5litepod-256."""
        counted = math.prod(self.shape) * (2 if GENERATIONS[self.generation][0] == "cores" else 1)
        return f"{'v5litepod' if self.generation == 'v5e' else self.generation}-{counted}"


def parse(name: str, slices: int = 1) -> Topology:
    """From `v3:8x8`, chips along the axes, or `v3-128`, as Google counts. Raises UserError for what is no pod."""
    match = re.fullmatch(r"(\w+)(?:-(\d+)|:(\d+(?:x\d+)+))", name)
    generation = {"v5litepod": "v5e", "v5": "v5p"}.get(match[1], match[1]) if match else ""
    if generation not in GENERATIONS or slices < 1:
        known = ", ".join(GENERATIONS)
        raise UserError(
            f"There is no topology {name!r}: write it as v3:8x8, v5e:16x16 or v4:4x4x8, chips along the axes, or as "
            f"Google does, v3-128, v5litepod-256 or v4-256; the generations are {known}."
        )
    if match[3]:
        return Topology(generation, tuple(map(int, match[3].split("x"))), slices)
    counts, most = GENERATIONS[generation]
    chips = int(match[2]) // (2 if counts == "cores" else 1)
    shape = cube(chips) if generation in CUBES else FLAT.get(chips)
    if shape is None or chips > most:
        raise UserError(f"There is no {name}: {generation} counts {counts}, in powers of two up to {most} chips.")
    return Topology(generation, shape, slices)


def cube(chips: int) -> tuple[int, ...] | None:
    """Google's shape of so many chips of a 3D torus: as near to a cube as powers of two get, the longest axis last."""
    power = chips.bit_length() - 1
    if chips == 6144:
        return 16, 16, 24  # the largest job of a v5p
    if chips < 4 or chips != 2**power:
        return None
    return (2, 2, 1) if chips == 4 else tuple(2 ** ((power + axis) // 3) for axis in range(3))


def describe(topology: Topology) -> list:
    """Its devices for the compiler, none of which needs to exist. Raises UserError without one, or for an odd shape."""
    if importlib.util.find_spec("libtpu") is None:
        raise UserError("A plan needs the TPU compiler: pip install 'jax_ssl[plan]' (Linux on x86).")
    if not os.path.exists(CPUS):
        raise UserError(
            f"The TPU compiler can't work here, as it counts the cores of the processor in {CPUS}, which is missing: "
            "mount /sys in the container, or plan on another machine."
        )
    for key, value in LIBTPU.items():
        os.environ.setdefault(key, value)
    jax.config.update("jax_platforms", "cpu")  # the description is all there is to find
    options = {"num_slices": topology.slices} if topology.slices > 1 else {}
    if topology.generation == "v4":  # both cores of a v4 chip are one device to JAX, as on the real machine
        options["chip_config_name"] = "megacore"
    if topology.chips == 1:
        options["chips_per_host_bounds"] = (1, 1, 1)
    name = topology._replace(slices=1).name
    try:
        return topologies.get_topology_desc(name, "tpu", **options).devices
    except jax.errors.JaxRuntimeError as error:
        reason = str(error).removeprefix("INVALID_ARGUMENT: ").splitlines()[0]
        raise UserError(
            f"There is no topology {name!r} ({reason}): write it as v3:8x8, v5e:16x16 or v4:4x4x8, in multiples of 2x2."
        ) from error
