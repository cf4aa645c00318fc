"""What an accelerator can do at most, for the devices that JAX names: memory to use, and bfloat16 FLOPs a second."""

from typing import NamedTuple


class Chip(NamedTuple):
    """Per JAX device, which on a TPU v2, v3 and v7 is one of a chip's two cores."""

    memory: int | None  # bytes that a program may use; None: ask the device
    peak: float  # bfloat16 FLOP/s


def _tpu(gibibytes: float, teraflops: float) -> Chip:
    return Chip(round(gibibytes * 2**30), teraflops * 1e12)


# Memory: "available HBM" in the messages of libtpu 0.0.42. Peak: https://cloud.google.com/tpu/docs/system-architecture
# (v2 is not listed there: Jouppi et al. 2020) and NVIDIA's data sheets, dense.
CHIPS = {
    "TPU v2": _tpu(7.48, 23),
    "TPU v3": _tpu(15.48, 61.5),
    "TPU v4": _tpu(30.75, 275),
    "TPU v5 lite": _tpu(15.75, 197),
    "TPU v5": _tpu(95.74, 459),
    "TPU v6 lite": _tpu(31.25, 918),
    "TPU7x": _tpu(94.75, 1153.5),
    "NVIDIA A100-SXM4-40GB": Chip(None, 312e12),
    "NVIDIA A100-SXM4-80GB": Chip(None, 312e12),
    "NVIDIA H100 80GB HBM3": Chip(None, 989e12),
    "NVIDIA H200": Chip(None, 989e12),
}
