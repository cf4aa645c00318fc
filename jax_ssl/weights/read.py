"""The tensors of a weights file, without running code from the file, and without torch.

A file is opened first: names, shapes and dtypes, all checked against its size. A tensor is read when it is asked for,
so that a large file is never in memory twice. See pickled.py for the pickle that a torch file has inside.
"""

import functools
import io
import json
import math
import os
import struct
import tempfile
import zipfile
from collections.abc import Callable
from typing import NamedTuple

import ml_dtypes
import numpy as np
from etils import epath

from jax_ssl import paths
from jax_ssl.errors import UserError
from jax_ssl.weights import pickled, zoo

TORCH = (".pth", ".pt", ".bin", ".tar", ".ckpt")  # the fourth as in NAME.pth.tar
ENDINGS = (*TORCH, ".safetensors", ".npz")
SAFETENSORS = dict(
    F64="float64", F32="float32", F16="float16", BF16=ml_dtypes.bfloat16, I64="int64", I32="int32", I16="int16",
    I8="int8", U64="uint64", U32="uint32", U16="uint16", U8="uint8", BOOL="bool",
)  # fmt: skip
ARRAYS = "write its arrays to .npz by their names where you trust it, docs/weights.md has the lines"
LONGEST_HEADER = 2**23  # bytes; that of a network of a thousand tensors has a hundredth of it
SLACK = 2**16  # bytes that small files may need beyond twice their size
# Parts of a checkpoint that hold no network: optimisers, schedules, settings.
NO_NETWORK = ("optim", "opt", "sched", "lr_sched", "scaler", "callbacks", "loops", "hyper", "args", "config", "amp",
              "fp16_scaler", "grad_scaler")  # fmt: skip


class Tensor:
    """A tensor of a file: shape and dtype are known, `np.asarray` reads it and raises UserError for damage."""

    __slots__ = ("shape", "dtype", "fetch")

    def __init__(self, shape: tuple[int, ...], dtype, fetch: Callable[[], np.ndarray]):
        self.shape, self.dtype, self.fetch = tuple(shape), np.dtype(dtype), fetch

    def __array__(self, dtype=None, copy=None):
        try:
            return np.asarray(self.fetch(), dtype)
        except (ValueError, OSError, EOFError, zipfile.BadZipFile, RuntimeError) as error:
            raise UserError(f"The weights file is damaged ({short(error)}); fetch it again.") from error


class File(NamedTuple):
    """An opened file.

    tree: nested dicts with `Tensor`s as leaves; of a .safetensors or .npz file one dict. which: the network that an
    official file with several is known for.
    """

    path: epath.Path
    kind: str  # torch, safetensors, npz
    tree: dict
    size: int  # in bytes
    which: str | None = None


def networks(tree: dict) -> dict[str, dict[str, Tensor]]:
    """{where: {name: Tensor}} for every dict of tensors, five levels deep; where: "" or "state_dict", "a.b"."""
    found, seen = {}, set()

    def walk(node, where):
        if id(node) in seen or len(where) > 5 or not isinstance(node, dict):
            return
        seen.add(id(node))
        tensors = {name: value for name, value in node.items() if isinstance(name, str) and isinstance(value, Tensor)}
        if tensors:
            found[".".join(where)] = tensors
        for name, value in node.items():
            if isinstance(name, str) and not name.lower().startswith(NO_NETWORK):
                walk(value, (*where, name))

    walk(tree, ())
    return found


def open_file(path) -> File:
    """Opens a file of any known kind, or the official one of this name; nothing large is in memory after it.

    Raises UserError for a file that is absent, damaged, of another kind, or that could run code.
    """
    official = zoo.find(path)
    path = zoo.get(path) if official else paths.resolve(path)
    there = path.exists() and not path.is_dir()
    if path.suffix in (".index", ".meta") or (not there and path.with_name(f"{path.name}.index").exists()):
        raise UserError(f"{path} is a checkpoint of TensorFlow: {ARRAYS}.")
    if not there:
        raise UserError(f"There is no weights file {path}; check the path, or see `python -m jax_ssl weights list`.")
    kinds = {suffix: ("torch", _open_torch) for suffix in TORCH}
    kinds |= {".safetensors": ("safetensors", _open_safetensors), ".npz": ("npz", _open_npz)}
    ending = path.suffix.lower()
    if ending in (".pkl", ".pickle", ".npy"):
        raise UserError(f"{path} is a pickle or one array, and a pickle can run code: {ARRAYS}.")
    if ending not in kinds:
        raise UserError(
            f"{path} is of an unknown kind (known are {', '.join(ENDINGS)}): unpack an archive, rename what is one of "
            "these, or convert it to .safetensors."
        )
    kind, opener = kinds[ending]
    stream = local(path)
    size = stream.seek(0, os.SEEK_END)
    stream.seek(0)
    stranger = stranger_of(stream.read(512), kind)
    if stranger:
        raise UserError(f"{path} {stranger}.")
    try:
        tree = opener(stream, size)
        asked = sum(math.prod(t.shape) * t.dtype.itemsize for found in networks(tree).values() for t in found.values())
        if asked > 2 * size + SLACK:
            raise ValueError(f"it says that it holds {asked} bytes of tensors, and has {size}")
    except UserError as error:
        raise UserError(f"{path} {error}.") from None
    except Exception as error:  # a damaged file can raise anything
        raise UserError(f"{path} is damaged or no {kind} file ({short(error)}); fetch it again.") from error
    return File(path, kind, tree, size, (official or {}).get("which"))


def stranger_of(head: bytes, kind: str) -> str | None:
    """What a file is that no kind of weights begins like, and what to do with it; None where it may be of `kind`."""
    if not head:
        return "is empty: fetch it again"
    if head.startswith(b"version https://git-lfs"):
        return "is a pointer of Git LFS, and not the file: `git lfs pull` in its folder fetches that"
    if head.lstrip().lower().startswith((b"<!doctype", b"<html", b"<?xml")):
        return "is a web page, and not the file: fetch it again, signed in where its page asks for that"
    if head.startswith(b"\x1f\x8b") or head[257:262] == b"ustar":
        return "is an archive of other files (tar or gzip): unpack it, and give the file in it"
    if kind == "safetensors" and head.startswith(b"PK\x03\x04"):
        return "is a zip archive, as torch and NumPy write them: rename it to end in .pth or .npz"
    if kind == "torch" and head[3:9] == b"\0\0\0\0\0{":
        return "is a safetensors file by its content: rename it to end in .safetensors"
    return None


def local(path: epath.Path):
    """The bytes of a file as a stream; a file in a bucket is copied to a temporary one first."""
    if not paths.is_remote(path):
        return open(path, "rb")
    stream = tempfile.TemporaryFile()
    with path.open("rb") as remote:
        while piece := remote.read(2**24):
            stream.write(piece)
    return stream


def short(error: BaseException) -> str:
    """An error in a few words: some repeat the whole of what they could not read."""
    text = " ".join(str(error).split()) or type(error).__name__
    return text if len(text) <= 160 else f"{text[:160]}..."


def _open_torch(stream, size: int) -> dict:
    stream.seek(0)
    if stream.read(4) == b"PK\x03\x04" and not zipfile.is_zipfile(stream):
        raise ValueError("its end is missing")
    if not zipfile.is_zipfile(stream):
        raise UserError("is not in torch's zip format (since 1.6): torch.save(torch.load(OLD, weights_only=True), NEW) "
                        "writes it again")  # fmt: skip
    archive = zipfile.ZipFile(stream)
    names = set(archive.namelist())
    if any("/code/" in name for name in names):
        raise UserError("is a program (TorchScript): torch.save(torch.jit.load(OLD, map_location='cpu').state_dict(), "
                        "NEW) writes its weights alone")  # fmt: skip
    (folder,) = (name.removesuffix("data.pkl") for name in names if name.endswith("/data.pkl"))
    if f"{folder}byteorder" in names and _record(archive, f"{folder}byteorder", size) != b"little":
        raise ValueError("it was written by a big-endian machine")
    tree = pickled.load(_record(archive, f"{folder}data.pkl", size))
    record = functools.lru_cache(maxsize=1)(lambda key: _record(archive, f"{folder}data/{key}", size))
    return _with_tensors(tree, lambda described: _tensor(described, archive, folder, record), {}, 0)


def _record(archive: zipfile.ZipFile, name: str, size: int) -> bytes:
    """A record's bytes; zipfile compares them with its checksum."""
    return archive.read(_stored(archive, name, size))


def _stored(archive: zipfile.ZipFile, name: str, size: int) -> zipfile.ZipInfo:
    """What the archive says of a record. torch never compresses; a compressed record could expand to any size."""
    info = archive.getinfo(name)
    if info.compress_type != zipfile.ZIP_STORED or info.compress_size != info.file_size:
        raise ValueError(f"{name} is compressed")
    if info.file_size > size:
        raise ValueError(f"{name} is said to be larger than the file")
    return info


def _with_tensors(node, tensor: Callable, done: dict, depth: int):
    """The tree with a Tensor for each description and array; what is not a tensor or a dict of them stays outside."""
    if isinstance(node, pickled.Described):
        return tensor(node)
    if isinstance(node, pickled.Array):
        array = np.zeros(0) if node.value is None else node.value
        return Tensor(array.shape, array.dtype, lambda: array)
    if not isinstance(node, dict) or depth > 6:
        return node if isinstance(node, str | int | float | bool) else None
    if id(node) not in done:
        done[id(node)] = made = {}
        made.update({name: _with_tensors(value, tensor, done, depth + 1) for name, value in node.items()})
    return done[id(node)]


def _tensor(described: pickled.Described, archive, folder: str, record: Callable) -> Tensor:
    storage, dtype = described.storage, np.dtype(pickled.DTYPES[described.storage.kind])
    length = _stored(archive, f"{folder}data/{storage.key}", 2**63).file_size
    last = described.offset + sum((n - 1) * step for n, step in zip(described.shape, described.strides))
    empty, elements = 0 in described.shape, math.prod(described.shape)
    if length != storage.count * dtype.itemsize or elements > storage.count or (not empty and last >= storage.count):
        raise ValueError(f"storage {storage.key} has {length} bytes, which is not what its tensors need")

    def fetch():
        strides = [step * dtype.itemsize for step in described.strides]
        return np.ndarray(described.shape, dtype, record(storage.key), described.offset * dtype.itemsize, strides)

    return Tensor(described.shape, dtype, fetch)


def _open_safetensors(stream, size: int) -> dict:
    stream.seek(0)
    (length,) = struct.unpack("<Q", stream.read(8))
    if length > min(size - 8, LONGEST_HEADER):
        raise ValueError(f"its header is said to have {length} bytes")
    header, start = json.loads(stream.read(length)), 8 + length
    tensors = {}
    for name, entry in header.items():
        if name == "__metadata__":
            continue
        if entry["dtype"] not in SAFETENSORS:
            kind = entry["dtype"]
            raise UserError(f"has numbers of type {kind} in {name[:80]}, which are not read here; {pickled.REMEDY}")
        dtype, shape, (begin, end) = np.dtype(SAFETENSORS[entry["dtype"]]), entry["shape"], entry["data_offsets"]
        whole = all(isinstance(n, int) and n >= 0 for n in (*shape, begin, end))
        if not whole or end - begin != math.prod(shape) * dtype.itemsize or start + end > size:
            raise ValueError(f"{name[:80]} does not lie where its header says")
        tensors[name] = Tensor(
            shape, dtype, functools.partial(_read_at, stream, start + begin, end - begin, dtype, shape)
        )
    return tensors


def _read_at(stream, begin: int, length: int, dtype, shape) -> np.ndarray:
    stream.seek(begin)
    return np.frombuffer(stream.read(length), dtype).reshape(shape)


def _open_npz(stream, size: int) -> dict:
    archive, tensors = zipfile.ZipFile(stream), {}
    if sum(max(info.file_size, info.compress_size) for info in archive.infolist()) > 2 * size + SLACK:
        raise ValueError("it would expand to more than twice its size, which weights do not")
    for info in archive.infolist():
        with archive.open(info) as record:
            version = np.lib.format.read_magic(record)
            reader = {(1, 0): np.lib.format.read_array_header_1_0, (2, 0): np.lib.format.read_array_header_2_0}[version]
            shape, _, dtype = reader(record)
            length = info.file_size - record.tell()
        if dtype.hasobject:
            raise UserError(f"holds Python objects, which could run code; {ARRAYS}")
        if math.prod(shape) * dtype.itemsize != length:
            raise ValueError(f"{info.filename[:80]} has {length} bytes, which is not what its shape needs")
        tensors[info.filename.removesuffix(".npy")] = Tensor(shape, dtype, functools.partial(_read_npy, archive, info))
    return tensors


def _read_npy(archive, info) -> np.ndarray:
    return np.lib.format.read_array(io.BytesIO(archive.read(info)), allow_pickle=False)
