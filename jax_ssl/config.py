"""Makes one locked ConfigDict of a config file, a preset and overrides. Each mistake is a UserError of one sentence."""

import ast
import contextlib
import difflib
import importlib.util
import json
import re
import sys
import traceback
from pathlib import Path

from ml_collections import ConfigDict

from jax_ssl import paths
from jax_ssl.errors import UserError

PACKAGE = "jax_ssl.configs"
OTHERS = ("__init__", "common", "crops", "ablations", "history", "suite")  # files in there that are no config
MEASURING = (  # keys that may be changed when a saved run is measured or drawn
    "feature_depth", "data.name", "data.dir", "data.probe", "data.eval_size", "data.eval_crop", "data.workers",
    "data.broken_limit", "model.dtype", "model.remat", "model.attention", "model.unroll",
)  # fmt: skip
SIZES = ("data.eval_size",)  # keys that take a side, or a pair (height, width)


def folder() -> Path:
    """Where the shipped configs are: installed as `jax_ssl.configs`, or beside the package in a checkout."""
    spec = sys.modules[PACKAGE].__spec__ if PACKAGE in sys.modules else importlib.util.find_spec(PACKAGE)
    if spec is None:
        init = Path(__file__).parents[1] / "configs" / "__init__.py"
        spec = importlib.util.spec_from_file_location(PACKAGE, init, submodule_search_locations=[str(init.parent)])
        module = importlib.util.module_from_spec(spec)
        sys.modules[PACKAGE] = module
        spec.loader.exec_module(module)
    return Path(spec.origin).parent


def find(spec: str) -> tuple[Path, str]:
    """`simclr:tiny`, `configs/simclr.py:tiny` or the path of your own file -> (path, preset). Raises UserError."""
    name, _, preset = spec.rpartition(":") if re.search(r":\w*$", spec) else (spec, "", "")
    if paths.is_remote(name):
        raise UserError(f"The config {name} is a Python program, and those are read from a disk alone: copy it here.")
    shipped, own = folder(), Path(paths.resolve(name)) if name.startswith("~") else Path(name)
    stem = own.name.removesuffix(".py")
    for path in (own, shipped / f"{stem}.py"):
        # `missing/simclr.py` must not silently mean the shipped simclr.py.
        if path.is_file() and (path == own or own.parent.name in ("", "configs")):
            return path.resolve(), preset
    names = sorted(p.stem for p in shipped.glob("*.py") if p.stem not in OTHERS)
    near = difflib.get_close_matches(stem, names, 1)
    hint = f"did you mean {near[0]!r}?" if near else f"the shipped ones are {', '.join(names)}."
    raise UserError(f"There is no config {name!r}; {hint}")


def load(spec: str, overrides=()) -> ConfigDict:
    """The config of `spec` with overrides such as `--config.epochs=10`, locked. Raises UserError."""
    path, preset = find(spec)
    try:
        module_spec = importlib.util.spec_from_file_location("jax_ssl_config_file", path)
        module = importlib.util.module_from_spec(module_spec)
        module_spec.loader.exec_module(module)
        config = module.get_config(preset) if preset else module.get_config()
    except Exception as error:  # a config file is a program, and whatever it raises is for its author
        lines = [frame.lineno for frame in traceback.extract_tb(error.__traceback__) if frame.filename == str(path)]
        # `common.pick` raises ValueError for a wrong preset; for all else the author needs the kind and the line.
        cause = error if isinstance(error, ValueError) else f"{type(error).__name__}: {error}"
        where = f" (line {lines[-1]} of {path})" if lines and cause is not error else ""
        raise UserError(f"The config {spec!r} can't be used: {cause}{where}") from error
    if not isinstance(config, ConfigDict):
        raise UserError(f"The config {spec!r} can't be used: get_config has to return a ConfigDict; see common.base().")
    check_keys(config)
    return override(config, overrides)


def check_keys(config) -> None:
    """Raises UserError for an unknown or a missing key: a config file may be the user's own.

    The keys of `config.method` and `config.model` are checked by parts.py.
    """
    from jax_ssl.configs import common

    if not isinstance(config, ConfigDict):
        raise UserError(f"get_config() returns {type(config).__name__}: begin with common.base() of jax_ssl.configs.")
    _check_same_keys(config, common.base().to_dict() | {"optim": common.optim("sgd", 0.1)}, "")
    for section in ("model", "method"):
        if "name" not in config[section]:
            raise UserError(f"The config has no {section}.name: begin with a shipped one, or see configs/common.py.")


def _check_same_keys(found, wanted: dict, prefix: str) -> None:
    """Raises UserError unless both have the same keys, in all groups. A group that is empty by default may have any."""
    for key in sorted(set(found) ^ set(wanted)):
        near = difflib.get_close_matches(key, wanted, 1, 0.6)
        hint = f"did you mean config.{prefix}{near[0]}?" if near and key in found else "all are in configs/common.py."
        raise UserError(f"The config {'has an unknown' if key in found else 'lacks the'} key {prefix}{key}; {hint}")
    for key, group in wanted.items():
        if isinstance(group, dict) and group:
            _check_same_keys(found[key], group, f"{prefix}{key}.")


def override(config: ConfigDict, overrides) -> ConfigDict:
    """The config with each `--config.KEY=VALUE` applied, locked. Raises UserError."""
    for text in overrides:
        _apply(config, text)
    return config.lock()


def override_measuring(config: ConfigDict, overrides, more: tuple[str, ...] = ()) -> ConfigDict:
    """`override` for a saved run: only keys in MEASURING and `more` may change. Raises UserError for another key."""
    for text in overrides:
        key = text.partition("=")[0].removeprefix("--config.")
        if key in dict(_leaves(config)) and not key.startswith(MEASURING + more):
            raise UserError(
                f"config.{key} can't be changed in a saved run: evaluate and visualize take {', '.join(MEASURING)}."
            )
    return override(config, overrides)


def _apply(config: ConfigDict, override: str) -> None:
    """`--config.epochs=3` or `--config.data.crops.views[0].blur=0`: the value takes the type of the old one."""
    flag, equals, text = override.partition("=")
    key = flag.removeprefix("--config.")
    if not equals or key == flag:
        raise UserError(f"{override!r} is not understood: write {flag if key != flag else '--config.KEY'}=VALUE.")
    leaves = dict(_leaves(config))
    if key not in leaves:
        near = difflib.get_close_matches(key, leaves, 1, 0.6) or _same_ending(key, leaves)
        hint = f"did you mean config.{near[0]}?" if near else "all keys are in configs/common.py."
        raise UserError(f"There is no config key {key!r}; {hint}")
    *parents, last = parts_of(key)
    node = config
    for part in parents:
        node = node[part]
    value = _convert(key, text, leaves[key])
    with node.ignore_type() if key in SIZES else contextlib.nullcontext():
        node[last] = value


def parts_of(key: str) -> list[str | int]:
    """`data.crops.views[0].blur` -> ["data", "crops", "views", 0, "blur"]."""
    return [int(part) if part.isdigit() else part for part in re.findall(r"[^.\[\]]+", key)]


def _convert(key: str, text: str, old):
    """The text as a value of the same type as `old`. Reads Python literals and runs no code. Raises UserError."""
    try:
        value = ast.literal_eval(text)
    except (ValueError, SyntaxError):
        value = {"true": True, "false": False}.get(text.lower(), text)
    if key in SIZES:
        if type(value) is int or (isinstance(value, tuple) and len(value) == 2):
            return value
        raise UserError(f"config.{key}={text} can't be used: give a side in pixels, or (height,width).")
    if isinstance(old, str):
        return text.strip("'\"")
    if isinstance(old, float) and isinstance(value, int) and not isinstance(value, bool):
        try:
            return float(value)
        except OverflowError:
            raise UserError(f"config.{key} is a number of {len(text)} digits, which is too large.") from None
    if isinstance(old, tuple) and isinstance(value, list | tuple | int | float):
        return tuple(value) if isinstance(value, list | tuple) else (value,)
    if isinstance(old, ConfigDict) and isinstance(value, dict):
        return ConfigDict(value)
    if type(value) is not type(old):
        raise UserError(f"config.{key}={text} can't be used: it is {old!r} by default, a {type(old).__name__}.")
    return value


def keys_like(config: ConfigDict, name: str) -> list[str]:
    """Keys whose last part is that name or a similar one, the most similar first: `optim.base_lr` for `lr`."""
    found = _same_ending(name, dict(_leaves(config)))
    return sorted(found, key=lambda key: key.split(".")[-1] != name)


def of_run(folder) -> ConfigDict:
    """The config of the run in a folder. Raises UserError where there is no run, or its config is no JSON."""
    file = paths.resolve(folder) / "config.json"
    if not file.exists():
        raise UserError(f"{folder} is no run folder: it has no config.json. A run makes one at its first step.")
    try:
        return from_json(file.read_text())
    except ValueError:
        raise UserError(f"{file} cannot be read as JSON; restore it from the command that started the run.") from None


def from_json(text: str) -> ConfigDict:
    """The config of a run, from the text of its config.json; keys that the run's version did not have get defaults."""
    folder()
    from jax_ssl.configs import common

    stored, defaults = json.loads(text), common.base().to_dict()
    models = {"vit": common.vit, "resnet": common.resnet}
    defaults["model"] = models.get(stored.get("model", {}).get("name"), dict)()
    defaults["optim"] = common.optim("adamw", 0.0) if stored.get("optim") else {}
    return ConfigDict(_filled(defaults, stored))


def _filled(defaults: dict, stored: dict) -> dict:
    """`stored` over `defaults`, group by group."""
    both = {key for key, value in stored.items() if isinstance(value, dict) and isinstance(defaults.get(key), dict)}
    return defaults | stored | {key: _filled(defaults[key], stored[key]) for key in both}


def to_dict(config: ConfigDict) -> dict:
    """Plain nested dicts, lists and numbers, as they go to config.json."""
    return json.loads(config.to_json_best_effort())


def _same_ending(key: str, keys) -> list[str]:
    """Keys whose last part contains the last part of `key`, or is similar to it: `optim.base_lr` for `lr`."""
    wanted = key.split(".")[-1]
    last = {k: k.split(".")[-1] for k in keys}
    near = difflib.get_close_matches(wanted, last.values(), 1, 0.5)
    return [k for k in keys if wanted in last[k]] or [k for k in keys if last[k] in near]


def _leaves(node, prefix=""):
    """(dotted key, value) of every entry, groups included, list items as name[0]."""
    items = node.items() if hasattr(node, "items") else enumerate(node)
    for key, value in items:
        name = f"{prefix}[{key}]" if isinstance(key, int) else f"{prefix}.{key}" if prefix else key
        yield name, value
        of_groups = isinstance(value, list | tuple) and any(hasattr(item, "items") for item in value)
        if of_groups or hasattr(value, "items"):
            yield from _leaves(value, name)
