"""A folder of `weights import`: the tensors under our names in weights.safetensors, all else in network.json."""

import json
import struct

import numpy as np
from etils import epath
from flax import traverse_util

from jax_ssl import paths
from jax_ssl.errors import UserError
from jax_ssl.views.sizes import sides, size_of
from jax_ssl.weights.network import Network
from jax_ssl.weights.read import open_file
from jax_ssl.weights.torch_file import pieces

DESCRIPTION, ARRAYS = "network.json", "weights.safetensors"
KINDS = {np.dtype("float32"): "F32", np.dtype("int64"): "I64"}  # of what is written here


def is_imported(folder: epath.Path) -> bool:
    return (folder / DESCRIPTION).exists()


def write(folder, network: Network, **facts) -> None:
    """Writes the folder, which exists; facts: more to be noted in network.json, such as the file it came from."""
    folder = paths.resolve(folder)
    trees = {"params": network.params, "stats": network.stats, "extra": network.extra}
    write_safetensors(folder / ARRAYS, flatten(trees))
    about = dict(model=network.model, scheme=network.scheme, pixels=network.pixels, size=network.size, **facts)
    paths.write(folder / DESCRIPTION, json.dumps(about, indent=1))


def read(folder, which: str | None = None) -> Network:
    """The network of such a folder; its arrays are in memory. Raises UserError."""
    folder = paths.resolve(folder)
    if which is not None:
        raise UserError(f"{folder} holds one network only: leave which={which!r} out.")
    try:
        about = json.loads((folder / DESCRIPTION).read_text())
        listed = lambda value: tuple(value) if isinstance(value, list) else value
        model = {name: listed(value) for name, value in about["model"].items()}
        pixels = {name: tuple(about["pixels"][name]) for name in ("mean", "std")}
        scheme, size = about["scheme"], size_of(*sides(about["size"]))
    except (ValueError, LookupError, TypeError, AttributeError) as error:
        raise UserError(f"{folder / DESCRIPTION} is damaged ({error}); import the file again.") from error
    arrays = {name: np.asarray(tensor) for name, tensor in open_file(folder / ARRAYS).tree.items()}
    tree = traverse_util.unflatten_dict(arrays, sep="/")
    trees = {name: tree.get(name, {}) for name in ("params", "stats", "extra")}
    return Network(scheme, model, **trees, pixels=pixels, size=size)


def flatten(tree: dict) -> dict[str, np.ndarray]:
    """{"a/b": array} of a nested dict."""
    return {name: np.asarray(array) for name, array in traverse_util.flatten_dict(tree, sep="/").items()}


def write_safetensors(file: epath.Path, arrays: dict[str, np.ndarray], metadata: dict | None = None) -> None:
    """Writes float32 and int64 arrays one after the other, so that none of them is in memory twice."""
    header, end = {"__metadata__": metadata} if metadata else {}, 0
    for name, array in arrays.items():
        entry = dict(dtype=KINDS[array.dtype], shape=list(array.shape), data_offsets=[end, end + array.nbytes])
        header[name], end = entry, end + array.nbytes
    text = json.dumps(header).encode()
    text += b" " * (-len(text) % 8)
    with file.open("wb") as out:
        out.write(struct.pack("<Q", len(text)) + text)
        for array in arrays.values():
            for piece in pieces(array):
                out.write(piece)
