"""Hostile and broken files: each ends in one sentence or a correct load, in little memory and without running code."""

import os
import random
import struct
import subprocess
import sys
import tracemalloc
import zipfile
from pathlib import Path

import numpy as np
import pytest
from safetensors.numpy import save_file

from jax_ssl.errors import UserError
from jax_ssl.weights import imported, torch_file
from jax_ssl.weights.convert import convert
from jax_ssl.weights.find import choose
from jax_ssl.weights.read import open_file
from tests.weights.arrays import read
from tests.weights.test_read import call, mapping, name, number, tensor, text, write

GOLDEN = Path(__file__).parents[1] / "golden"
OVERHEAD = 2**21  # bytes of Python objects for names, shapes and rules, whatever the size of a file
MUTATIONS = 300


@pytest.fixture
def file(tmp_path):
    return tmp_path / "weights.pth"


def refused(file, match="damaged"):
    with pytest.raises(UserError, match=match) as caught:
        read(file)
    assert len(str(caught.value)) < 600


def test_a_call_of_a_shell_is_not_made(file, tmp_path):
    trace = tmp_path / "trace"
    for module in ("posix", "os", "subprocess", "nt"):
        refused(write(file, call(module, "system", text(f"touch {trace}"))), "could run code")
    assert not trace.exists()
    refused(write(file, mapping({"x": text("system") + b")\x81"})))  # NEWOBJ of what is no class
    refused(write(file, mapping({"x": name("torch", "FloatStorage") + b"(tR"})))  # a call of a lent name


def test_a_pickle_that_reserves_memory_is_refused_before_it_does(file):
    tracemalloc.start()
    for program in (
        b"N" + b"r" + struct.pack("<I", 2**31 - 1),  # LONG_BINPUT: the unpickler in C reserves 2**32 places
        b"\x96" + struct.pack("<Q", 2**34),  # BYTEARRAY8
        b"\x8e" + struct.pack("<Q", 2**40) + b"abc",  # BINBYTES8
        b"\x95" + struct.pack("<Q", 2**50) + b"N",  # FRAME
        b"\x8b" + struct.pack("<i", 2**30),  # LONG4
        b"I" + b"9" * 5000 + b"\n",
        b"(" * 10**4,
        b"]" + b"(" * 10**4 + b"e" * 10**4,
    ):
        with pytest.raises(UserError):
            read(write(file, program))
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert peak < 2**25


def test_a_pickle_that_refers_to_itself_a_billion_times_is_walked_once(file):
    doubled = b"}q\x00" + b"".join(b"}(" + text("a") + b"h" + bytes([i]) + text("b") + b"h" + bytes([i]) + b"uq"
                                  + bytes([i + 1]) for i in range(40))  # fmt: skip
    refused(write(file, doubled), "holds no tensors by name")


def test_zip_bombs(tmp_path):
    zeros = np.zeros(10**6, np.float32)
    np.savez_compressed(tmp_path / "bomb.npz", x=zeros)
    refused(tmp_path / "bomb.npz", "more than twice its size")
    torch_file.write(tmp_path / "x.pth", {"x": zeros})
    with zipfile.ZipFile(tmp_path / "x.pth") as plain, zipfile.ZipFile(tmp_path / "bomb.pth", "w", 8) as packed:
        for record in plain.namelist():
            packed.writestr(record, plain.read(record))
    refused(tmp_path / "bomb.pth", "compressed")


def test_one_storage_under_a_thousand_names_is_not_read_a_thousand_times(file):
    views = {f"x{i}": tensor("FloatStorage", "0", 10**5, (10**5,), (1,)) for i in range(1000)}
    refused(write(file, mapping(views), {"0": bytes(4 * 10**5)}), "says that it holds 400000000 bytes")


def test_headers_of_a_thousand_million_elements(tmp_path, file):
    refused(write(file, mapping({"x": tensor("FloatStorage", "0", 10**9, (10**9,), (1,))}), {"0": bytes(64)}))
    header = b'{"x":{"dtype":"F32","shape":[1000000000],"data_offsets":[0,4000000000]}}'
    (tmp_path / "x.safetensors").write_bytes(struct.pack("<Q", len(header)) + header + bytes(64))
    refused(tmp_path / "x.safetensors", "does not lie where its header says")
    (tmp_path / "x.safetensors").write_bytes(struct.pack("<Q", 2**62) + header)
    refused(tmp_path / "x.safetensors", "header is said to have")
    (tmp_path / "x.safetensors").write_bytes(struct.pack("<Q", 10**5) + b"[" * 10**5)
    refused(tmp_path / "x.safetensors")
    with zipfile.ZipFile(tmp_path / "x.npz", "w") as archive:
        with archive.open("x.npy", "w") as record:
            about = dict(shape=(10**9,), fortran_order=False, descr="<f4")
            np.lib.format.write_array_header_1_0(record, about)
            record.write(bytes(64))
    refused(tmp_path / "x.npz", "not what its shape needs")


@pytest.mark.parametrize("offsets", ["[60, 70]", "[0, 64]", "[-8, 8]", "[16, 0]", "[0.5, 16.5]", '["0", "16"]', "[0]"])
def test_offsets_past_the_end_of_a_safetensors_file(tmp_path, offsets):
    header = f'{{"x":{{"dtype":"F32","shape":[4],"data_offsets":{offsets}}}}}'.encode()
    (tmp_path / "x.safetensors").write_bytes(struct.pack("<Q", len(header)) + header + bytes(60))
    refused(tmp_path / "x.safetensors")


def test_paths_that_climb_are_only_names(tmp_path, file):
    outside = tmp_path / "outside"
    outside.write_bytes(bytes(16))
    for key in ("../outside", "../../outside", str(outside)):
        refused(write(file, mapping({"x": tensor("FloatStorage", key, 4, (4,), (1,))})))
    with zipfile.ZipFile(tmp_path / "x.npz", "w") as archive, archive.open("../../climbed.npy", "w") as record:
        np.lib.format.write_array(record, np.arange(3))
    np.testing.assert_array_equal(read(tmp_path / "x.npz")["../../climbed"], [0, 1, 2])
    assert sorted(path.name for path in tmp_path.iterdir()) == ["outside", "weights.pth", "x.npz"]


def test_an_archive_of_several_disks(file):
    write(file, mapping({"x": number(1)}))
    data = bytearray(file.read_bytes())
    end = data.rindex(b"PK\x05\x06")
    data[end + 4 : end + 8] = b"\x01\x00\x01\x00"
    file.write_bytes(data)
    refused(file, "damaged|no tensors by name")
    # The locator of a zip64 archive has a number of disks too; zipfile raises where it only looks whether it is one.
    locator = b"PK\x06\x07" + struct.pack("<IQI", 0, 0, 7)
    file.write_bytes(data[:end] + locator + data[end:])
    refused(file)


def test_the_format_before_torch_1_6_in_disguise(file):
    file.write_bytes(b"\x80\x02cposix\nsystem\nX\x04\x00\x00\x00true\x85R.")
    refused(file, "weights_only=True")


def mutate(data: bytes, rng: random.Random) -> bytes:
    """A file with flipped bits, changed, deleted, repeated or overwritten pieces, or cut short."""
    data = bytearray(data)
    for _ in range(rng.choice((1, 1, 2, 5, 20))):
        if len(data) < 2:
            break
        at, length = rng.randrange(len(data)), rng.choice((1, 2, 4, 8, 64))
        kind = rng.randrange(7)
        if kind == 0:
            data[at] ^= 1 << rng.randrange(8)
        elif kind == 1:
            data[at : at + length] = rng.randbytes(len(data[at : at + length]))
        elif kind == 2:
            del data[at : at + length]
        elif kind == 3:
            data[at:at] = data[at : at + length]
        elif kind == 4:
            data[at : at + length] = rng.choice((b"\xff", b"\x00", b"9", b"(", b"."))[:1] * length
        elif kind == 5:
            other = rng.randrange(len(data))
            data[at : at + length] = data[other : other + length]
        else:
            data = data[: max(at, 1)]
    return bytes(data)


def tiny():
    """Names and shapes of the smallest vision transformer of timm's names."""
    width, arrays = 4, {}
    shapes = {"cls_token": (1, 1, width), "pos_embed": (1, 5, width), "patch_embed.proj.weight": (width, 3, 2, 2),
              "patch_embed.proj.bias": (width,)}  # fmt: skip
    for layer, size in {"attn.qkv": (12, 4), "attn.proj": (4, 4), "mlp.fc1": (8, 4), "mlp.fc2": (4, 8)}.items():
        shapes |= {f"blocks.0.{layer}.weight": size, f"blocks.0.{layer}.bias": size[:1]}
    for norm in ("norm", "blocks.0.norm1", "blocks.0.norm2"):
        shapes |= {f"{norm}.weight": (width,), f"{norm}.bias": (width,)}
    for i, (key, shape) in enumerate(shapes.items()):
        arrays[key] = np.random.default_rng(i).standard_normal(shape).astype(np.float32)
    return arrays


def attempt(file) -> str:
    """What becomes of a file: "loaded" or "told"; anything else that is raised is what the fuzz looks for."""
    try:
        opened = open_file(file)
        found = choose(opened, None)
        convert(found.sorted()[0], found.rules, file)
    except UserError as error:
        assert len(str(error)) < 3000, error
        return "told"
    return "loaded"


def fuzz(folder, count: int, seed: int) -> dict:
    """{outcome: files} of mutated files of each kind; asserts that none takes more than twice its size in memory."""
    rng, outcomes = random.Random(seed), {"told": 0, "loaded": 0}
    torch_file.write(folder / "a.pth", {"model": tiny(), "epoch": 3})
    save_file(tiny(), folder / "a.safetensors")
    np.savez(folder / "a.npz", **tiny())
    originals = {path.suffix: path.read_bytes() for path in sorted(folder.iterdir())}
    originals["golden.pth"] = (GOLDEN / "hf_beit.pth").read_bytes()
    tracemalloc.start()
    for i in range(count):
        kind = rng.choice(list(originals))
        file = folder / f"mutated{kind if kind[0] == '.' else '.pth'}"
        file.write_bytes(mutate(originals[kind], rng))
        tracemalloc.reset_peak()
        before = tracemalloc.get_traced_memory()[0]
        outcomes[attempt(file)] += 1
        peak = tracemalloc.get_traced_memory()[1] - before
        assert peak <= 2 * file.stat().st_size + OVERHEAD, f"mutation {i} of seed {seed} takes {peak} bytes"
    tracemalloc.stop()
    return outcomes


def test_mutated_files_are_told_or_loaded(tmp_path):
    assert min(fuzz(tmp_path, MUTATIONS, 0).values()) > 10


@pytest.mark.slow
def test_ten_thousand_mutated_files(tmp_path):
    print(fuzz(tmp_path, 10_000, 1))


MEASURE = """
import os, sys
import jax_ssl.weights.report as report
from jax_ssl.weights import imported
from jax_ssl.weights.load import load
def status(name):
    return next(int(line.split()[1]) * 1024 for line in open("/proc/self/status") if line.startswith(name))
open("/proc/self/clear_refs", "w").write("5")
before = status("VmRSS")
_, network = report.take(sys.argv[1])
imported.write(sys.argv[2], network)
print(status("VmHWM") - before)
"""


def large(megabytes: int) -> dict:
    """Random tensors of a ViT under timm's names, of about this size in float32."""
    width, grid = 1024, 4
    depth = max(1, round(megabytes * 1e6 / 4 / (12 * width**2)))
    rng = np.random.default_rng(0)
    draw = lambda *shape: rng.random(shape, np.float32)
    arrays = {"cls_token": draw(1, 1, width), "pos_embed": draw(1, 1 + grid**2, width),
              "patch_embed.proj.weight": draw(width, 3, 16, 16), "patch_embed.proj.bias": draw(width)}  # fmt: skip
    linears = {"attn.qkv": (3 * width, width), "attn.proj": (width, width), "mlp.fc1": (4 * width, width),
               "mlp.fc2": (width, 4 * width)}  # fmt: skip
    for i in range(depth):
        for linear, shape in linears.items():
            arrays |= {f"blocks.{i}.{linear}.weight": draw(*shape), f"blocks.{i}.{linear}.bias": draw(shape[0])}
    for norm in ["norm", *(f"blocks.{i}.norm{j}" for i in range(depth) for j in (1, 2))]:
        arrays |= {f"{norm}.weight": draw(width), f"{norm}.bias": draw(width)}
    return arrays


@pytest.mark.slow
@pytest.mark.skipif(not Path("/proc/self/clear_refs").exists(), reason="peaks are read from Linux")
@pytest.mark.parametrize("kind", ["pth", "safetensors"])
def test_a_large_file_is_in_memory_once(tmp_path, kind):
    size = int(os.environ.get("JAX_SSL_LARGE_MB", 400))
    file, arrays = tmp_path / f"large.{kind}", large(size)
    torch_file.write(file, {"model": arrays}) if kind == "pth" else imported.write_safetensors(file, arrays)
    (tmp_path / "out").mkdir()
    del arrays
    call = [sys.executable, "-c", MEASURE, str(file), str(tmp_path / "out")]
    done = subprocess.run(call, capture_output=True, text=True, check=True, cwd=Path(__file__).parents[2])
    print(f"{int(done.stdout) / file.stat().st_size:.3f} of {file.stat().st_size / 1e6:.0f} MB")
    assert int(done.stdout) < 1.3 * file.stat().st_size
