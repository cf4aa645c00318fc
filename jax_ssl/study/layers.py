"""A linear probe behind each block, stage or layer of a run's network: `evaluate --task=layers`.

The probe reads the whole map, pooled to about 9 600 numbers, and not its mean: early layers have few channels and many
positions. Protocol of the probe: evaluate/linear.py; of the pooling: evaluate/layers.py.
"""

from jax_ssl.errors import UserError
from jax_ssl.evaluate import layers, linear
from jax_ssl.study import measure, rulers

NETWORKS = ("untrained", "student", "teacher")


def depths_of(networks) -> int:
    """Behind how many of its parts the network can be read. Raises UserError where there are none."""
    depths = getattr(networks.backbone, "depths", 0)
    if not depths:
        name = networks.origin if networks.encode else f"model.name={networks.settings.model.name}"
        raise UserError(f"{name} can't be read behind its layers: take --task=linear.")
    return depths


def measure_layers(networks, pool: str, seed=None, say=measure.print_now) -> list[dict]:
    """A row for each network, a column for each depth; records in results.jsonl. pool: `max` or `mean`."""
    settings = networks.settings
    depths, seed = depths_of(networks), settings.seed if seed is None else seed
    data = measure.labelled(settings, say)
    names = [f"behind {depth}" for depth in range(1, depths + 1)]
    say(f"\n{measure.introduction(networks, data)}")
    say(rulers.heading(f"linear probe, {pool} pools of the map", names))
    where, records = measure.where(networks, data, seed), []
    for label, encode in measure.encoders(networks, data.train_images):
        found = {}
        for depth, maps in maps_of(encode, data, depths, pool):
            probed = linear.measure(maps[0], data.train_labels, maps[1], data.test_labels, data.classes, seed)
            name = names[depth - 1]
            found[name] = probed["top1"]
            protocol = measure.counts(data) | linear.PROTOCOL | {"pool": pool}
            protocol |= measure.protocol_of(label, networks, depth)
            number = {"top1": found[name]}
            records += rulers.record(networks.out, where, "layers", label.partition(", ")[0], number, protocol)
        say(rulers.table_row(label, found, names))
    return records


def maps_of(encode, data, depths: int, pool: str):
    """Yields (depth, (maps of the training images, of the test images)) behind each part of the network."""
    for together in layers.passes(depths, len(data.train_images) + len(data.test_images)):
        both = (layers.maps(encode, images, together, pool) for images in (data.train_images, data.test_images))
        yield from zip(together, zip(*both, strict=True), strict=True)
