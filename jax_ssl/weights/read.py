"""The tensors of a weights file as NumPy arrays, without running code from the file, and without torch.

A torch file is a pickle, and a pickle is a program. The unpickler here knows an ordered dict, the names of torch's
storages and one constructor, all of which only describe tensors. The arrays are then read from the archive's raw
records. (`torch.load(weights_only=True)` has been bypassed twice: CVE-2025-32434, CVE-2026-24747.)
"""

import collections
import contextlib
import functools
import io
import math
import os
import pickle
import tempfile
import zipfile
from typing import NamedTuple

import ml_dtypes
import numpy as np
from etils import epath
from safetensors import SafetensorError
from safetensors.numpy import load_file

from jax_ssl import paths
from jax_ssl.errors import UserError

DTYPES = dict(
    FloatStorage="float32", DoubleStorage="float64", HalfStorage="float16", BFloat16Storage=ml_dtypes.bfloat16,
    LongStorage="int64", IntStorage="int32", ShortStorage="int16", CharStorage="int8", ByteStorage="uint8",
    BoolStorage="bool",
)  # fmt: skip
TORCH = (".pth", ".pt", ".bin", ".tar")  # the last as in NAME.pth.tar


def read(path, section: str | None = None) -> dict[str, np.ndarray]:
    """{name: array} of a .pth (.pt, .bin, .pth.tar), .safetensors or .npz file, in its own dtypes.

    section: which network of a torch file that holds several, such as "teacher". bfloat16 is that of ml_dtypes. Raises
    UserError for a file that is absent, damaged, of another kind, or that could run code.
    """
    path = paths.resolve(path)
    if not path.exists() or path.is_dir():
        raise UserError(f"There is no weights file {path}; check the path.")
    with local_copy(path) as copy:
        return _read(path, copy, section)


@contextlib.contextmanager
def local_copy(path: epath.Path):
    """The name of a local copy of a file in a bucket, for libraries that read local files only; else its own name."""
    if not paths.is_remote(path):
        yield os.fspath(path)
        return
    with tempfile.NamedTemporaryFile(suffix=path.suffix) as file:
        file.write(path.read_bytes())
        file.flush()
        yield file.name


def _read(path: epath.Path, copy: str, section: str | None) -> dict[str, np.ndarray]:
    if path.suffix in TORCH:
        return _read_torch(path, copy, section)
    if section is not None:
        raise UserError(f"{path} holds one network only: leave which={section!r} out.")
    try:
        if path.suffix == ".safetensors":
            return load_file(copy)
        if path.suffix == ".npz":
            with np.load(copy, allow_pickle=False) as file:
                return dict(file)
    except (SafetensorError, ValueError, OSError, EOFError, zipfile.BadZipFile) as error:
        raise UserError(f"{path} cannot be read ({error}); fetch it again, or save plain arrays in it.") from error
    known = ", ".join((*TORCH, ".safetensors", ".npz"))
    raise UserError(f"{path} is of an unknown kind (known are {known}): convert it to .safetensors.")


class Storage(NamedTuple):
    """`count` elements in the archive's record data/KEY. kind: torch's name of the storage, a key of DTYPES."""

    kind: str
    key: str
    count: int


class Tensor(NamedTuple):
    """A view of a storage; offset and strides in elements."""

    storage: Storage
    offset: int
    shape: tuple[int, ...]
    strides: tuple[int, ...]


class _Describe:
    """Takes the place of torch._utils._rebuild_tensor_v2. Without __dict__, so that a pickle cannot set attributes."""

    __slots__ = ()

    def __call__(self, storage, offset, shape, strides, *_):
        if not isinstance(storage, Storage):
            raise pickle.UnpicklingError("a tensor without a storage")
        return Tensor(storage, offset, shape, strides)


class _Unpickler(pickle.Unpickler):
    """Loads only what a plain state dict is made of, and refuses every other global."""

    def find_class(self, module, name):
        if (module, name) == ("collections", "OrderedDict"):
            return collections.OrderedDict
        if (module, name) == ("torch._utils", "_rebuild_tensor_v2"):
            return _Describe()
        if module == "torch" and name in DTYPES:
            return name
        raise UserError(f"asks for {module}.{name}, which weights do not need and which could run code")

    def persistent_load(self, pid):
        tag, kind, key, _, count = pid
        if tag != "storage" or kind not in DTYPES:
            raise pickle.UnpicklingError(f"a persistent object {tag!r} of kind {kind!r}")
        return Storage(kind, key, count)


def _read_torch(path: epath.Path, copy: str, section: str | None) -> dict[str, np.ndarray]:
    if not zipfile.is_zipfile(copy):
        raise UserError(
            f"{path} is not in torch's zip format (since 1.6): save it again where torch is installed, with "
            "torch.save(torch.load(OLD, weights_only=True), NEW)."
        )
    try:
        with zipfile.ZipFile(copy) as archive:
            names = archive.namelist()
            (folder,) = (name.removesuffix("data.pkl") for name in names if name.endswith("/data.pkl"))
            record = functools.cache(lambda name: _record(archive, folder + name))
            if f"{folder}byteorder" in names and record("byteorder") != b"little":
                raise ValueError("it was written by a big-endian machine")
            tensors = _choose(_Unpickler(io.BytesIO(record("data.pkl"))).load(), section)
            return {name: _array(tensor, record) for name, tensor in tensors.items()}
    except UserError as error:
        raise UserError(
            f"{path} {error}; if you trust it, save its weights alone as .safetensors where torch is installed."
        ) from None
    except Exception as error:  # a damaged file can raise anything
        raise UserError(f"{path} is damaged or no torch file ({error}); fetch it again.") from error


def _record(archive: zipfile.ZipFile, name: str) -> bytes:
    # torch never compresses; a compressed record could expand to any size.
    if archive.getinfo(name).compress_type != zipfile.ZIP_STORED:
        raise ValueError(f"{name} is compressed")
    return archive.read(name)


def _choose(tree, section: str | None) -> dict[str, Tensor]:
    """The dict of tensors: the pickle itself, or the only network in it, or the network called `section`."""
    tensors = lambda node: {name: value for name, value in node.items() if isinstance(value, Tensor)}
    networks = {name: tensors(value) for name, value in tree.items() if isinstance(value, dict) and tensors(value)}
    if section in networks:
        return networks[section]
    if section is None and tensors(tree):
        return tensors(tree)
    if section is None and len(networks) == 1:
        return next(iter(networks.values()))
    found = ", ".join(map(repr, networks)) or "none by name"
    raise UserError(f"holds these networks: {found}, so which={section!r} cannot be loaded")


def _array(tensor: Tensor, record) -> np.ndarray:
    dtype = np.dtype(DTYPES[tensor.storage.kind])
    data = record(f"data/{tensor.storage.key}")
    if len(data) != tensor.storage.count * dtype.itemsize or math.prod(tensor.shape) > tensor.storage.count:
        raise ValueError(f"storage {tensor.storage.key} has {len(data)} bytes, which is not what its tensors need")
    # NumPy refuses offsets and strides that point outside of the buffer.
    strides = [stride * dtype.itemsize for stride in tensor.strides]
    return np.ndarray(tensor.shape, dtype, data, tensor.offset * dtype.itemsize, strides)
