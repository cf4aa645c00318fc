"""A new run that begins with given weights: those of a run, of an official file, or of several, part by part.

Weights that can't be what was meant are told before the first step: values that are not finite are refused, a network
that gives all images one feature (what a run that exploded may leave behind) and a normalisation other than the
config's are said in one line.
"""

import functools
import math
import re

import jax
import jax.numpy as jnp
import numpy as np

from jax_ssl import config, paths
from jax_ssl.encoder import freeze
from jax_ssl.errors import UserError
from jax_ssl.losses.diagnostics import feature_std
from jax_ssl.models import positions
from jax_ssl.parts import network_of
from jax_ssl.run import checkpoints
from jax_ssl.weights import load

OPTIONAL = ("mask_token",)  # some methods hide patches and others do not: the same backbone has it or not
RECIPE = "a new part learns with the rest standing still by optim.late=('backbone',) and optim.late_epochs=1"
SHOWN = 16  # pictures, at least, by which a network is seen to be alive
COARSE = 4  # each is so many random colours in a row and in a column, blurred into each other
DEAD = 1e-3  # spread of their features; untrained networks have 0.7, ruined ones that still tell images apart 0.04
NEARLY_DEAD = 0.05  # of a method's own output, in training


def parse(init_from: str, known: tuple[str, ...]) -> dict[str, str]:
    """{part: path}: "PATH" is all that PATH has (part ""), else "backbone=PATH,projector=PATH,teacher=PATH".

    known: the names of parts. What exists is a path, and not cut apart at the `=` and `,` that it may have.
    """
    if exists(init_from):
        return {"": init_from}
    parts, pieces = {}, re.split(rf",\s*(?=(?:{'|'.join(map(re.escape, known))})=)", init_from.strip())
    while pieces:
        # As many pieces as make a path that exists: a folder may be called `a,projector=1`.
        longest = (count for count in range(len(pieces), 1, -1) if exists(named(",".join(pieces[:count]))[1]))
        count = next(longest, 1)
        part, path = named(",".join(pieces[:count]))
        if not path or part in parts or "" in parts or (parts and not part) or ("," in path and not exists(path)):
            raise UserError(f"init_from={init_from!r}: give one path, or several as backbone=PATH,projector=PATH.")
        parts[part] = path
        del pieces[:count]
    return parts


def check_there(init_from: str) -> None:
    """Raises UserError for a path that does not exist: asked before anything is loaded."""
    for path in parse(init_from, tuple(re.findall(r"(?:^|,)\s*(\w+)=", init_from))).values():
        if not exists(path):
            raise UserError(f"init_from names {path}, which is not there: give a run's folder or an official file.")


def named(text: str) -> tuple[str, str]:
    """ "backbone=PATH" -> ("backbone", PATH); PATH -> ("", PATH)."""
    match = re.fullmatch(r"(\w+)=(.*)", text, re.DOTALL)
    return (match[1], match[2].strip()) if match else ("", text.strip())


def exists(path: str) -> bool:
    return bool(path) and paths.resolve(path).exists()


def read(path: str) -> dict:
    """{"params", "teacher", "stats", "teacher_stats", "pixels"} of a run, or of a step of it; of a file, its backbone.

    path: a run's folder stands for its newest good checkpoint, RUN/checkpoints/STEP for that one.
    pixels: the mean and the std that its images were normalised with; None where a run does not say.
    """
    if paths.resolve(path).is_dir():
        folder, step = checkpoints.find(path)
        loaded, _ = checkpoints.load_raw(folder, step, names=("params", "teacher", "extra"))
        extra = loaded["extra"] or {}
        return dict(params=loaded["params"], teacher=loaded["teacher"] or {}, stats=extra.get("stats", {}),
                    teacher_stats=extra.get("teacher_stats", {}), pixels=pixels_of(folder.parent))  # fmt: skip
    encode = load(path)
    variables = dict(encode.variables)
    params = {"backbone": variables.pop("params")}
    return dict(params=params, teacher={}, stats={k: {"backbone": v} for k, v in variables.items()}, teacher_stats={},
                pixels=(encode.mean, encode.std))  # fmt: skip


def pixels_of(folder):
    """The mean and the std of a run's config, None where it can't be read: its weights are all that is needed."""
    file = folder / "config.json"
    try:
        data = config.from_json(file.read_text()).data if file.exists() else None
    except ValueError:
        return None
    return data and (tuple(data.mean), tuple(data.std))


def start_from(init_from: str, state, settings, say=print):
    """The new state with given parameters in it, and their batch statistics. settings: the new run's config.

    The teacher begins as the given teacher where there is one under that name, else as a copy of the student's new
    parameters. Says in one line what was taken and what is new, and in one more each what looks wrong about it. Raises
    UserError if something does not fit or is not finite.
    """
    known = (*state.params, *(["teacher"] if state.teacher else []))
    parts = parse(init_from, known)
    for part in parts:
        if part and part not in known:
            raise UserError(f"init_from has {part}=, and this method has {', '.join(known)}.")
    given = {part: read(path) for part, path in parts.items()}
    state, taken = with_student(state, parts, given, settings.model)
    if not taken and "teacher" not in parts:
        raise UserError(f"init_from={init_from!r} holds none of {', '.join(state.params)}.")
    state = with_teacher(state, parts, given, settings.model)
    new = [name for name in state.params if name not in taken and jax.tree.leaves(state.params[name])]
    origin = ", ".join(f"{name} of {path}" for name, path in taken.items()) or f"the teacher of {parts['teacher']}"
    say(f"starting from {origin}" + (f"; new: {', '.join(new)} ({RECIPE})" if new else ""))
    for part, path in parts.items():
        tell_pixels(path, given[part]["pixels"], settings.data, say)
    if "backbone" in taken:
        tell_dead(taken["backbone"], state, settings, say)
    return state


def tell_pixels(path: str, pixels, data, say) -> None:
    """Says so where given weights have seen images of another normalisation than the config's."""
    if pixels is None or np.allclose(pixels, (data.mean, data.std), atol=1e-3):
        return
    shown = [tuple(round(float(value), 4) for value in values) for values in (*pixels, data.mean, data.std)]
    flags = [f"--config.data.{key}={values}".replace(" ", "") for key, values in zip(("mean", "std"), shown)]
    say(
        f"other normalisation: {path} has seen images of mean {shown[0]} and std {shown[1]}, and this config has "
        f"{shown[2]} and {shown[3]}; to keep theirs add '{flags[0]}' '{flags[1]}'"
    )


def tell_dead(path: str, state, settings, say) -> None:
    """Says so where the backbone gives different images one feature, or none that is finite: it will not recover."""
    spread = spread_of(state, settings)
    if not spread > DEAD:  # not a number is no more alive
        what = "one and the same feature" if math.isfinite(spread) else "features that are not finite"
        say(
            f"the backbone of {path} looks dead: it gives different images {what} (feature_std {spread:.1e}), and "
            "training hardly ever mends that; take other weights, or a checkpoint from before the trouble"
        )


def tell_first_step(init_from: str, metrics: dict, say) -> None:
    """Says so where the first step from given weights shows that they are ruined; metrics: of that step.

    A run that ended with values that are not finite may leave a network which looks alive and has no finite gradient.
    """
    spread = float(metrics.get("feature_std", 1.0))
    if metrics["skipped"] > 0:
        what = "its loss or gradient is not finite"
    elif spread < NEARLY_DEAD:
        what = f"all images get nearly the same feature (feature_std {spread:.3f}, healthy is near 1)"
    else:
        return
    remedy = "take other weights, or a checkpoint from before the trouble"
    say(f"the first step from {init_from} is no good: {what}; {remedy}")


def spread_of(state, settings) -> float:
    """feature_std of the state's backbone on a few random pictures: of what is pooled or of the patches, the larger.

    With batch norm it is read as in training, by the statistics of these pictures: a run that exploded may leave
    running ones that say nothing.
    """
    encode = freeze(network_of(settings), state)
    stats = [name for name in encode.variables if name != "params"]
    pieces = math.lcm(jax.device_count(), getattr(encode.backbone, "norm_groups", 1))
    count, side = -(-SHOWN // pieces) * pieces, settings.data.eval_size
    colours = np.random.default_rng(0).standard_normal((count, COARSE, COARSE, 3), np.float32)
    return float(_spread(encode.backbone, tuple(stats), encode.variables, colours, side))


@functools.partial(jax.jit, static_argnums=(0, 1, 4))
def _spread(backbone, stats, variables, colours, side):
    images = jax.image.resize(colours, (len(colours), side, side, 3), "linear")
    if stats:
        features, _ = backbone.apply(variables, images, train=True, mutable=list(stats))
    else:
        features = backbone.apply(variables, images)
    spreads = [feature_std(x.reshape(len(images), -1).astype(jnp.float32)) for x in (features.pooled, features.patches)]
    return jnp.max(jnp.stack(spreads))


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
        refuse_not_finite(found, where + name)
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


def refuse_not_finite(tree, where: str) -> None:
    if not all(np.all(np.isfinite(x)) for x in jax.tree.leaves(tree)):
        raise UserError(f"{where} holds values that are not finite: take other weights, or an earlier checkpoint.")


def with_stats(extra, key: str, name: str, given):
    """`extra` with the given batch statistics of one part under `key`, where both have them. Raises UserError."""
    refuse_not_finite([tree[name] for tree in given.values() if name in tree], f"init_from, {key} of {name},")
    if not isinstance(extra, dict) or key not in extra:
        return extra
    collections = {
        kind: {**tree, name: jax.tree.map(lambda new, old: jax.device_put(jnp.asarray(new), old.sharding),
                                          given[kind][name], tree[name])}
        if name in tree and name in given.get(kind, {}) else tree
        for kind, tree in extra[key].items()
    }  # fmt: skip
    return extra | {key: collections}
