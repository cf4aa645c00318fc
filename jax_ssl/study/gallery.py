"""From a run's folder, or a file of weights, and a few images to pictures of what the features see."""

import inspect
from collections.abc import Callable
from typing import NamedTuple

import jax
import numpy as np

from jax_ssl import encoder, parts, paths, train
from jax_ssl.data import few
from jax_ssl.errors import UserError
from jax_ssl.evaluate import emergence
from jax_ssl.study.subject import Subject, make_method, open_subject
from jax_ssl.visualize import attention, correspondences, memory, pca, pictures, reconstruct, views

RATIOS = (0.75, 0.85, 0.95)  # how much of an image `reconstruction` hides


class Picture(NamedTuple):
    """check raises UserError where it can't be drawn; draw writes files and says of each what it shows."""

    check: Callable[[Subject], None]
    draw: Callable[[Subject, Callable], dict[str, str]]  # (subject, name -> path) -> {name: sentence}


def draw(
    run=None, what=(), weights="student", images=None, size=None, count=8, out=None, say=print, overrides=()
) -> list:
    """Draws each picture in `what`, by default those that fit, and returns the paths. Raises UserError.

    run: a run's folder, or None with the path of a file of weights in `weights`. images: a folder; by default images
    that were held out of the run's training, or the embedded ones. size: their side in pixels, by default that of the
    run. out: a folder, by default `pictures` in the run's. overrides: of the run's config, as for `evaluate`.
    """
    unknown = sorted(set(what) - set(PICTURES))
    if unknown:
        raise UserError(f"--what={unknown[0]}: choose of {', '.join(PICTURES)}.")
    subject = open_subject(run, weights, images, size, count, overrides)
    for name in what:
        PICTURES[name].check(subject)
    folder = paths.make_writable(out or paths.resolve(run or ".") / "pictures", "choose another --out")
    path = lambda name: folder / f"{name}_{subject.name}.png"
    files, left_out = [], {}
    for picture in what or PICTURES:
        if not what and picture == "shown" and "reconstruction" not in left_out:
            continue  # it shows the same and more
        try:
            PICTURES[picture].check(subject)
            drawn = PICTURES[picture].draw(subject, path)
        except UserError as error:
            if what:
                raise
            left_out[picture] = error
            continue
        for name, sentence in drawn.items():
            say(f"{name}: {sentence}, {len(subject.images)} images  ->  {path(name)}")
            files.append(path(name))
    if not files:
        raise UserError(f"None of the pictures can be drawn. {next(iter(left_out.values()))}")
    if left_out:
        say(f"left out, as they do not fit: {', '.join(left_out)} (--what={next(iter(left_out))} says why)")
    return files


# ---- pictures of features


def check_attention(subject: Subject) -> None:
    emergence.check_class_token(subject.encode.backbone)
    side = subject.images.shape[1]
    if side > subject.encode.size:
        memory.check(lambda: emergence.memory(subject.encode, side), f"Attention at --size={side}", "a smaller --size")


def draw_attention(subject: Subject, path) -> dict[str, str]:
    paths.save_picture(attention.draw(subject.encode, subject.images), path("attention"))
    return {"attention": f"last block's cls token, {subject.encode.backbone.heads} heads"}


def patches_of(subject: Subject) -> tuple[int, int]:
    """How many patches an image has, and how many features each."""
    return encoder.shape_of_patches(subject.encode, subject.images.shape[1])


def check_pca(subject: Subject) -> None:
    if patches_of(subject)[0] * len(subject.images) < 2:
        raise UserError("Principal components are of several patches, and there is one: raise --size or --count.")


def draw_pca(subject: Subject, path) -> dict[str, str]:
    picture, share = pca.draw(subject.encode, subject.images)
    paths.save_picture(picture, path("pca"))
    return {"pca": f"principal components of patch features ({position_note(subject, share)})"}


def position_note(subject: Subject, share: float) -> str:
    """What the pictures of patches did about the part of the features that only says where a patch is."""
    taken_out = share > pca.MAX_POSITION and len(subject.images) >= pca.MIN_IMAGES
    return f"{100 * share:.0f} % of them position{', taken out' if taken_out else ''}"


def check_correspondences(subject: Subject) -> None:
    if len(subject.images) < 2:
        raise UserError("Correspondences are between two images, and there is one: raise --count or add an image.")
    patches = patches_of(subject)[0]
    pairs = 3 * 8 * patches**2  # the cosine of each with each, in float64
    memory.check(lambda: pairs, f"Correspondences of {patches:,} patches", "a smaller --size")


def draw_correspondences(subject: Subject, path) -> dict[str, str]:
    picture, share = correspondences.draw(subject.encode, subject.images)
    paths.save_picture(picture, path("correspondences"))
    return {"correspondences": f"nearest patches of two objects ({position_note(subject, share)})"}


# ---- pictures of a method


def check_run(subject: Subject) -> None:
    if subject.config is None:
        raise UserError(f"{subject.name} is a network without its method, which this picture needs: give --run=FOLDER.")


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
    showing(subject)


def showing(subject: Subject, **changes) -> tuple[Callable, tuple]:
    """`Method.show` of the run's method, with other keywords, and its arguments. Raises UserError where it can't."""
    state, config = subject.state, subject.config
    method = make_method(config, max(int(state.step), 1), **changes)
    arguments = (state.params, state, method_batch(subject), jax.random.key(config.seed))
    try:
        jax.eval_shape(method.show, *arguments)
    except UserError:
        raise
    except Exception as error:  # tracing says of shapes that do not fit whatever it likes
        raise UserError(
            f"What {config.method.name} shows of itself can't be made of {len(subject.images)} images of "
            f"{subject.images.shape[1]} pixels ({str(error).strip().partition(chr(10))[0][:150]}): leave out --size, "
            "--count and --config, or change them."
        ) from error
    return method.show, arguments


def show(subject: Subject, **changes) -> dict[str, np.ndarray]:
    function, arguments = showing(subject, **changes)
    program = jax.jit(function).lower(*arguments).compile()
    name = f"What {subject.config.method.name} shows of itself"
    memory.check(lambda: encoder.temporary(program), name, "a smaller --size or --count")
    return jax.device_get(program(*arguments))


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
    "pca": Picture(check_pca, draw_pca),
    "correspondences": Picture(check_correspondences, draw_correspondences),
    "reconstruction": Picture(check_reconstruction, draw_reconstruction),
    "shown": Picture(check_shown, draw_shown),
}
