"""A trained image tokenizer from a run's folder; BEiT learns to predict its codes."""

import functools
from collections.abc import Callable
from typing import NamedTuple

import jax
import jax.numpy as jnp

from jax_ssl import config, paths
from jax_ssl.errors import UserError
from jax_ssl.models import dvae
from jax_ssl.run import checkpoints


class Tokenizer(NamedTuple):
    """net.apply({"params": params()}, images, method="logits") gives the scores of the codes; see models/dvae.py."""

    net: dvae.DVae
    params: Callable[[], dict]  # reads them as NumPy arrays, at the first call
    mean: tuple[float, ...]  # how its images were normalised
    std: tuple[float, ...]


def without_weights(net: dvae.DVae, mean, std) -> Tokenizer:
    """A tokenizer whose weights are zeros."""

    def params():
        key, images = jax.random.key(0), jnp.zeros((1, 32, 32, 3))
        shapes = jax.eval_shape(lambda: net.init(key, images, key, 1.0))["params"]
        return jax.tree.map(lambda x: jnp.zeros(x.shape, x.dtype), shapes)

    return Tokenizer(net, params, mean, std)


def is_run(folder) -> bool:
    """Whether there is a run, which may have a tokenizer."""
    return (paths.resolve(folder) / "config.json").exists()


def load_tokenizer(folder) -> Tokenizer:
    """The tokenizer of a run of method dvae, at its newest good checkpoint. Raises UserError for any other folder."""
    if not is_run(folder):
        raise UserError(
            f"method.tokenizer={folder} is not the folder of a run: train one first, "
            f"python -m jax_ssl train --config=configs/dvae.py --workdir={folder}."
        )
    settings = config.of_run(folder)
    if settings.method.name != "dvae":
        raise UserError(f"method.tokenizer={folder} is a run of {settings.method.name}: give a run of method dvae.")
    model = {key: value for key, value in settings.model.items() if key != "name"}

    @functools.cache
    def params():
        return checkpoints.load_raw(paths.resolve(folder) / "checkpoints", names=("params",))[0]["params"]

    net = dvae.DVae(dvae.make(**model))
    return Tokenizer(net, params, tuple(settings.data.mean), tuple(settings.data.std))
