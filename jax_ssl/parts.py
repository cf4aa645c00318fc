"""The modules and networks that a config names: `model.name` and `method.name` are names of Python files.

A name without a dot is a file of this package. A name with a dot is a module of the user's own, imported from the
current folder, from PYTHONPATH or from the installed packages. The name is stored in the run's config.json, so that
every verb finds the module again. An error inside such a module is reported as one of the user's code.
"""

import difflib
import importlib
import importlib.util
import inspect
from collections.abc import Callable
from pathlib import Path

from jax_ssl import core
from jax_ssl.errors import CodeError, UserError
from jax_ssl.models.micro import MicroBatched


def without_name(section) -> dict:
    """A section of a config without its key `name`: the keywords of `make`."""
    return {key: value for key, value in section.items() if key != "name"}


def find_module(folder: str, name: str):
    """The module `jax_ssl/<folder>/<name>.py`, or a module of the user's own if the name has a dot.

    Raises UserError for a name that has no file.
    """
    key = f"{folder[:-1]}.name"
    if "." in name:
        return import_own_module(name, key, "make(backbone, clock, ...)" if folder == "methods" else "make(...)")
    full = f"jax_ssl.{folder}.{name}"
    if not name.isidentifier() or name.startswith("_") or importlib.util.find_spec(full) is None:
        files = sorted(file.stem for file in (Path(__file__).parent / folder).glob("[a-z]*.py"))
        near = difflib.get_close_matches(name, files, 1)
        hint = f"did you mean {near[0]!r}?" if near else "a module of your own has a dot in its name: 'mine.name'."
        raise UserError(f"There is no {full.replace('.', '/')}.py, which {key}={name!r} asks for: {hint}")
    return importlib.import_module(full)


def import_own_module(name: str, key: str, function: str):
    """The user's module `name`. key: the config key or flag that names it. function: what it must have, `make(...)`.

    Raises UserError where the module or the function is missing, CodeError where the module can't be imported.
    """
    try:
        module = importlib.import_module(name)
    except (Exception, SystemExit) as error:
        absent = isinstance(error, ModuleNotFoundError) and error.name and f"{name}.".startswith(f"{error.name}.")
        if absent or name.startswith(".") or name.endswith("."):
            top = name.strip(".").split(".")[0]
            raise UserError(
                f"{key}={name} is a Python module of your own, and it can't be found: give the command in the folder "
                f"that holds {top}, or with PYTHONPATH set to that folder, or install {top} with pip."
            ) from None
        raise user_code_error(f"{key}={name} can't be imported", error) from error
    if not callable(getattr(module, function.partition("(")[0], None)):
        raise UserError(f"{key}={name} has no function {function}: write it in {module.__file__}.")
    return module


def user_code_error(what: str, error: BaseException) -> CodeError:
    """The CodeError to raise for an error in the user's own code. Cuts the error's traceback to begin in that code."""
    trace, ours = error.__traceback__, str(Path(__file__).parent)
    while trace is not None and trace.tb_frame.f_code.co_filename.startswith((ours, "<frozen", importlib.__file__)):
        trace = trace.tb_next
    error.__traceback__ = trace
    message = str(error).strip().split("\n")[0]
    return CodeError(f"{what}: {type(error).__name__}{f': {message}' if message else ''}.")


def check_keywords(kind: str, make: Callable, section) -> None:
    """Raises UserError for keys of `config.method` or `config.model` (`kind`) that `make` does not take or misses."""
    name, given = section.name, set(without_name(section))
    takes = list(inspect.signature(make).parameters.values())[2 if kind == "method" else 0 :]  # after backbone, clock
    if any(parameter.kind is parameter.VAR_KEYWORD for parameter in takes):
        return  # a make with **keywords checks them itself
    unknown = given - {parameter.name for parameter in takes}
    missing = {parameter.name for parameter in takes if parameter.default is parameter.empty} - given
    own = "." in name or kind == "model"
    remedy = f"its keys are those of make in {make.__module__}" if own else f"start from --config=configs/{name}.py"
    if unknown:
        raise UserError(f"{kind}.name={name} knows no {kind}.{min(unknown)}: {remedy}.")
    if missing:
        raise UserError(f"{kind}.name={name} needs {kind}.{min(missing)}, which the config does not have: {remedy}.")


def make_part(folder: str, section, *arguments):
    """Calls `make` of the module that `config.model` or `config.method` names, with the keys of that section.

    folder: "models" or "methods". arguments: of `make`, before its keywords. Raises UserError, and CodeError where a
    module of the user's own fails.
    """
    make = find_module(folder, section.name).make
    check_keywords(folder[:-1], make, section)
    try:
        return make(*arguments, **without_name(section))
    except UserError:
        raise
    except Exception as error:
        if "." not in section.name:
            raise
        raise user_code_error(f"make of {folder[:-1]}.name={section.name} failed", error) from error


def make_backbone(config):
    """The backbone that `config.model` describes, a Flax module."""
    return make_part("models", config.model)


def make_method(config, clock):
    """The Method that `config.method` describes, on its backbone, in pieces of `config.micro_batch` images if set.

    Raises UserError where `make` returns anything but a Method.
    """
    on, size = lambda backbone: make_part("methods", config.method, backbone, clock), config.micro_batch
    method = on(make_backbone(config))
    if not isinstance(method, core.Method):
        name, made = config.method.name, type(method).__name__
        raise UserError(f"make of method.name={name} returns a {made}: it must return a jax_ssl.core.Method.")
    if not size:
        return method
    return core.in_pieces(method, size) if method.per_image else on(MicroBatched(make_backbone(config), size))


def images_of(config) -> dict:
    """The keywords mean, std and size of an Encoder, from this config."""
    return dict(mean=tuple(config.data.mean), std=tuple(config.data.std), size=config.data.eval_size)
