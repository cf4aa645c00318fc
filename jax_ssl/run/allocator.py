"""How this process gets memory from the system: on a CPU it keeps what a step has freed for the next step."""

import ctypes
import os
from collections.abc import Mapping

# Of glibc's malloc.h, with the names of the same settings in the environment.
ARENA_MAX, MMAP_MAX, TRIM_THRESHOLD = -8, -4, -1
NAMES = ("ARENA_MAX", "MMAP_MAX", "TRIM_THRESHOLD")
MOST_KEPT = 2**31 - 1  # bytes of free memory at the end of the heap, the most that can be said


def keep_memory(environ: Mapping = os.environ) -> bool:
    """Makes glibc keep large blocks that are freed, where it would unmap them. Returns whether it now does.

    XLA's CPU client allocates what a step needs anew in every step, hundreds of megabytes, in a thread of its own.
    glibc maps such a block, unmaps it when it is freed, and the system clears every page of 4 kB again: a quarter of
    a step. So all threads share one heap, as a thread's own heap takes no large block; nothing is mapped; and the heap
    is not cut. It can't be said to threads that have run, so call it before JAX starts. False without glibc,
    and where the environment has one of these: MALLOC_ARENA_MAX, MALLOC_TRIM_THRESHOLD_, GLIBC_TUNABLES ...
    """
    if not has_glibc() or has_settings(environ):
        return False
    settings = {ARENA_MAX: 1, MMAP_MAX: 0, TRIM_THRESHOLD: MOST_KEPT}
    mallopt = ctypes.CDLL(None).mallopt
    return all([mallopt(name, value) for name, value in settings.items()])


def has_settings(environ: Mapping) -> bool:
    """Whether the environment has one of the settings that `keep_memory` makes."""
    tunables = environ.get("GLIBC_TUNABLES", "")
    return any(f"glibc.malloc.{name.lower()}=" in tunables for name in NAMES) or any(
        variable.rstrip("_") == f"MALLOC_{name}" for variable in environ for name in NAMES
    )


def has_glibc() -> bool:
    """Whether the C library of this process is GNU's, as on most Linux systems."""
    try:
        return (os.confstr("CS_GNU_LIBC_VERSION") or "").startswith("glibc")
    except (AttributeError, OSError, ValueError):  # Windows; musl; macOS
        return False
