"""The layout of arrays over devices: one mesh, the batch over all devices, large parameters over `fsdp`.

All other code is written as if one device had the whole batch.
"""

import jax
import numpy as np
from jax.sharding import AxisType, Mesh, NamedSharding
from jax.sharding import PartitionSpec as P

from jax_ssl.errors import UserError

BATCH = P(("data", "fsdp"))
FSDP_MIN_SIZE = 2**20  # elements; splitting smaller arrays saves little memory and costs a gather


def make_mesh(fsdp: int = 1, devices=None) -> Mesh:
    """A (data, fsdp) mesh over `devices` (all of them by default); `fsdp` must divide their number.

    Slices of a pod differ along `data` only, so nothing but sums over `data` crosses the network between slices. The
    devices of a process are neighbours, in the order of the processes: this is also the order of their shares of the
    batch. Raises UserError where parameters would be split over slices.
    """
    devices = jax.devices() if devices is None else devices
    # A pod numbers its devices row by row, so the ids of one host are not consecutive: sort by slice and process.
    place = lambda device: (getattr(device, "slice_index", 0), device.process_index)
    devices = np.asarray(sorted(devices, key=place))
    slices = len({place(device)[0] for device in devices})
    if slices > 1 and devices.size // slices % fsdp:
        raise UserError(
            f"mesh.fsdp={fsdp} does not divide the {devices.size // slices} devices of a slice: parameters would be "
            "gathered over the network between slices in every step. Take a divisor of it."
        )
    # Auto: the compiler places the collectives. Explicit, the default of jax.make_mesh, rejects z @ z.T.
    return Mesh(devices.reshape(devices.size // fsdp, fsdp), ("data", "fsdp"), axis_types=(AxisType.Auto,) * 2)


def replicated(mesh: Mesh) -> NamedSharding:
    """The sharding of an array that every device has whole."""
    return NamedSharding(mesh, P())


def batched(mesh: Mesh) -> NamedSharding:
    """The sharding of an array whose leading axis is split over all devices."""
    return NamedSharding(mesh, BATCH)


def state_layout(shapes, mesh: Mesh, min_size: int = FSDP_MIN_SIZE):
    """A tree of shardings for `shapes`: arrays of `min_size` elements or more are split over `fsdp`, others replicated.

    The axis that is split is the largest one that the number of shards divides.
    """
    ways = mesh.shape["fsdp"]

    def place(x):
        axes = [None] * x.ndim
        if ways > 1 and x.size >= min_size:
            for axis in np.argsort(x.shape)[::-1]:
                if x.shape[axis] % ways == 0:
                    axes[axis] = "fsdp"
                    break
        return NamedSharding(mesh, P(*axes))

    return jax.tree.map(place, shapes)


def shard_batch(batch, mesh: Mesh):
    """Joins the images of every process (NumPy, leading axis = local images) into one global array per leaf."""
    return jax.tree.map(lambda x: jax.make_array_from_process_local_data(batched(mesh), np.asarray(x)), batch)


def replicate(tree, mesh: Mesh):
    """The same host values on every device."""
    return jax.tree.map(lambda x: jax.make_array_from_process_local_data(replicated(mesh), np.asarray(x)), tree)


def batch_constraint(x):
    """x with its leading axis split over all devices, so that FSDP gathers weights and never activations."""
    return jax.lax.with_sharding_constraint(x, BATCH) if _shared(jax.sharding.get_abstract_mesh()) else x


def _shared(mesh) -> bool:
    """Whether there is a mesh over which arrays are split: not inside of `by_batch`, where each device has its own."""
    return not mesh.empty and AxisType.Manual not in mesh.axis_types


def replicates_parameters() -> bool:
    """Whether the mesh that is set has several devices, of which each holds all parameters."""
    mesh = jax.sharding.get_abstract_mesh()
    return _shared(mesh) and mesh.size > 1 and mesh.shape["fsdp"] == 1


def by_batch(function, split: int):
    """`function` run by each device on its own images, for what the compiler can't divide itself, such as a kernel.

    The first `split` arguments and the first result have images along their leading axis. Other arguments are whole on
    each device; other results are sums over images, and are added up over the devices. function returns a list.
    """
    mesh = jax.sharding.get_abstract_mesh()
    if not _shared(mesh):
        return function

    def local(*arguments):
        first, *sums = function(*arguments)
        return first, [jax.lax.psum(x, mesh.axis_names) for x in sums]

    def run(*arguments):
        specs = tuple(BATCH if place < split else P() for place in range(len(arguments)))
        first, sums = jax.shard_map(local, in_specs=specs, out_specs=(BATCH, P()), check_vma=False)(*arguments)
        return [first, *sums]

    return run


def replicated_constraint(x):
    """x, whole on every device: a process can only read what its own devices have."""
    mesh = jax.sharding.get_abstract_mesh()
    return x if mesh.empty else jax.lax.with_sharding_constraint(x, P())


def split_strided(x, count: int):
    """Cuts a batch into `count` pieces that each have images of every device: (B, ...) -> (count, B / count, ...).

    Piece i has images i, i + count, ...: neighbouring images would be on a few devices, and the others would be idle.
    """
    return jax.numpy.moveaxis(x.reshape(len(x) // count, count, *x.shape[1:]), 1, 0)


def join_strided(pieces):
    """The inverse of `split_strided`."""
    count, size, *rest = pieces.shape
    return jax.numpy.moveaxis(pieces, 0, 1).reshape(count * size, *rest)
