"""What an accelerator can do at most, for the devices that JAX names: memory, bfloat16 FLOPs, bytes a second."""

from typing import NamedTuple


class Chip(NamedTuple):
    """Per JAX device, which on a TPU v2, v3 and v7 is one of a chip's two cores."""

    memory: int | None  # bytes that a program may use; None: ask the device
    peak: float  # bfloat16 FLOP/s
    bandwidth: float  # bytes/s between the device and its memory
    interconnect: float  # bytes/s out of the device over all its links; as many come in at the same time
    devices: int = 1  # on a chip
    chips: int = 8  # on a host
    cores: float = 0.0  # processors of the host for each chip


def _tpu(gibibytes, teraflops, bandwidth, interconnect, cores, devices=1, chips=4) -> Chip:
    """From what Google gives, which is per chip except for the memory: TFLOP/s, GB/s and GB/s."""
    rates = (1e12 * teraflops / devices, 1e9 * bandwidth / devices, 1e9 * interconnect / devices)
    return Chip(round(gibibytes * 2**30), *rates, devices, chips, cores)


# Memory: "available HBM" in the messages of libtpu 0.0.42. Peak, bandwidth, interconnect and hosts:
# https://cloud.google.com/tpu/docs/system-architecture and the page of each generation; v2, v3: Jouppi et al. 2020 and
# https://jax-ml.github.io/scaling-book/tpus. Where sources differ the larger number stands: a bound must not be beaten.
# NVIDIA: data sheets, dense, NVLink in one direction.
CHIPS = {
    "TPU v2": _tpu(7.48, 46, 700, 248, cores=24, devices=2),
    "TPU v3": _tpu(15.48, 123, 900, 400, cores=24, devices=2),
    "TPU v4": _tpu(30.75, 275, 1228, 300, cores=60),
    "TPU v5 lite": _tpu(15.75, 197, 819, 200, cores=28),
    "TPU v5": _tpu(95.74, 459, 2765, 600, cores=52),
    "TPU v6 lite": _tpu(31.25, 918, 1638, 400, cores=45),
    "TPU7x": _tpu(94.75, 2307, 7380, 600, cores=56, devices=2),
    "NVIDIA A100-SXM4-40GB": Chip(None, 312e12, 1555e9, 300e9),
    "NVIDIA A100-SXM4-80GB": Chip(None, 312e12, 2039e9, 300e9),
    "NVIDIA H100 80GB HBM3": Chip(None, 989e12, 3350e9, 450e9),
    "NVIDIA H200": Chip(None, 989e12, 4800e9, 450e9),
    "NVIDIA A100-PCIE-40GB": Chip(None, 312e12, 1555e9, 32e9),
    "NVIDIA A100 80GB PCIe": Chip(None, 312e12, 1935e9, 32e9),
    "NVIDIA H100 PCIe": Chip(None, 756e12, 2000e9, 64e9),
    "NVIDIA L4": Chip(None, 121e12, 300e9, 32e9),
    "NVIDIA L40S": Chip(None, 362e12, 864e9, 32e9),
    "NVIDIA A10G": Chip(None, 70e12, 600e9, 32e9),
    "Tesla T4": Chip(None, 65e12, 320e9, 16e9),  # of float16: it has no bfloat16
}
DATA_CENTRE = 25e9  # bytes/s out of a host to another slice; https://jax-ml.github.io/scaling-book/tpus
