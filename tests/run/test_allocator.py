"""Freed memory stays with the process on a CPU, and the user's own settings stay."""

import subprocess
import sys

import pytest

from jax_ssl.run import allocator, devices

# Faults of a block of 200 MB that a second thread writes, frees, and writes again.
PROBE = """
import ctypes, resource, threading
from jax_ssl.run import allocator
libc = ctypes.CDLL(None)
libc.malloc.restype, libc.malloc.argtypes = ctypes.c_void_p, [ctypes.c_size_t]
libc.free.argtypes, libc.memset.argtypes = [ctypes.c_void_p], [ctypes.c_void_p, ctypes.c_int, ctypes.c_size_t]
def step():
    block = libc.malloc(200 * 2**20)
    libc.memset(block, 1, 200 * 2**20)
    libc.free(block)
def steps():
    step()
    before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
    step()
    print(resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before)
if {keep}:
    assert allocator.keep_memory({{}})
thread = threading.Thread(target=steps)
thread.start()
thread.join()
"""


@pytest.mark.skipif(not allocator.has_glibc(), reason="needs glibc")
def test_a_freed_block_is_used_again_without_a_page_fault():
    faults = {}
    for keep in (True, False):
        call = [sys.executable, "-c", PROBE.format(keep=keep)]
        faults[keep] = int(subprocess.run(call, capture_output=True, text=True, check=True).stdout)
    assert faults[True] < 100 < faults[False]


def test_the_users_own_settings_stay():
    for mine in ({"MALLOC_ARENA_MAX": "4"}, {"MALLOC_TRIM_THRESHOLD_": "131072"}, {"MALLOC_MMAP_MAX_": "9"},
                 {"GLIBC_TUNABLES": "glibc.malloc.hugetlb=1:glibc.malloc.mmap_max=9"}):  # fmt: skip
        assert allocator.has_settings(mine) and not allocator.keep_memory(mine)
    assert not allocator.has_settings({"GLIBC_TUNABLES": "glibc.malloc.hugetlb=1", "MALLOC_CHECK_": "0"})


def test_only_where_jax_runs_on_the_cpu(monkeypatch):
    for files, wanted, expected in (([], "", 1), ([], "cpu", 1), (["/dev/accel0"], "", 0), (["/dev/accel0"], "cpu", 1),
                                    ([], "tpu,cpu", 0)):  # fmt: skip
        calls = []
        monkeypatch.setattr(devices.allocator, "keep_memory", calls.append)
        monkeypatch.setattr(devices.jax, "devices", lambda: [])
        monkeypatch.setattr(devices, "has_tpu_chips", lambda files=files: bool(files))
        monkeypatch.setattr(devices, "has_nvidia", lambda: False)
        devices.check_devices({"JAX_PLATFORMS": wanted})
        assert len(calls) == expected, (files, wanted)
