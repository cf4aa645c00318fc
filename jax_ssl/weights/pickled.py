"""The data in a pickle that torch wrote, without running anything that the pickle names.

A pickle is a program. The unpickler here knows a few names, and for each of them something of its own that only keeps
what it is given: tensors become descriptions, settings become dicts. Every other name is refused before it is used.
(`torch.load(weights_only=True)` has been bypassed twice: CVE-2025-32434, CVE-2026-24747.)
"""

import io
import pickle
import re
from typing import NamedTuple

import ml_dtypes
import numpy as np

from jax_ssl.errors import UserError

DTYPES = dict(
    FloatStorage="float32", DoubleStorage="float64", HalfStorage="float16", BFloat16Storage=ml_dtypes.bfloat16,
    LongStorage="int64", IntStorage="int32", ShortStorage="int16", CharStorage="int8", ByteStorage="uint8",
    BoolStorage="bool",
)  # fmt: skip
# Packages whose objects only hold the settings of a training run.
SETTINGS = ("argparse", "omegaconf", "pytorch_lightning", "lightning", "lightning_fabric", "pathlib")
REMEDY = "if you trust it, save its weights alone as .safetensors where torch is installed"
# Opcodes that no weights need. Some reserve memory before the data is seen to be there.
REFUSED = ("BYTEARRAY8", "NEXT_BUFFER", "READONLY_BUFFER", "EXT1", "EXT2", "EXT4", "INST", "OBJ")


class Storage(NamedTuple):
    """`count` elements in the archive's record data/KEY. kind: torch's name of the storage, a key of DTYPES."""

    kind: str
    key: str
    count: int


class Described:
    """A tensor that is a view of a storage; offset and strides in elements."""

    __slots__ = ("storage", "offset", "shape", "strides")

    def __init__(self, storage, offset, shape, strides):
        self.storage, self.offset, self.shape, self.strides = storage, offset, tuple(shape), tuple(strides)
        whole = all(isinstance(n, int) and n >= 0 for n in (offset, *self.shape, *self.strides))
        if not isinstance(storage, Storage) or not whole or len(self.shape) != len(self.strides):
            raise pickle.UnpicklingError("a tensor without a storage, or of no possible shape")


class Plain(dict):
    """Takes the place of an OrderedDict and of objects that hold settings: keeps the entries, ignores the rest."""

    __slots__ = ()

    def __init__(self, *given, **_):
        super().__init__(given[0] if given and isinstance(given[0], list) else {})

    def __setstate__(self, state):
        if isinstance(state, dict) and not self:
            self.update(state)


class Number:
    """Takes the place of numpy.dtype, which is made of a name and then told its byte order."""

    __slots__ = ("dtype",)

    def __init__(self, name="", *_):
        if not re.fullmatch(r"[<>|=]?[fiub][1248]", str(name)):
            raise UserError(f"asks for numbers of type {str(name)[:20]!r}, which weights do not need; {REMEDY}")
        self.dtype = np.dtype(name)

    def __setstate__(self, state):
        if state[1] in ("<", ">"):
            self.dtype = self.dtype.newbyteorder(state[1])


class Array:
    """Takes the place of numpy.ndarray, which is made empty and then filled."""

    __slots__ = ("value",)

    def __init__(self, *_):
        self.value = None

    def __setstate__(self, state):
        _, shape, number, fortran, data = state
        self.value = np.frombuffer(data, number.dtype).reshape(shape, order="F" if fortran else "C")


def scalar(number: Number, data: bytes):
    return np.frombuffer(data, number.dtype)[0].item()


def encode(text: str, _="latin1") -> bytes:  # how bytes were written for Python 2
    return text.encode("latin1")


def rebuild(storage, offset, shape, strides, *_):
    return Described(storage, offset, shape, strides)


def first(value, *_):
    """A Parameter is a tensor and what else torch knows of it."""
    return value


def items(given=()):
    return list(given)


def name_of(*given):
    return str(given[0])[:99] if given else ""


def reconstruct(kind, *_):
    return kind()


LENT = {
    "collections.OrderedDict": Plain,
    "collections.defaultdict": lambda *_: Plain(),
    "torch._utils._rebuild_tensor": rebuild,
    "torch._utils._rebuild_tensor_v2": rebuild,
    "torch._utils._rebuild_parameter": first,
    "torch._utils._rebuild_parameter_with_state": first,
    "torch.Size": lambda shape=(): tuple(shape),
    "torch.device": name_of,
    "numpy.ndarray": Array,
    "numpy.dtype": Number,
    "_codecs.encode": encode,
    "builtins.set": items,
    "builtins.frozenset": items,
    "builtins.object": object,
    "copyreg._reconstructor": reconstruct,
} | {
    f"numpy.{core}.multiarray.{name}": lent
    for core in ("core", "_core")
    for name, lent in (("scalar", scalar), ("_reconstruct", lambda *_: Array()))
}
PYTHON_2 = {"__builtin__": "builtins", "copy_reg": "copyreg"}


class Unpickler(pickle._Unpickler):
    """The one in Python: the one in C reserves memory for as many memos as a pickle says that it has."""

    dispatch = {
        opcode: function
        for opcode, function in pickle._Unpickler.dispatch.items()
        if opcode not in {getattr(pickle, name)[0] for name in REFUSED}
    }

    def load_build(self):
        """Gives an object its state: only to what was made for it, so that a pickle cannot change what it is lent."""
        if not isinstance(self.stack[-2], Plain | Number | Array):
            raise pickle.UnpicklingError("it changes what weights do not need")
        super().load_build()

    dispatch[pickle.BUILD[0]] = load_build

    def find_class(self, module, name):
        full = f"{PYTHON_2.get(module, module)}.{name}"
        if full in LENT:
            return LENT[full]
        if module == "torch" and (name in DTYPES or re.fullmatch(r"b?float\d*|u?int\d+|bool|half|double|long", name)):
            return name
        if module.split(".")[0] in SETTINGS and re.fullmatch(r"[A-Z]\w*", name):
            return Plain
        raise UserError(f"asks for {full[:80]}, which weights do not need and which could run code; {REMEDY}")

    def persistent_load(self, pid):
        tag, kind, key, _, count = pid
        if tag != "storage" or kind not in DTYPES or not isinstance(count, int) or not isinstance(key, str):
            raise pickle.UnpicklingError(f"a persistent object {str(tag)[:20]!r} of kind {str(kind)[:20]!r}")
        return Storage(kind, key, count)


def load(data: bytes):
    """The tree in a pickle: dicts, lists, tuples, strings and numbers, with Described and NumPy arrays as leaves.

    Raises UserError for a name that is not lent, and any other error for damaged data.
    """
    return Unpickler(io.BytesIO(data)).load()
