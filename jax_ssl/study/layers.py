"""A linear probe behind each block, stage or layer of a run's network: `evaluate --task=layers`.

The probe reads the whole map, pooled to about 9 600 numbers, and not its mean: early layers have few channels and many
positions. Protocol of the probe: evaluate/linear.py; of the pooling: evaluate/layers.py.
"""

import jax

from jax_ssl import parts
from jax_ssl.errors import UserError
from jax_ssl.evaluate import layers, offline
from jax_ssl.run import results
from jax_ssl.study import measure, rulers

NETWORKS = ("untrained", "student", "teacher")


def depths_of(settings) -> int:
    """Behind how many of its parts the config's network can be read. Raises UserError where there are none."""
    depths = getattr(parts.network_of(settings), "depths", 0)
    if not depths:
        raise UserError(f"model.name={settings.model.name} can't be read behind its layers: take --task=linear.")
    return depths


def measure_layers(
    folder: str, pool: str, wanted=NETWORKS, seed=None, say=measure.print_now, overrides=()
) -> list[dict]:
    """A row for each network, a column for each depth; records in results.jsonl. pool: `max` or `mean`."""
    settings = measure.load_config(folder, overrides)
    depths, seed = depths_of(settings), settings.seed if seed is None else seed
    saved = measure.open_saved(settings, folder, [name for name in wanted if name in NETWORKS], say)
    data = measure.labelled(settings, say)
    where = dict(data=measure.name_of(settings), split=data.split, k=None, step=saved.step, seed=seed, metric="top1")
    counts = dict(train_images=len(data.train_images), test_images=len(data.test_images), pool=pool)
    counts |= {"hardware": measure.hardware()}
    names = [f"behind {depth}" for depth in range(1, depths + 1)]
    say(f"\n{measure.introduction(settings, folder, saved, data)}")
    say(rulers.heading(f"linear probe, {pool} pools of the map", names))
    records = []
    for label, encode in measure.encoders(settings, saved, data.train_images):
        found = {}
        for depth, name in enumerate(names, 1):
            probed = offline.measure(layers.map_at(encode, depth, pool), data, seed, tasks=("linear",))
            if not probed.linear:
                raise UserError(f"Nothing could be measured. {' '.join(probed.notes)}")
            found[name] = probed.linear["top1"]
            protocol = counts | measure.protocol_of(label, encode, depth)
            if jax.process_index() == 0:
                records.append(
                    results.record_result(
                        folder, "layers", label.partition(", ")[0], value=found[name], protocol=protocol, **where
                    )
                )
        say(rulers.row(label, found, names))
    return records
