"""A new run that begins with given weights: those of a run, of an official file, or of several, part by part."""

import jax
import jax.numpy as jnp
import numpy as np
from etils import epath

from jax_ssl import checkpoints
from jax_ssl.errors import UserError
from jax_ssl.models import positions
from jax_ssl.weights import load

OPTIONAL = ("mask_token",)  # some methods hide patches and others do not: the same backbone has it or not
RECIPE = "a new part learns with the rest standing still by optim.late=('backbone',) and optim.late_epochs=1"


def parse(init_from: str) -> dict[str, str]:
    """{part: path}: "PATH" is all that PATH has (part ""), else "backbone=PATH,projector=PATH,teacher=PATH"."""
    parts = {}
    for piece in init_from.split(","):
        part, equals, path = piece.strip().partition("=")
        part, path = (part, path) if equals else ("", part)
        if not path or part in parts or ("" in parts) or (parts and not part):
            raise UserError(f"init_from={init_from!r}: give one path, or several as backbone=PATH,projector=PATH.")
        parts[part] = path
    return parts


def read(path: str) -> dict:
    """{"params", "teacher", "stats", "teacher_stats"} of a run, or of a step of it; of a file, a backbone only.

    path: a run's folder stands for its newest good checkpoint, RUN/checkpoints/STEP for that one.
    """
    if epath.Path(path).is_dir():
        folder, step = checkpoints.find(path)
        loaded, _ = checkpoints.load_raw(folder, step, names=("params", "teacher", "extra"))
        extra = loaded["extra"] or {}
        return dict(params=loaded["params"], teacher=loaded["teacher"] or {}, stats=extra.get("stats", {}),
                    teacher_stats=extra.get("teacher_stats", {}))  # fmt: skip
    variables = dict(load(path).variables)
    params = {"backbone": variables.pop("params")}
    return dict(params=params, teacher={}, stats={k: {"backbone": v} for k, v in variables.items()}, teacher_stats={})


def start_from(init_from: str, state, model, say=print):
    """The new state with given parameters in it, and their batch statistics. model: `config.model`, for positions.

    The teacher begins as the given teacher where there is one under that name, else as a copy of the student's new
    parameters. Says in one line what was taken and what is new. Raises UserError if something does not fit.
    """
    parts = parse(init_from)
    known = [*state.params, *(["teacher"] if state.teacher else [])]
    for part in parts:
        if part and part not in known:
            raise UserError(f"init_from has {part}=, and this method has {', '.join(known)}.")
    given = {part: read(path) for part, path in parts.items()}
    state, taken = with_student(state, parts, given, model)
    if not taken and "teacher" not in parts:
        raise UserError(f"init_from={init_from!r} holds none of {', '.join(state.params)}.")
    state = with_teacher(state, parts, given, model)
    new = [name for name in state.params if name not in taken and jax.tree.leaves(state.params[name])]
    origin = ", ".join(f"{name} of {path}" for name, path in taken.items()) or f"the teacher of {parts['teacher']}"
    say(f"starting from {origin}" + (f"; new: {', '.join(new)} ({RECIPE})" if new else ""))
    return state


def with_student(state, parts, given, model):
    """(the state with the parts of the student that are given, {part: its path})."""
    params, extra, taken = dict(state.params), state.extra, {}
    for part, source in given.items():
        if part == "teacher":
            continue
        for name in [part] if part else [name for name in state.params if name in source["params"]]:
            if name not in source["params"]:
                raise UserError(f"{parts[part]} has no {name}: it has {', '.join(source['params'])}.")
            params[name] = fit(source["params"][name], state.params[name], f"{parts[part]}, {name}", model)
            extra = with_stats(extra, "stats", name, source["stats"])
            taken[name] = parts[part]
    return state.replace(params=params, extra=extra), taken


def with_teacher(state, parts, given, model):
    """The state with the given teacher; where none is given, with a copy of the student's."""
    teacher, extra = {name: jax.tree.map(jnp.copy, state.params[name]) for name in state.teacher}, state.extra
    part = "teacher" if "teacher" in given else ""
    source = given.get(part, {"teacher": {}, "params": {}})
    # Of a file, which has one network, that one; of a run without a teacher, its student.
    theirs, stats = source["teacher"], "teacher_stats"
    if part and not theirs:
        theirs, stats = source["params"], "stats"
    for name in [name for name in teacher if name in theirs]:
        teacher[name] = fit(theirs[name], state.teacher[name], f"{parts[part]}, {name}", model)
        extra = with_stats(extra, "teacher_stats", name, source[stats])
    return state.replace(teacher=teacher, extra=extra)


def fit(given, new, where: str, model):
    """The given tree with the layout of the new one; learned positions are resized to its grid. Raises UserError."""
    theirs = {jax.tree_util.keystr(path): x for path, x in jax.tree_util.tree_leaves_with_path(given)}

    def place(path, mine):
        name = jax.tree_util.keystr(path)
        if name not in theirs:
            if path[-1].key in OPTIONAL:
                return mine
            raise UserError(f"{where} has no {name}: take the model of the run that it comes from.")
        found = theirs.pop(name)
        if path[-1].key == "positions" and np.shape(found)[2:] == mine.shape[2:]:
            offset, antialias = model.get("position_offset", 0.0), model.get("position_antialias", False)
            same = np.shape(found) == mine.shape
            found = found if same else positions.resize(jnp.asarray(found), mine.shape[:2], offset, antialias)
        if np.shape(found) != mine.shape:
            raise UserError(
                f"{where}{name} is {np.shape(found)} and this config needs {mine.shape}: take its model, or name the "
                "parts to take, such as init_from=backbone=PATH."
            )
        return jax.device_put(jnp.asarray(found, mine.dtype), mine.sharding)

    placed = jax.tree_util.tree_map_with_path(place, new)
    left = [name for name in theirs if not any(f"'{token}'" in name for token in OPTIONAL)]
    if left:
        raise UserError(f"{where} has {left[0]}, which this config's network has not: take the model it comes from.")
    return placed


def with_stats(extra, key: str, name: str, given):
    """`extra` with the given batch statistics of one part under `key`, where both have them."""
    if not isinstance(extra, dict) or key not in extra:
        return extra
    collections = {
        kind: {**tree, name: jax.tree.map(lambda new, old: jax.device_put(jnp.asarray(new), old.sharding),
                                          given[kind][name], tree[name])}
        if name in tree and name in given.get(kind, {}) else tree
        for kind, tree in extra[key].items()
    }  # fmt: skip
    return extra | {key: collections}
