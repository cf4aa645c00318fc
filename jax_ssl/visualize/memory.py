"""Check that a picture fits into memory, by what the compiled program needs, before the program runs."""

import re
from collections.abc import Callable

import jax

from jax_ssl.errors import UserError
from jax_ssl.paths import resolve

GIB = 2**30


def check(need: Callable[[], int], what: str, remedy: str) -> None:
    """Raises UserError if `what` needs more memory than is free.

    need: compiles the program and returns the bytes that it needs. what, remedy: words of the message.
    """
    available = free()
    try:
        bytes_needed = need()
    except jax.errors.JaxRuntimeError:  # some compilers refuse a program that does not fit
        raise UserError(f"{what} needs more memory than there is: take {remedy}.") from None
    if available is not None and bytes_needed > available:
        sizes = f"about {bytes_needed / GIB:,.1f} GiB of memory, and {available / GIB:,.1f} are free"
        raise UserError(f"{what} needs {sizes}: take {remedy}.")


def free() -> int | None:
    """Free bytes of memory of the first device; on a CPU those of the machine or its container. None = unknown."""
    stats = jax.local_devices()[0].memory_stats()
    if stats and "bytes_limit" in stats:
        return stats["bytes_limit"] - stats["bytes_in_use"]
    found = [_number("/proc/meminfo", r"MemAvailable:\s+(\d+) kB", 1024)]
    limit, used = (_number(f"/sys/fs/cgroup/memory.{name}", r"(\d+)", 1) for name in ("max", "current"))
    found.append(None if None in (limit, used) else limit - used)
    return min((number for number in found if number is not None), default=None)


def _number(file: str, pattern: str, unit: int) -> int | None:
    """The first match in a system file, times unit; None if there is no such file or match."""
    try:
        match = re.search(pattern, resolve(file).read_text())
    except OSError:
        return None
    return int(match[1]) * unit if match else None
