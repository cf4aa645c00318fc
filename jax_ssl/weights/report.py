"""What is in a weights file, line by line, for `weights inspect`."""

import math

import numpy as np

from jax_ssl import paths
from jax_ssl.errors import UserError
from jax_ssl.views.sizes import Size, written
from jax_ssl.weights import imported
from jax_ssl.weights.convert import assign
from jax_ssl.weights.find import Found, choose, find, plainly_named, schemes_of
from jax_ssl.weights.load import load_network, open_weights
from jax_ssl.weights.network import Network
from jax_ssl.weights.read import Tensor

UNITS = ((1e9, "billion"), (1e6, "million"), (1e3, "thousand"), (1, ""))


def inspect(
    path, which: str | None = None, heads: int | None = None, family: str | None = None, size: Size | None = None
):
    """Yields the lines about a file or an imported folder. Raises UserError where not even its names can be read."""
    folder = paths.resolve(path)
    if folder.is_dir() and imported.is_imported(folder):
        yield f"{folder}: an imported network"
        yield from about(imported.read(folder))
        return
    file = open_weights(path)
    yield f"{file.path}: a {file.kind} file of {file.size / 1e6:.1f} MB"
    there = plainly_named(file)
    found = find(there, schemes_of(family))
    for where, tensors in there.items():
        numbers = sum(math.prod(tensor.shape) for tensor in tensors.values())
        known = [f for f in found if f.label == where or f.label.startswith(f"{where}." if where else "")]
        told = "; ".join(f"{f.label or 'the whole file'}: named as {f.scheme.name}" for f in known) or "names not known"
        yield f"  {where or 'tensors'}: {len(tensors)} of {count(numbers)} numbers ({told})"
    rest = [str(name) for name, value in file.tree.items() if name not in there and not isinstance(value, Tensor)]
    if rest:
        yield f"also in the file: {', '.join(rest[:20])}"
    one = choose(file, which, schemes_of(family))
    yield from leftovers(one)
    try:
        yield from about(load_network(file, which, heads, family, size))
    except UserError as error:
        yield f"it cannot be imported as it is: {error}"


def about(network: Network):
    """Yields the lines about a network."""
    model = ", ".join(f"{key} {value}" for key, value in network.model.items() if key not in ("name", "remat", "dtype"))
    yield f"network: {network.model['name']}: {model}"
    yield f"named as: {network.scheme}"
    mean, std = (tuple(round(value, 4) for value in network.pixels[name]) for name in ("mean", "std"))
    yield f"images: {written(network.size)} pixels, mean {mean}, std {std} (as published for this family)"
    for name, tree in network.params.items():
        yield f"part: {name}, {count(sum(array.size for array in imported.flatten(tree).values()))} parameters"
    for name, value in imported.flatten(network.extra).items():
        yield f"beside them: {name} {np.shape(value)}"


def leftovers(found: Found):
    """Yields one line that counts what is not taken and what is missing, and one for each name."""
    tensors, ignored, outside = found.sorted()
    problems = assign(tensors, found.rules).problems
    groups = {"ignored (a classifier, counters)": ignored, "other parts": outside} | problems
    yield "not taken: " + (", ".join(f"{len(names)} {what}" for what, names in groups.items() if names) or "nothing")
    for what, names in groups.items():
        yield from (f"  {what}: {name[:200]}" for name in names)


def count(size: int) -> str:
    """A large number in words: 85798656 -> "85.8 million"."""
    unit, word = next(((unit, word) for unit, word in UNITS if size >= unit), (1, ""))
    return f"{size / unit:.1f} {word}" if word else str(size)


def take(path, which: str | None = None, heads: int | None = None, family: str | None = None, size: Size | None = None):
    """([the line that counts what is not taken], the network of a file). Raises UserError for what does not fit."""
    file = open_weights(path)
    network = load_network(file, which, heads, family, size)
    return [next(leftovers(choose(file, which, schemes_of(family))))], network
