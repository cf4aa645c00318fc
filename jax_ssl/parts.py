"""The modules and networks that a config names: `model.name` and `method.name` are names of Python files."""

import importlib
import importlib.util
import inspect
from collections.abc import Callable

from jax_ssl import core
from jax_ssl.errors import UserError
from jax_ssl.models.micro import MicroBatched


def without_name(section) -> dict:
    return {key: value for key, value in section.items() if key != "name"}


def find_module(folder: str, name: str):
    """`jax_ssl/<folder>/<name>.py`: the file name is the registry. Raises UserError for a name that has no file."""
    full = f"jax_ssl.{folder}.{name}"
    if name.startswith("_") or importlib.util.find_spec(full) is None:
        raise UserError(f"There is no {full.replace('.', '/')}.py, which {folder[:-1]}.name={name!r} asks for.")
    return importlib.import_module(full)


def check_keywords(kind: str, make: Callable, section) -> None:
    """Raises UserError for keys of `config.method` or `config.model` (`kind`) that `make` does not take or misses."""
    name, given = section.name, set(without_name(section))
    takes = list(inspect.signature(make).parameters.values())[2 if kind == "method" else 0 :]  # after backbone, clock
    if any(parameter.kind is parameter.VAR_KEYWORD for parameter in takes):
        return  # it looks at them itself
    unknown = given - {parameter.name for parameter in takes}
    missing = {parameter.name for parameter in takes if parameter.default is parameter.empty} - given
    own = "." in name or kind == "model"
    remedy = f"its keys are those of make in {make.__module__}" if own else f"start from --config=configs/{name}.py"
    if unknown:
        raise UserError(f"{kind}.name={name} knows no {kind}.{min(unknown)}: {remedy}.")
    if missing:
        raise UserError(f"{kind}.name={name} needs {kind}.{min(missing)}, which the config has not: {remedy}.")


def make_backbone(config):
    """The backbone that `config.model` describes, a Flax module."""
    make = find_module("models", config.model.name).make
    check_keywords("model", make, config.model)
    return make(**without_name(config.model))


def make_method(config, clock):
    """The method that `config.method` describes, on its backbone, in pieces of `config.micro_batch` images if set."""
    make, size = find_module("methods", config.method.name).make, config.micro_batch
    check_keywords("method", make, config.method)
    on = lambda backbone: make(backbone, clock, **without_name(config.method))
    method = on(make_backbone(config))
    if not size:
        return method
    return core.in_pieces(method, size) if method.per_image else on(MicroBatched(make_backbone(config), size))


def images_of(config) -> dict:
    """What an Encoder of this config has to know of its images."""
    return dict(mean=tuple(config.data.mean), std=tuple(config.data.std), size=config.data.eval_size)
