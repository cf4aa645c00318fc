"""A state as arrays on disk: flat, `{"params/backbone/stem/kernel": array}`, PRNG keys as their data.

So nothing depends on the classes of the optimiser's state, an empty tree is no special case, and a message can name the
first array in which two states differ. Shape, dtype and kind of key of each array are in the manifest.
"""

import contextlib
import math
import sys
import time
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import orbax.checkpoint as ocp
from etils import epath
from flax import traverse_util
from orbax.checkpoint._src.metadata import array_metadata_store

from jax_ssl.errors import LostError, UserError
from jax_ssl.run import disk, manifest

PyTree = Any
LATE = 0.2  # seconds to wait for the other reads when the read of one array has failed
ITEM = "state"  # the folder of the arrays, inside the folder of the step
LEAST_SLICE = 2**20  # bytes of an array that one device writes, where all devices have the whole array


def flatten(state: PyTree) -> tuple[dict, dict]:
    """({name: array}, {name: its description, for the manifest}) of a state, with PRNG keys as their data."""
    arrays, description = {}, {}
    for keys, leaf in jax.tree_util.tree_flatten_with_path(state)[0]:
        entry = {"shape": list(leaf.shape), "dtype": str(leaf.dtype)}
        if jnp.issubdtype(leaf.dtype, jax.dtypes.prng_key):
            entry["key"] = str(jax.random.key_impl(leaf))
            leaf = jax.random.key_data(leaf)
        entry |= {"data": list(leaf.shape), "data_dtype": str(leaf.dtype)}
        description[_name(keys)] = entry
        if _is_stored(entry):
            arrays[_name(keys)] = leaf
    return arrays, description


def restore(path: epath.Path, abstract_state: PyTree) -> PyTree:
    """Reads a verified step into the structure, shapes, dtypes and shardings of `abstract_state`. Raises UserError."""
    recorded = manifest.read(path)["arrays"]
    leaves, structure = jax.tree_util.tree_flatten_with_path(abstract_state)
    wanted = {_name(keys): leaf for keys, leaf in leaves}
    _check_same(recorded, wanted, path)
    targets = {name: _as_stored(leaf) for name, leaf in wanted.items()}
    on_disk = {name: target for name, target in targets.items() if _is_stored(recorded[name])}
    arrays = _read(path, on_disk, ocp.checkpoint_utils.construct_restore_args(on_disk))
    values = []
    for name, target in targets.items():
        value = arrays[name] if name in arrays else jnp.zeros(target.shape, target.dtype, device=target.sharding)
        key = recorded[name].get("key")
        values.append(jax.random.wrap_key_data(value, impl=key) if key else value)
    return jax.tree.unflatten(structure, values)


def read_raw(path: epath.Path, names: tuple[str, ...] | None) -> dict:
    """Reads a verified step, or only its sub-trees `names`, as nested dicts of NumPy arrays."""
    recorded = manifest.read(path)["arrays"]
    chosen = {k: v for k, v in recorded.items() if names is None or k.split("/")[0] in names}
    wanted = {k: jax.ShapeDtypeStruct(v["data"], v["data_dtype"]) for k, v in chosen.items() if _is_stored(v)}
    as_numpy = {name: ocp.RestoreArgs(restore_type=np.ndarray) for name in wanted}
    arrays = _read(path, wanted, as_numpy)
    empty = {name: np.zeros(entry["data"], entry["data_dtype"]) for name, entry in chosen.items() if name not in arrays}
    tree = traverse_util.unflatten_dict(arrays | empty, sep="/")
    return {name: {} for name in names or ()} | tree  # a sub-tree without arrays is not on disk


def save_small_arrays_whole() -> None:
    """Lets Orbax divide the writing of an array that all devices have only if it is large.

    By default each device cuts its share out of each array, with a program of its own: hundreds of programs to compile
    in the first save of a run on eight devices, for arrays of a few kilobytes.
    """
    handler = ocp.type_handlers.ArrayHandler(
        min_slice_bytes_for_replica_parallel=LEAST_SLICE, array_metadata_store=array_metadata_store.Store()
    )
    ocp.type_handlers.register_type_handler(jax.Array, handler, override=True)


class StepChanged(Exception):
    """A step was deleted, or became damaged, while it was read."""


@contextlib.contextmanager
def reading(path: epath.Path):
    """For a read of a verified step: raises StepChanged if the step changed meanwhile, LostError if the disk failed."""
    hook, sys.unraisablehook = sys.unraisablehook, _ignore_late_reads
    try:
        yield
    except UserError:
        raise
    except Exception as error:
        time.sleep(LATE)
        if manifest.fault(path) is not None:
            raise StepChanged from error
        if isinstance(error, disk.BUGS):
            raise
        said, remedy = disk.reason(error) or (None, "see that the disk or bucket can be reached")
        raise LostError(
            f"The checkpoint {path} could not be read, though its files are good: {f'{said} ' if said else ''}"
            f"({disk.quote(error)}); {remedy}, then repeat the command."
        ) from error
    finally:
        sys.unraisablehook = hook


def _ignore_late_reads(unraisable) -> None:
    """Hides tensorstore's traceback for each array that is still being read when the read of another has failed."""
    if "Event loop is closed" not in str(unraisable.exc_value):
        sys.__unraisablehook__(unraisable)


def _read(path: epath.Path, targets: dict, restore_args: dict) -> dict:
    if not targets:
        return {}
    with ocp.Checkpointer(ocp.PyTreeCheckpointHandler()) as reader:
        arguments = ocp.args.PyTreeRestore(item=targets, restore_args=restore_args, partial_restore=True)
        return reader.restore(path / ITEM, args=arguments)


def _check_same(recorded: dict, wanted: dict, path: epath.Path) -> None:
    """Raises UserError, with the name of the first array in which the checkpoint and the run differ."""

    def describe(shape, dtype):
        return f"{tuple(shape)} {dtype}"

    for name in sorted(recorded.keys() | wanted.keys()):
        there = describe(recorded[name]["shape"], recorded[name]["dtype"]) if name in recorded else "absent"
        here = describe(wanted[name].shape, wanted[name].dtype) if name in wanted else "absent"
        if there != here:
            raise UserError(
                f"The checkpoint {path} belongs to another model or optimiser: {name} is {there} there and {here} "
                "here; choose another --workdir."
            )


def _is_stored(entry: dict) -> bool:
    """Whether an array is on disk. Orbax refuses arrays without elements; the manifest has their shape."""
    return math.prod(entry["data"]) > 0


def _as_stored(leaf) -> jax.ShapeDtypeStruct:
    """Shape, dtype and sharding of the array on disk for this leaf of the state."""
    # Without a sharding Orbax would look for the devices of the run that saved.
    sharding = getattr(leaf, "sharding", None) or jax.sharding.SingleDeviceSharding(jax.devices()[0])
    if jnp.issubdtype(leaf.dtype, jax.dtypes.prng_key):
        leaf = jax.eval_shape(jax.random.key_data, jax.ShapeDtypeStruct(leaf.shape, leaf.dtype))
    return jax.ShapeDtypeStruct(leaf.shape, leaf.dtype, sharding=sharding)


def _name(keys) -> str:
    return jax.tree_util.keystr(keys, simple=True, separator="/")
