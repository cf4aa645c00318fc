"""Start a new run from given weights: of a run, of an official file, or of several, part by part.

Bad weights are reported before the first step. Values that are not finite are refused. A line of warning says that a
network gives all images the same feature (a diverged run may leave such weights), or that its images were normalised
in another way than the config's.
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
from jax_ssl.weights import hub, imported, zoo
from jax_ssl.weights.load import load_network, open_weights

OPTIONAL = ("mask_token",)  # some methods hide patches and others do not: the same backbone has it or not
RECIPE = "train a new part with the backbone fixed by optim.late=('backbone',) and optim.late_epochs=1"
TEST_IMAGES = 16  # at least, to measure the spread of a backbone's features
TEST_COLOURS = 4  # random colours in a row and in a column of such an image, interpolated
DEAD = 1e-3  # feature_std of a dead backbone; untrained ones have 0.7, damaged ones whose features still differ 0.04
NEARLY_DEAD = 0.05  # feature_std of a method's output in its first step


def parse(init_from: str, known: tuple[str, ...]) -> dict[str, str]:
    """{part: path} of "backbone=PATH,projector=PATH,teacher=PATH", or {"": PATH} of "PATH", for all parts that it has.

    known: the names of parts. A path that exists is not split at the `=` and `,` in it. Raises UserError.
    """
    if exists(init_from):
        return {"": init_from}
    parts, pieces = {}, re.split(rf",\s*(?=(?:{'|'.join(map(re.escape, known))})=)", init_from.strip())
    while pieces:
        # The longest path that exists: a folder may be called `a,projector=1`.
        longest = (count for count in range(len(pieces), 1, -1) if exists(split_part(",".join(pieces[:count]))[1]))
        count = next(longest, 1)
        part, path = split_part(",".join(pieces[:count]))
        if not path or part in parts or "" in parts or (parts and not part) or ("," in path and not exists(path)):
            raise UserError(
                f"init_from={init_from!r}: give one path, or one for each part, as backbone=PATH,projector=PATH."
            )
        parts[part] = path
        del pieces[:count]
    return parts


def check_exists(init_from: str) -> None:
    """Raises UserError for a path that does not exist, before anything is loaded."""
    for path in parse(init_from, tuple(re.findall(r"(?:^|,)\s*(\w+)=", init_from))).values():
        if not exists(path):
            raise UserError(f"init_from={path} does not exist: give a run's folder or an official file.")


def split_part(text: str) -> tuple[str, str]:
    """ "backbone=PATH" -> ("backbone", PATH); PATH -> ("", PATH)."""
    match = re.fullmatch(r"(\w+)=(.*)", text, re.DOTALL)
    return (match[1], match[2].strip()) if match else ("", text.strip())


def exists(path: str) -> bool:
    """Whether there is such a run or file, or an official file of this name."""
    return bool(path) and (paths.resolve(path).exists() or zoo.find(path) is not None)


def read(path: str) -> dict:
    """{"params", "teacher", "stats", "teacher_stats", "extra", "pixels", "padding"} of a run, a file or an import.

    path: a run's folder, for its newest good checkpoint; or RUN/checkpoints/STEP, for that one; or a file.
    pixels: mean and std that its images were normalised with; None if unknown. padding: that of a ResNet. extra:
    centers and the queue of a file; a new run from another run makes its own.
    """
    folder = paths.resolve(path)
    if folder.is_dir() and not imported.is_imported(folder) and not hub.is_hub(folder):
        hub.check_run(folder)
        folder, step = checkpoints.find(path)
        loaded, _ = checkpoints.load_raw(folder, step, names=checkpoints.WITHOUT_OPTIMISER)
        extra = loaded["extra"] or {}
        stats = {name: extra.get(name, {}) for name in ("stats", "teacher_stats")}
        facts = facts_of(folder.parent)
        return dict(params=loaded["params"], teacher=loaded["teacher"] or {}, extra={}, **facts, **stats)
    network = imported.read(folder) if imported.is_imported(folder) else load_network(open_weights(path))
    pixels = (network.pixels["mean"], network.pixels["std"])
    return dict(params=network.params, teacher={}, stats=network.stats, teacher_stats={}, extra=network.extra,
                pixels=pixels, padding=network.model.get("padding", "symmetric"))  # fmt: skip


def facts_of(folder) -> dict:
    """Pixels and padding by a run's config; pixels None if it cannot be read, as weights can be used without it."""
    file = folder / "config.json"
    try:
        settings = config.from_json(file.read_text())
    except (FileNotFoundError, ValueError):
        return dict(pixels=None, padding="symmetric")
    pixels = tuple(settings.data.mean), tuple(settings.data.std)
    return dict(pixels=pixels, padding=settings.model.get("padding", "symmetric"))


def start_from(init_from: str, state, settings, say=print):
    """The new state with the given parameters and batch statistics. settings: the new run's config.

    The teacher starts as the given teacher if there is one, else as a copy of the student's new parameters. One line
    says what was taken and what is new; one more for each warning. Raises UserError if weights do not fit or are not
    finite.
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
    for part, path in parts.items():
        if part in ("", "backbone", "teacher"):
            check_padding(path, given[part]["padding"], settings.model)
    state = state.replace(extra=with_memory(state.extra, given.get("", {"extra": {}})["extra"]))
    new = [name for name in state.params if name not in taken and jax.tree.leaves(state.params[name])]
    origin = ", ".join(f"{name} of {path}" for name, path in taken.items()) or f"the teacher of {parts['teacher']}"
    say(f"starting from {origin}" + (f"; new: {', '.join(new)} ({RECIPE})" if new else ""))
    for part, path in parts.items():
        warn_normalisation(path, given[part]["pixels"], settings.data, say)
    if "backbone" in taken:
        warn_dead(taken["backbone"], state, settings, say)
    return state


def check_padding(path: str, given: str, model) -> None:
    """Raises UserError if the backbone of `path` pads its images in another way than that of the config."""
    ours = model.get("padding", "symmetric")
    if given != ours:
        raise UserError(
            f"{path} is a ResNet with model.padding={given}, and this config has {ours}, which gives other features: "
            f"add --config.model.padding={given}."
        )


def warn_normalisation(path: str, pixels, data, say) -> None:
    """A warning if given weights were trained on images with another normalisation than the config's."""
    if pixels is None or np.allclose(pixels, (data.mean, data.std), atol=1e-3):
        return
    rounded = [tuple(round(float(value), 4) for value in values) for values in (*pixels, data.mean, data.std)]
    flags = [f"--config.data.{key}={values}".replace(" ", "") for key, values in zip(("mean", "std"), rounded)]
    say(
        f"other normalisation: {path} was trained with mean {rounded[0]} and std {rounded[1]}, and this config has "
        f"{rounded[2]} and {rounded[3]}; to use the former add '{flags[0]}' '{flags[1]}'"
    )


def warn_dead(path: str, state, settings, say) -> None:
    """A warning if the backbone gives different images the same feature, or none that is finite."""
    spread = backbone_spread(state, settings)
    if not spread > DEAD:  # true for NaN too
        what = "one and the same feature" if math.isfinite(spread) else "features that are not finite"
        say(
            f"the backbone of {path} looks dead: it gives different images {what} (feature_std {spread:.1e}), and "
            "training hardly ever repairs that; take other weights, or an earlier checkpoint"
        )


def warn_first_step(init_from: str, metrics: dict, say) -> None:
    """A warning if the metrics of the first step show that the given weights are damaged.

    A diverged run may leave a network that gives different features but has no finite gradient.
    """
    spread = float(metrics.get("feature_std", 1.0))
    if metrics["skipped"] > 0:
        what = "its loss or gradient is not finite"
    elif spread < NEARLY_DEAD:
        what = f"all images get nearly the same feature (feature_std {spread:.3f}, healthy is near 1)"
    else:
        return
    say(f"the first step from {init_from} failed: {what}; take other weights, or an earlier checkpoint")


def backbone_spread(state, settings) -> float:
    """feature_std of the state's backbone on a few random images: of pooled features or of patches, the larger.

    Batch norm uses the statistics of these images, as in training: the running ones of a diverged run may be useless.
    """
    encode = freeze(network_of(settings), state)
    stats = [name for name in encode.variables if name != "params"]
    pieces = math.lcm(jax.device_count(), getattr(encode.backbone, "norm_groups", 1))
    count, side = -(-TEST_IMAGES // pieces) * pieces, settings.data.eval_size
    colours = np.random.default_rng(0).standard_normal((count, TEST_COLOURS, TEST_COLOURS, 3), np.float32)
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
    """(the state with the given parts of the student, {part: its path})."""
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
    """The state with the given teacher; if none is given, with a copy of the student."""
    teacher, extra = {name: jax.tree.map(jnp.copy, state.params[name]) for name in state.teacher}, state.extra
    part = "teacher" if "teacher" in given else ""
    source = given.get(part, {"teacher": {}, "params": {}})
    # A file has one network, and some runs have no teacher: then take the student.
    params, stats = source["teacher"], "teacher_stats"
    if part and not params:
        params, stats = source["params"], "stats"
    for name in [name for name in teacher if name in params]:
        teacher[name] = fit(params[name], state.teacher[name], f"{parts[part]}, {name}", model)
        extra = with_stats(extra, "teacher_stats", name, source[stats])
    return state.replace(teacher=teacher, extra=extra)


def fit(given, new, where: str, model):
    """The given tree with the dtypes and sharding of the new one. Learned positions are resized. Raises UserError."""
    unused = {jax.tree_util.keystr(path): x for path, x in jax.tree_util.tree_leaves_with_path(given)}

    def take(path, target):
        name = jax.tree_util.keystr(path)
        if name not in unused:
            if path[-1].key in OPTIONAL:
                return target
            raise UserError(f"{where} has no {name}: set the model of the run that it comes from.")
        found = unused.pop(name)
        if path[-1].key == "positions" and np.shape(found)[2:] == target.shape[2:]:
            offset, antialias = model.get("position_offset", 0.0), model.get("position_antialias", False)
            same = np.shape(found) == target.shape
            found = found if same else positions.resize(jnp.asarray(found), target.shape[:2], offset, antialias)
        check_finite(found, where + name)
        if np.shape(found) != target.shape:
            raise UserError(
                f"{where}{name} is {np.shape(found)} and this config needs {target.shape}: set the same model, or give "
                "the parts to take, such as init_from=backbone=PATH."
            )
        return jax.device_put(jnp.asarray(found, target.dtype), target.sharding)

    taken = jax.tree_util.tree_map_with_path(take, new)
    left = [name for name in unused if not any(f"'{token}'" in name for token in OPTIONAL)]
    if left:
        raise UserError(
            f"{where} has {left[0]}, which the network of this config does not have: set the model that it comes from."
        )
    return taken


def with_memory(extra, given: dict):
    """`extra` with the centers or the queue that a file brings, where this run has them in the same shape."""
    ours = extra if isinstance(extra, dict) else {}
    fits = {name: x for name, x in given.items() if name in ours and np.shape(ours[name]) == np.shape(x)}
    check_finite(fits, "init_from, beside the parameters,")
    taken = {name: jax.device_put(jnp.asarray(x), ours[name].sharding) for name, x in fits.items()}
    return ours | taken if taken else extra


def check_finite(tree, where: str) -> None:
    """Raises UserError if an array of the tree has values that are not finite."""
    if not all(np.all(np.isfinite(x)) for x in jax.tree.leaves(tree)):
        raise UserError(f"{where} holds values that are not finite: take other weights, or an earlier checkpoint.")


def with_stats(extra, key: str, name: str, given):
    """`extra` with the given batch statistics of part `name` under `key`, if both have them. Raises UserError."""
    check_finite([tree[name] for tree in given.values() if name in tree], f"init_from, {key} of {name},")
    if not isinstance(extra, dict) or key not in extra:
        return extra
    collections = {
        kind: {**tree, name: jax.tree.map(lambda new, old: jax.device_put(jnp.asarray(new), old.sharding),
                                          given[kind][name], tree[name])}
        if name in tree and name in given.get(kind, {}) else tree
        for kind, tree in extra[key].items()
    }  # fmt: skip
    return extra | {key: collections}
