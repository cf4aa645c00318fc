"""Checks that a run's folder is continued with the config and the images with which it began.

Only the keys in FREE may change. If you add a key to a config, decide here whether a run may go on with another value
of it: put it in FREE if it changes no step and no weight. If no step was saved in a folder, its run starts again, with
any config.
"""

import inspect
import json
from collections.abc import Callable
from typing import Any

import jax
from etils import epath

from jax_ssl import config as configs
from jax_ssl import parts, paths
from jax_ssl.errors import UserError
from jax_ssl.run import disk

FREE = (
    # What is logged, measured, drawn and saved.
    "log_every", "checkpoint_every", "keep_last", "keep_best", "probe_every", "picture_every", "evaluate_at_end",
    "feature_depth", "data.eval_size", "data.eval_crop", "data.probe.",
    # When a run gives up. An unreadable image is replaced by the same neighbour whatever the limit.
    "on_collapse", "max_skipped", "data.broken_limit",
    # Machines: a batch depends on nothing but the config and the step.
    "data.dir", "data.workers", "mesh.", "hosts.",
    # Memory: the same sums, recomputed or in pieces. Not `micro_batch`: it changes the statistics of batch norm.
    "model.remat", "model.attention", "model.unroll", "method.chunks",
)  # fmt: skip


def check_writable(workdir) -> None:
    """Makes the folder; raises UserError if a run can't write there, LostError if its disk is full."""
    paths.check_run(workdir)
    try:
        paths.make_writable(workdir, "choose another --workdir")
    except UserError as refused:
        cause = refused.__cause__
        fault, _ = (disk.reason(cause) if isinstance(cause, OSError) else None) or ("", "")
        if "full" in fault or "quota" in fault:
            raise disk.lost_error(cause) from None
        raise


def has_saved_steps(workdir) -> bool:
    """Whether a step was saved in the folder, a damaged one included."""
    folder = paths.resolve(workdir) / "checkpoints"
    places = [place for place in (folder, folder / "damaged") if place.exists()]
    return any(path.name.isdigit() for place in places for path in place.iterdir())


def check_config(workdir, config: dict, extend: bool = False, say: Callable = print) -> float:
    """The epochs of the run in `workdir`, if it may go on with this config; for a new run the epochs of `config`.

    extend: the config may have more epochs than the run. Raises UserError for a run with another config.
    """
    folder = paths.resolve(workdir)
    file = folder / "config.json"
    own = config.get("epochs", 0.0)
    if not file.exists():
        return own
    try:
        there = json.loads(file.read_text())
        stored, wanted = _complete(there), _complete(json.loads(json.dumps(config)))  # tuples become lists, as there
    except (ValueError, AttributeError):
        raise UserError(f"{file} cannot be read as a config; choose another --workdir, or delete that file.") from None
    differing = [key for key in _differing(stored, wanted) if not _may_differ(key, stored, wanted, folder)]
    if not has_saved_steps(folder):
        if differing:
            said = "; ".join(f"{key}: {_show(wanted, key)} instead of {_show(stored, key)}" for key in differing[:5])
            say(f"nothing was saved in {folder}, so it begins anew with the new config ({said})")
        return own
    was = there.get("epochs", own)
    if differing == ["epochs"]:
        if extend and own > was:
            return was
        raise UserError(_other_epochs(folder, was, own))
    if differing:
        shown = [f"{key}: {_show(stored, key)} there, {_show(wanted, key)} here" for key in differing[:5]]
        more = f"; and {len(differing) - 5} more" if len(differing) > 5 else ""
        raise UserError(
            f"The folder {folder} holds a run with another config ({'; '.join(shown)}{more}); choose another "
            "--workdir for this one."
        )
    return own


def _other_epochs(folder: epath.Path, was: float, own: float) -> str:
    start = f"choose another --workdir, or go on with --config.epochs={was:g}"
    if own > was:
        start = "add --extend to go on to the larger number, or choose another --workdir"
    return f"The folder {folder} holds a run of {was:g} epochs, and this is one of {own:g}; {start}."


def write_config(workdir, config: dict) -> None:
    """Writes `config.json`, with sorted keys, on process 0."""
    if jax.process_index() == 0:
        folder = paths.resolve(workdir)
        folder.mkdir(parents=True, exist_ok=True)
        paths.write(folder / "config.json", json.dumps(config, indent=2, sort_keys=True) + "\n")


def check_data(workdir, source) -> None:
    """Compares the training images with those with which the run in `workdir` began, and records them in `data.json`.

    source: a `data.source.Source`. Raises UserError for other images: another number changes order, length and
    schedule, and another class shifts the labels. A run of an older version without a `data.json` gets one.
    """
    file = paths.resolve(workdir) / "data.json"
    here = dict(name=source.name, count=int(source.count), classes=int(source.classes),
                class_names=list(source.class_names), identity=source.identity)  # fmt: skip
    there = _read_data(file)
    changes = _changes(there, here) if there and has_saved_steps(workdir) else ""
    if changes:
        raise UserError(
            f"The images of {source.name} are not those that the run in {workdir} began with ({changes}); restore "
            f"them, or begin another run with a --workdir of its own and --config.init_from={workdir}."
        )
    if here != there and jax.process_index() == 0:
        paths.write(file, json.dumps(here, indent=1) + "\n")


def _read_data(file: epath.Path) -> dict:
    try:
        found = json.loads(file.read_text())
        return found if isinstance(found, dict) else {}
    except (FileNotFoundError, ValueError):
        return {}


def _changes(there: dict, here: dict) -> str:
    """What has changed in the images, in words; "" if nothing has, as far as is recorded."""
    found = []
    if there.get("count") != here["count"]:
        found.append(f"{there.get('count'):,} images then, {here['count']:,} now")
    before, now = there.get("class_names") or [], here["class_names"]
    if there.get("classes", here["classes"]) != here["classes"]:
        found.append(f"{there['classes']} classes then, {here['classes']} now")
    elif before and now and before != now:
        old, new = next((old, new) for old, new in zip(before, now) if old != new)
        found.append(f"class {old} then, {new} now")
    known = there.get("identity") and (here["identity"] or there.get("name") != here["name"])
    if not found and known and there["identity"] != here["identity"]:
        found.append("as many, but other ones, or in another order")
    return "; ".join(found)


def same_config(stored: dict, wanted: dict) -> bool:
    """Whether two configs, as of JSON, are one, when keys that a later version added have their defaults."""
    names = lambda config: [config.get(section, {}).get("name") for section in ("method", "model")]
    return stored == wanted or (names(stored) == names(wanted) and _complete(stored) == _complete(wanted))


def _complete(config: dict) -> dict[str, Any]:
    """{dotted key: value} of a config; a key that a later version added gets its default."""
    filled = configs.to_dict(configs.from_json(json.dumps(config)))
    for section, folder in (("method", "methods"), ("model", "models")):
        if "name" in filled.get(section, {}):
            keywords = inspect.signature(parts.find_module(folder, filled[section]["name"]).make).parameters.values()
            defaults = {word.name: word.default for word in keywords if word.default is not word.empty}
            filled[section] = json.loads(json.dumps(defaults, default=str)) | filled[section]
    crops = filled.get("data", {}).get("crops", {})
    for name, group in crops.items():
        crops[name] = [json.loads(json.dumps(_plain_recipe())) | recipe for recipe in group]
    return _leaves(filled)


def _plain_recipe() -> dict:
    from jax_ssl.configs import crops  # a package only when `config.folder` has found it

    return crops.plain()


def _differing(stored: dict, wanted: dict) -> list[str]:
    """The keys with different values, without keys that this version does not know any more."""
    recipe = _plain_recipe().keys()
    gone = {key for key in stored.keys() - wanted.keys()
            if not key.startswith("data.crops.") or key.rpartition(".")[2] not in recipe}  # fmt: skip
    return [key for key in sorted((stored.keys() | wanted.keys()) - gone) if stored.get(key) != wanted.get(key)]


def _may_differ(key: str, stored: dict, wanted: dict, folder: epath.Path) -> bool:
    if key == "data.name":  # the same images may have moved: `check_data` compares the images themselves
        kinds = {str(leaves.get(key)).partition(":")[0] for leaves in (stored, wanted)}
        return len(kinds) == 1 and bool(_read_data(folder / "data.json").get("identity"))
    return is_free(key)


def is_free(key: str) -> bool:
    """Whether a run may go on with another value of this key."""
    return any(key == free or (free.endswith(".") and key.startswith(free)) for free in FREE)


def _leaves(tree, prefix: str = "") -> dict[str, Any]:
    """{"a": {"b": [{"c": 1}]}} -> {"a.b.0.c": 1}; a list of plain values is one value."""
    if isinstance(tree, list) and any(isinstance(item, dict) for item in tree):
        tree = {str(position): item for position, item in enumerate(tree)}
    if not isinstance(tree, dict):
        return {prefix: tree}
    flat = {}
    for key, value in tree.items():
        flat |= _leaves(value, f"{prefix}.{key}" if prefix else str(key))
    return flat


def _show(leaves: dict, key: str) -> str:
    return json.dumps(leaves[key]) if key in leaves else "absent"
