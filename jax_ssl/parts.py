"""The modules and networks that a config names: `model.name` and `method.name` are names of Python files."""

import importlib
import importlib.util
import inspect

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


def make_backbone(config):
    """The backbone that `config.model` describes, a Flax module. Raises UserError for settings that make none."""
    return _make("models", config.model, "take a config that is made for it, or write your own; see configs/common.py.")


def make_method(config, clock):
    """The method that `config.method` describes, on its backbone, in pieces of `config.micro_batch` images if set.

    Raises UserError for settings that make none.
    """
    remedy, size = f"start from --config=configs/{config.method.name}.py.", config.micro_batch
    make = lambda backbone: _make("methods", config.method, remedy, backbone, clock)
    method = make(make_backbone(config))
    if not size:
        return method
    return core.in_pieces(method, size) if method.per_image else make(MicroBatched(make_backbone(config), size))


def _make(folder: str, settings, remedy: str, *before):
    """`make(*before, **settings)` of the module that `settings.name` names."""
    make, keywords, section = find_module(folder, settings.name).make, without_name(settings), folder[:-1]
    known = inspect.signature(make).parameters.values()
    needed = {p.name for p in known if p.kind is p.KEYWORD_ONLY and p.default is p.empty}
    unknown = sorted(set(keywords) - {p.name for p in known})
    if unknown and all(p.kind is not p.VAR_KEYWORD for p in known):
        raise UserError(f"{section}.name={settings.name} knows no {section}.{unknown[0]}: {remedy}")
    if needed - set(keywords):
        missing = min(needed - set(keywords))
        raise UserError(f"{section}.name={settings.name} needs {section}.{missing}, which is not set: {remedy}")
    return make(*before, **keywords)


def images_of(config) -> dict:
    """What an Encoder of this config has to know of its images."""
    return dict(mean=tuple(config.data.mean), std=tuple(config.data.std), size=config.data.eval_size)
