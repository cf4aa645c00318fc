"""From a run's folder, or a file of weights, and a few images to pictures of what the features see."""

import functools
import inspect
from collections.abc import Callable
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import optax
from ml_collections import ConfigDict

from jax_ssl import checkpoints, core, measure, parts, paths, train
from jax_ssl.data import few
from jax_ssl.encoder import Encoder, freeze
from jax_ssl.errors import UserError
from jax_ssl.evaluate import emergence
from jax_ssl.schedules import Clock
from jax_ssl.visualize import attention, correspondences, pca, pictures, reconstruct, views
from jax_ssl.weights import load

NETWORKS = ("student", "teacher", "untrained")  # of a run
NEEDED = ("params", "teacher", "extra")  # of a state, by pictures
RATIOS = (0.75, 0.85, 0.95)  # how much of an image `reconstruction` hides


class Subject(NamedTuple):
    """Whose features are drawn, and of what."""

    encode: Encoder
    name: str  # one of NETWORKS, or the name of a file
    images: np.ndarray  # uint8 (n, S, S, 3)
    config: ConfigDict | None  # of a run, with
    state: core.TrainState | None  # its newest state


class Picture(NamedTuple):
    """check raises UserError where it can't be drawn; draw writes files and says of each what it shows."""

    check: Callable[[Subject], None]
    draw: Callable[[Subject, Callable], dict[str, str]]  # (subject, name -> path) -> {name: sentence}


def draw(run=None, what=(), weights="student", images=None, size=None, count=8, out=None, say=print) -> list:
    """Draws each picture in `what`, by default those that fit, and returns the paths. Raises UserError.

    run: a run's folder, or None with the path of a file of weights in `weights`. images: a folder; by default images
    that were held out of the run's training, or the embedded ones. size: their side in pixels, by default that of the
    run. out: a folder, by default `pictures` in the run's.
    """
    unknown = sorted(set(what) - set(PICTURES))
    if unknown:
        raise UserError(f"--what={unknown[0]}: choose of {', '.join(PICTURES)}.")
    subject = open_subject(run, weights, images, size, count)
    for name in what:
        PICTURES[name].check(subject)
    folder = paths.make_writable(out or paths.resolve(run or ".") / "pictures", "choose another --out")
    path = lambda name: folder / f"{name}_{subject.name}.png"
    drawn = []
    for picture in what or fitting(subject):
        for name, sentence in PICTURES[picture].draw(subject, path).items():
            say(f"{name}: {sentence}, {len(subject.images)} images  ->  {path(name)}")
            drawn.append(path(name))
    return drawn


def fitting(subject: Subject) -> list[str]:
    """The pictures that can be drawn; what a method shows only where `reconstruction` does not show more of it."""
    found = []
    for name, picture in PICTURES.items():
        try:
            picture.check(subject)
        except UserError:
            continue
        found.append(name)
    return [name for name in found if name != "shown" or "reconstruction" not in found]


def open_subject(run, weights: str, folder, size: int | None, count: int) -> Subject:
    """The frozen network and the images that the flags name."""
    if count < 1 or (size is not None and size < 1):
        raise UserError(f"--count={count} and --size={size or 'that of the run'} must be at least 1.")
    if (run is None) == (weights in NETWORKS):
        raise UserError(f"Give --run=FOLDER, with one of --weights={', '.join(NETWORKS)}, or --weights=FILE alone.")
    config = state = None
    if run is None:
        encode, name = load(weights), paths.resolve(weights).stem
    else:
        config = measure.load_config(run)
        encode, state = open_run(run, config, weights)
        name = weights
    side = size or encode.size
    check_size(encode.backbone, side)
    if folder is not None:
        shown = few.of_folder(folder, count, side)
    elif config is not None:
        shown = few.of_source(
            config.data.probe.name or config.data.name, config.data.dir, count, side, config.data.eval_crop
        )
    else:
        shown = few.of_source("embedded", "", count, side, 1.0)
    return Subject(encode, name, shown, config, state)


def open_run(run: str, config: ConfigDict, which: str) -> tuple[Encoder, core.TrainState]:
    """One of a run's NETWORKS, frozen, and all that its method remembers."""
    state = create(config) if which == "untrained" else restore(run, config)
    if which == "teacher" and "backbone" not in state.teacher:
        raise UserError(f"{run} is a run of {config.method.name}, without a teacher: take --weights=student.")
    kind = "teacher" if which == "teacher" else "student"
    return freeze(parts.make_backbone(config), state, kind, **parts.images_of(config)), state


def restore(run: str, config: ConfigDict) -> core.TrainState:
    """A run's newest good state; what its optimiser remembers is left out."""
    loaded, step = checkpoints.load_raw(f"{run}/checkpoints", names=NEEDED)
    shapes = jax.eval_shape(lambda: create(config))

    def find(path, _):  # by name: a checkpoint has no empty dicts, and its tuples are dicts of "0", "1", ...
        names = (str(getattr(entry, "key", getattr(entry, "idx", entry))) for entry in path)
        return functools.reduce(lambda tree, name: tree[name], names, loaded)

    trees = jax.tree_util.tree_map_with_path(find, {name: getattr(shapes, name) for name in NEEDED})
    return core.TrainState(jnp.int32(step), opt_state=(), rng=jax.random.key(0), skipped=jnp.int32(0), **trees)


def create(config: ConfigDict) -> core.TrainState:
    """The state before the first step, as training with this config and seed makes it, without an optimiser's."""
    make = functools.partial(measure.new_state, config, make_method(config), optax.identity())
    return jax.jit(make)(jax.random.key(config.seed))


def check_size(backbone, side: int) -> None:
    """Raises UserError for images that can't be cut into the network's patches."""
    patch = getattr(backbone, "patch", 1) if getattr(backbone, "stem", "patch") == "patch" else 1
    if side % patch:
        raise UserError(
            f"--size={side} is no multiple of the network's patch of {patch}: take {max(side // patch, 1) * patch}."
        )


# ---- pictures of features


def check_attention(subject: Subject) -> None:
    emergence.check(subject.encode.backbone)


def draw_attention(subject: Subject, path) -> dict[str, str]:
    paths.save_picture(attention.draw(subject.encode, subject.images), path("attention"))
    return {"attention": f"last block's cls token, {subject.encode.backbone.heads} heads"}


def check_nothing(subject: Subject) -> None:
    """Every network has patches."""


def draw_pca(subject: Subject, path) -> dict[str, str]:
    picture, share = pca.draw(subject.encode, subject.images)
    paths.save_picture(picture, path("pca"))
    return {"pca": f"principal components of patch features ({of_position(subject, share)})"}


def of_position(subject: Subject, share: float) -> str:
    """What the pictures of patches did about the part of the features that only says where a patch is."""
    taken_out = share > pca.MOSTLY and len(subject.images) >= pca.ENOUGH
    return f"{100 * share:.0f} % of them position{', taken out' if taken_out else ''}"


def check_correspondences(subject: Subject) -> None:
    if len(subject.images) < 2:
        raise UserError("Correspondences are between two images, and there is one: raise --count or add an image.")


def draw_correspondences(subject: Subject, path) -> dict[str, str]:
    picture, share = correspondences.draw(subject.encode, subject.images)
    paths.save_picture(picture, path("correspondences"))
    return {"correspondences": f"nearest patches of two objects ({of_position(subject, share)})"}


# ---- pictures of a method


def check_run(subject: Subject) -> None:
    if subject.config is None:
        raise UserError(f"{subject.name} is a network without its method, which this picture needs: give --run=FOLDER.")


def make_method(config: ConfigDict, steps: int = 1, **changes) -> core.Method:
    """The run's method, with other keywords; the run is taken for finished after so many steps."""
    make = parts.find_module("methods", config.method.name).make
    keywords = parts.without_name(config.method) | changes
    return make(parts.make_backbone(config), Clock(steps / config.epochs, steps), **keywords)


def make_views(subject: Subject) -> dict:
    """The views of the images as the method gets them: {group: normalised (n, V, h, w, 3)}."""
    raw = few.raw_batch(subject.config, subject.images)
    return jax.jit(train.preparation(subject.config))(raw, subject.images)


def draw_views(subject: Subject, path) -> dict[str, str]:
    encode = subject.encode
    groups = sorted(make_views(subject).items(), key=lambda group: group[0] != "views")  # small crops come last
    pixels = {name: np.asarray(x) * encode.std + encode.mean for name, x in groups}
    paths.save_picture(views.draw(subject.images, pixels), path("views"))
    counts = ", ".join(f"{name} {x.shape[1]}" for name, x in pixels.items())
    return {"views": f"what {subject.config.method.name} is given of each image ({counts})"}


def method_batch(subject: Subject) -> dict:
    """What `Method.show` is given: the images as they are where a method sees one view of each, or else its views."""
    groups = subject.config.data.crops
    if set(groups) == {"views"} and sum(recipe["count"] for recipe in groups["views"]) == 1:
        return {"views": subject.encode.normalise(subject.images)[:, None]}
    return make_views(subject)


def check_show(subject: Subject) -> None:
    check_run(subject)
    if subject.name == "teacher":
        raise UserError("What a method shows of itself, it shows of its student: take --weights=student.")


def check_shown(subject: Subject) -> None:
    check_show(subject)
    model = subject.config.model
    if "norm_groups" in model and len(subject.images) % model.norm_groups:
        raise UserError(
            f"model.norm_groups={model.norm_groups} does not divide {len(subject.images)} images: change --count."
        )


def showing(subject: Subject, **changes) -> tuple[Callable, tuple]:
    """`Method.show` of the run's method, with other keywords, and its arguments."""
    state, config = subject.state, subject.config
    method = make_method(config, max(int(state.step), 1), **changes)
    return method.show, (state.params, state, method_batch(subject), jax.random.key(config.seed))


def show(subject: Subject, **changes) -> dict[str, np.ndarray]:
    function, arguments = showing(subject, **changes)
    return jax.device_get(jax.jit(function)(*arguments))


def draw_shown(subject: Subject, path) -> dict[str, str]:
    sentences, data = {}, subject.config.data
    for name, array in show(subject).items():
        title = f"shown_{name}"
        if array.ndim == 5:
            paths.save_picture(pictures.grid(array, data.mean, data.std, rows=len(array), zoom_to=160), path(title))
        else:
            pictures.save_heat_map(array, f"{name}, step {int(subject.state.step)}", path(title))
        sentences[title] = f"what {subject.config.method.name} shows of itself"
    return sentences


def check_reconstruction(subject: Subject) -> None:
    check_show(subject)
    name = subject.config.method.name
    if "mask_ratio" not in inspect.signature(parts.find_module("methods", name).make).parameters:
        raise UserError(f"{name} has no method.mask_ratio to hide more and more by: take --what=shown.")
    function, arguments = showing(subject)
    shown = jax.eval_shape(function, *arguments)
    if "reconstruction" not in shown or shown["reconstruction"].shape[1] != 3:
        raise UserError(f"{name} shows no image, left over and filled in, at any mask_ratio: take --what=shown.")


def draw_reconstruction(subject: Subject, path) -> dict[str, str]:
    pixels = lambda shown: shown["reconstruction"] * np.asarray(subject.encode.std) + np.asarray(subject.encode.mean)
    shown = {ratio: pixels(show(subject, mask_ratio=ratio)) for ratio in RATIOS}
    paths.save_picture(reconstruct.draw(shown), path("reconstruction"))
    settings, ratios = subject.config.method, ", ".join(f"{100 * ratio:.0f}" for ratio in RATIOS)
    # Such a method predicts a patch in units of its own mean and spread, which must come from the image to be drawn.
    known = "norm_pix" in settings and settings.norm_pix
    return {"reconstruction": f"{ratios} % hidden and filled in{', mean and spread of patches given' if known else ''}"}


PICTURES = {
    "views": Picture(check_run, draw_views),
    "attention": Picture(check_attention, draw_attention),
    "pca": Picture(check_nothing, draw_pca),
    "correspondences": Picture(check_correspondences, draw_correspondences),
    "reconstruction": Picture(check_reconstruction, draw_reconstruction),
    "shown": Picture(check_shown, draw_shown),
}
