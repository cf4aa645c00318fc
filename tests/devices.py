"""Simulated CPU devices for tests: the flags for XLA, set before jax is imported."""

import functools
import importlib.util
import mmap
from pathlib import Path

# Most of the suite's time is XLA compiling small programs that run a few times. Without optimisation that takes a
# third; with the older emitters of loops, where this jaxlib still has them, half of that.
QUICK = {"xla_backend_optimization_level": 0, "xla_llvm_disable_expensive_passes": "true",
         "xla_cpu_parallel_codegen_split_count": 1, "xla_cpu_use_fusion_emitters": "false"}  # fmt: skip


@functools.cache
def known_flags():
    """Those of QUICK that the installed jaxlib has; XLA ends a process that sets another."""
    library = next(Path(importlib.util.find_spec("jaxlib").origin).parent.glob("libjax_common.*"))
    with open(library) as file, mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ) as content:
        return [f"--{flag}={value}" for flag, value in QUICK.items() if content.find(f"\0{flag}\0".encode()) >= 0]


def xla_flags(count):
    """The value of XLA_FLAGS for so many simulated devices and quick compilation."""
    return " ".join([f"--xla_force_host_platform_device_count={count}", *known_flags()])
