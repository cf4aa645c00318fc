"""The modules and networks that a config names: `model.name` and `method.name` are names of Python files."""

import importlib
import importlib.util

from jax_ssl.errors import UserError


def without_name(section) -> dict:
    return {key: value for key, value in section.items() if key != "name"}


def find_module(folder: str, name: str):
    """`jax_ssl/<folder>/<name>.py`: the file name is the registry. Raises UserError for a name that has no file."""
    full = f"jax_ssl.{folder}.{name}"
    if name.startswith("_") or importlib.util.find_spec(full) is None:
        raise UserError(f"There is no {full.replace('.', '/')}.py, which {folder[:-1]}.name={name!r} asks for.")
    return importlib.import_module(full)


def make_backbone(config):
    """The backbone that `config.model` describes, a Flax module."""
    return find_module("models", config.model.name).make(**without_name(config.model))


def images_of(config) -> dict:
    """What an Encoder of this config has to know of its images."""
    return dict(mean=tuple(config.data.mean), std=tuple(config.data.std), size=config.data.eval_size)
