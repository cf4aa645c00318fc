"""The cases of `evaluate`: each network of a run or a file, and raw pixels, with its features of the labelled images.

They are made once for a command, and all rulers measure the same: features are extracted when the first one asks.
"""

import functools
from typing import NamedTuple

from jax_ssl.data.about import digest
from jax_ssl.data.split import Split, Splits, open_splits
from jax_ssl.encoder import at_depth
from jax_ssl.errors import UserError
from jax_ssl.evaluate import offline
from jax_ssl.evaluate.case import Case, Side
from jax_ssl.study import cost, features, measure
from jax_ssl.views.sizes import scaled_to, sides, size_of

NO_LABELS = "There are no labels to measure with: name a labelled set by --data."


class Row(NamedTuple):
    """A case, its name in a table, and what a number of it has to say of it."""

    label: str
    case: Case
    protocol: dict


def labelled(settings, say=measure.print_now) -> Splits:
    """The images to measure on, read when they are asked for. Raises UserError if they have no labels."""
    splits = open_splits(settings, say)
    check_labels(splits)
    return splits


def check_labels(splits: Splits) -> None:
    if splits.train.labels is None:
        raise UserError(f"{NO_LABELS} {splits.about}.")


def rows_of(networks: measure.Networks, splits: Splits, say=measure.print_now) -> list[Row]:
    """A Row for each name in `networks`, in order; of untrained networks also the fairer baselines."""
    rows = [pixel_row(networks, splits, say)] if "pixels" in networks.names else []
    makers, shared = measure.makers(networks, splits.train), {}
    return rows + [network_row(networks, splits, say, shared, *maker) for maker in makers]


def pixel_row(networks: measure.Networks, splits: Splits, say) -> Row:
    """Raw pixels, of large images averaged down to PIXELS_SIDE."""
    mean, std, most = networks.settings.data.mean, networks.settings.data.std, offline.PIXELS_SIDE
    flat = functools.partial(offline.flat_pixels, mean=mean, std=std)
    weights = digest("pixels", str(tuple(mean)), str(tuple(std)), str(most))
    large, (height, width) = max(sides(splits.train.size)) > most, scaled_to(most, splits.train.size)
    label = f"raw pixels{f', at {height} x {width}' if large else ''}"
    making = features.Making(functools.partial(map, flat), shared=False)
    make = functools.partial(make_side, networks, say, label, lambda: weights, making)
    case = Case("pixels", make("train", splits.train), make("test", splits.test), splits.classes, pixels=flat)
    return Row(label, case, {"resized_to": size_of(height, width)} if large else {})


def network_row(networks: measure.Networks, splits: Splits, say, shared: dict, label: str, make, base) -> Row:
    """A network of `measure.makers`. shared: of its Case."""
    depth = networks.settings.feature_depth
    encode = functools.cache(lambda: at_depth(make(), depth))

    @functools.cache
    def weights() -> str:
        if base is None:
            return features.fingerprint(encode())
        # What is adapted follows from the network before and from the images; it is only adapted where it is needed.
        return digest(features.fingerprint(at_depth(base(), depth)), "adapted", splits.train.identity)

    making = features.of_network(encode, splits.train.size)
    side = functools.partial(make_side, networks, say, label, weights, making)
    name = label.partition(", ")[0]
    case = Case(
        name, side("train", splits.train), side("test", splits.test), splits.classes, encode=encode,
        flops=lambda: cost.flops_of_image(encode(), splits.test.size),
        training=functools.partial(cost.training_of, networks) if name == "student" and not networks.encode else None,
        shared=shared,
    )  # fmt: skip
    return Row(label, case, measure.protocol_of(label, networks))


def make_side(networks, say, label: str, weights, making: features.Making, split: str, images: Split) -> Side:
    """A Side whose features are extracted, or read from their file, when they are asked for."""
    facts = {"weights": label, "of": networks.origin, "step": networks.step, "split": split,
             "data": measure.name_of(networks.settings)}  # fmt: skip
    make = lambda: features.make_or_load(making, images, weights(), networks.out, facts, say)
    return Side(make, lambda: images.labels, images)
