"""Writes a file that `torch.load(weights_only=True)` reads, without torch: a zip archive with a small pickle in it."""

import math
import struct
import zipfile

import numpy as np
from etils import epath

from jax_ssl.paths import is_remote
from jax_ssl.weights.pickled import DTYPES

PIECE = 2**24  # bytes
FOLDER, ALIGNMENT = "archive", 64  # torch maps files to memory whose records begin at a multiple of 64 bytes
KINDS = {np.dtype(dtype): kind for kind, dtype in DTYPES.items()}


def write(file: epath.Path, tree: dict) -> None:
    """Writes nested dicts of arrays, strings and numbers. Equal trees give equal files."""
    arrays = []
    program = b"\x80\x02" + encode(tree, arrays) + b"."
    with file.open("wb") as opened, zipfile.ZipFile(Stream(opened) if is_remote(file) else opened, "w") as archive:
        records = {"data.pkl": program, "byteorder": b"little"}
        records |= {f"data/{key}": array for key, array in enumerate(arrays)} | {"version": b"3\n"}
        for name, data in records.items():
            info = zipfile.ZipInfo(f"{FOLDER}/{name}")
            info.file_size = data.nbytes if isinstance(data, np.ndarray) else len(data)
            begin = archive.fp.tell() + 30 + len(info.filename) + 4
            info.extra = b"FB" + struct.pack("<H", -begin % ALIGNMENT) + bytes(-begin % ALIGNMENT)
            with archive.open(info, "w") as record:
                for piece in pieces(data) if isinstance(data, np.ndarray) else (data,):
                    record.write(piece)


class Stream:
    """A file that is written from front to back and no other way, which is all that a bucket can do."""

    def __init__(self, file):
        self.file = file

    def write(self, data: bytes) -> int:
        self.file.write(data)
        return len(data)

    def flush(self) -> None:
        self.file.flush()


def pieces(array: np.ndarray):
    """Yields the bytes of an array, some megabytes at a time: buckets take nothing but bytes."""
    view = memoryview(np.ascontiguousarray(array).reshape(-1).view(np.uint8))
    for begin in range(0, len(view), PIECE):
        yield bytes(view[begin : begin + PIECE])


def encode(value, arrays: list) -> bytes:
    """The opcodes that put a value on the stack. An array is appended to `arrays`, and its number is its record."""
    if isinstance(value, dict):
        return b"}(" + b"".join(encode(key, arrays) + encode(item, arrays) for key, item in value.items()) + b"u"
    if isinstance(value, tuple):
        return b"(" + b"".join(encode(item, arrays) for item in value) + b"t"
    if isinstance(value, bool) or value is None:
        return {True: b"\x88", False: b"\x89", None: b"N"}[value]
    if isinstance(value, str):
        return b"X" + struct.pack("<I", len(value.encode())) + value.encode()
    if isinstance(value, int):
        digits = value.to_bytes(value.bit_length() // 8 + 1, "little", signed=True)
        return b"\x8a" + bytes([len(digits)]) + digits
    if isinstance(value, float):
        return b"G" + struct.pack(">d", value)
    return encode_tensor(np.asarray(value), arrays)


def encode_tensor(array: np.ndarray, arrays: list) -> bytes:
    """The call of torch._utils._rebuild_tensor_v2(storage, offset, size, stride, requires_grad, hooks)."""
    strides = tuple(math.prod(array.shape[axis + 1 :]) for axis in range(array.ndim))
    name = lambda module, attribute: f"c{module}\n{attribute}\n".encode()
    parts = (encode("storage", []), name("torch", KINDS[array.dtype]), encode(str(len(arrays)), []), encode("cpu", []),
             encode(array.size, []))  # fmt: skip
    arrays.append(np.ascontiguousarray(array))
    storage, hooks = b"(" + b"".join(parts) + b"tQ", name("collections", "OrderedDict") + b")R"
    rest = encode(0, []) + encode(array.shape, []) + encode(strides, []) + encode(False, [])
    return name("torch._utils", "_rebuild_tensor_v2") + b"(" + storage + rest + hooks + b"tR"
