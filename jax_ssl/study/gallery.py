"""Draws pictures of the features of a run, or of a file of weights, for a few images."""

import inspect
import math
from collections.abc import Callable
from typing import NamedTuple

import jax
import numpy as np

from jax_ssl import encoder, parts, paths, train
from jax_ssl.data import selection
from jax_ssl.errors import UserError
from jax_ssl.evaluate import emergence
from jax_ssl.study.subject import Subject, make_method, open_subject
from jax_ssl.views.sizes import is_square, sides, written
from jax_ssl.visualize import attention, correspondences, memory, pca, reconstruct, shown, views

RATIOS = (0.75, 0.85, 0.95)  # how much of an image `reconstruction` hides


class Picture(NamedTuple):
    """check raises UserError if the picture can't be drawn; draw writes files and returns a sentence for each."""

    check: Callable[[Subject], None]
    draw: Callable[[Subject, Callable], dict[str, str]]  # (subject, name -> path) -> {name: sentence}


def draw(
    run=None, what=(), weights="student", images=None, size=None, count=8, out=None, say=print, overrides=(), beside=()
) -> list:  # fmt: skip
    """Draws each picture in `what`, by default all that can be drawn, and returns the paths. Raises UserError.

    run: a run's folder, or None if `weights` is the path of a file of weights. images: a folder; by default held-out
    images of the run, or the embedded ones. size: of the images in pixels, by default that of the run. count:
    how many images. out: a folder, by default RUN/pictures. overrides: of the run's config, as for `evaluate`.
    beside: folders of more runs of the same method: what all of them show is one picture, and the only one.
    """
    unknown = sorted(set(what) - set(PICTURES))
    if unknown:
        raise UserError(f"--what={unknown[0]}: choose from {', '.join(PICTURES)}.")
    subject = open_subject(run, weights, images, size, count, overrides)
    if beside:
        others = {other: open_subject(other, "student", images, size, count, overrides) for other in beside}
        return draw_beside({str(run): subject} | others, out or paths.resolve(run) / "pictures", say)
    for name in what:
        PICTURES[name].check(subject)
    folder = paths.make_writable(out or paths.resolve(run or ".") / "pictures", "choose another --out")
    path = lambda name: folder / f"{name}_{subject.name}.png"
    files, left_out = [], {}
    for picture in what or PICTURES:
        if not what and picture == "shown" and "reconstruction" not in left_out:
            continue  # `reconstruction` shows the same and more
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
        say(f"not drawn, as they do not fit: {', '.join(left_out)} (--what={next(iter(left_out))} says why)")
    return files


# ---- pictures of features


def check_attention(subject: Subject) -> None:
    emergence.check_class_token(subject.encode.backbone)
    if math.prod(sides(subject.size)) > math.prod(sides(subject.encode.size)):
        what = f"Attention at --size={written(subject.size)}"
        memory.check(lambda: emergence.memory(subject.encode, subject.size), what, "a smaller --size")


def draw_attention(subject: Subject, path) -> dict[str, str]:
    paths.save_picture(attention.draw(subject.encode, subject.images), path("attention"))
    return {"attention": f"last block's cls token, {subject.encode.backbone.heads} heads"}


def patches_of(subject: Subject) -> tuple[int, int]:
    """(patches of an image, features of a patch)."""
    return encoder.shape_of_patches(subject.encode, subject.size)


def check_pca(subject: Subject) -> None:
    if patches_of(subject)[0] * len(subject.images) < 2:
        raise UserError("Principal components need several patches, and there is one: raise --size or --count.")


def draw_pca(subject: Subject, path) -> dict[str, str]:
    picture, share = pca.draw(subject.encode, subject.images)
    paths.save_picture(picture, path("pca"))
    return {"pca": f"principal components of patch features ({position_note(subject, share)})"}


def position_note(subject: Subject, share: float) -> str:
    """How much of the patch features only depends on the position of a patch, and whether that part was removed."""
    removed = share > pca.MAX_POSITION and len(subject.images) >= pca.MIN_IMAGES
    return f"{100 * share:.0f} % of them position{', removed' if removed else ''}"


def check_correspondences(subject: Subject) -> None:
    if len(subject.images) < 2:
        raise UserError("Correspondences need two images, and there is one: raise --count or add an image.")
    patches = patches_of(subject)[0]
    pairs = 3 * 8 * patches**2  # bytes: all cosines in float64, three times
    memory.check(lambda: pairs, f"Correspondences of {patches:,} patches", "a smaller --size")


def draw_correspondences(subject: Subject, path) -> dict[str, str]:
    picture, share = correspondences.draw(subject.encode, subject.images)
    paths.save_picture(picture, path("correspondences"))
    return {"correspondences": f"nearest patches of two objects ({position_note(subject, share)})"}


# ---- pictures of a method


def check_run(subject: Subject) -> None:
    if subject.config is None:
        raise UserError(f"This picture needs a method, and {subject.name} is only a network: give --run=FOLDER.")
    if not is_square(subject.size):
        raise UserError(
            f"A method's pictures are of squares, as it trains on them, and --size={written(subject.size)} is none: "
            "give one side, or --what=attention,pca,correspondences."
        )


def make_views(subject: Subject) -> dict:
    """{group: views (n, V, h, w, 3), normalised} of the images, as the method gets them."""
    raw = selection.raw_batch(subject.config, subject.images)
    return jax.jit(train.preparation(subject.config))(raw, subject.images)


def draw_views(subject: Subject, path) -> dict[str, str]:
    encode = subject.encode
    groups = sorted(make_views(subject).items(), key=lambda group: group[0] != "views")  # small crops come last
    pixels = {name: np.asarray(x) * encode.std + encode.mean for name, x in groups}
    paths.save_picture(views.draw(subject.images, pixels), path("views"))
    counts = ", ".join(f"{name} {x.shape[1]}" for name, x in pixels.items())
    return {"views": f"what {subject.config.method.name} is given of each image ({counts})"}


def method_batch(subject: Subject) -> dict:
    """The batch for `Method.show`: the uncropped images if the method uses one view of each, else its views."""
    groups = subject.config.data.crops
    if set(groups) == {"views"} and sum(recipe["count"] for recipe in groups["views"]) == 1:
        return {"views": subject.encode.normalise(subject.images)[:, None]}
    return make_views(subject)


def check_show(subject: Subject) -> None:
    check_run(subject)
    if subject.name == "teacher":
        raise UserError("A method's own pictures are of its student: take --weights=student.")


def check_shown(subject: Subject) -> None:
    check_show(subject)
    model = subject.config.model
    if "norm_groups" in model and len(subject.images) % model.norm_groups:
        raise UserError(
            f"model.norm_groups={model.norm_groups} does not divide {len(subject.images)} images: change --count."
        )
    prepare_show(subject)


def prepare_show(subject: Subject, **changes) -> tuple[Callable, tuple]:
    """(`Method.show`, its arguments) of the run's method with changed keywords. Raises UserError if it can't be run."""
    state, config = subject.state, subject.config
    method = make_method(config, max(int(state.step), 1), **changes)
    arguments = (state.params, state, method_batch(subject), jax.random.key(config.seed))
    try:
        jax.eval_shape(method.show, *arguments)
    except UserError:
        raise
    except Exception as error:  # shapes that do not fit raise errors of many kinds
        raise UserError(
            f"The pictures of {config.method.name} can't be made of {len(subject.images)} images of "
            f"{subject.images.shape[1]} pixels ({str(error).strip().partition(chr(10))[0][:150]}): leave out --size, "
            "--count and --config, or change them."
        ) from error
    return method.show, arguments


def run_show(subject: Subject, **changes) -> dict[str, np.ndarray]:
    """What `Method.show` returns, on the host. Raises UserError, also if the memory is too small."""
    function, arguments = prepare_show(subject, **changes)
    program = jax.jit(function).lower(*arguments).compile()
    name = f"The pictures of {subject.config.method.name}"
    memory.check(lambda: encoder.temporary_bytes(program), name, "a smaller --size or --count")
    return jax.device_get(program(*arguments))


def draw_shown(subject: Subject, path) -> dict[str, str]:
    name, data = subject.config.method.name, subject.config.data
    layout = dict(rows=None, zoom_to=160)
    drawn = shown.drawn(name, run_show(subject), data.mean, data.std, int(subject.state.step), **layout)
    for title, picture in drawn.items():
        paths.save_picture(picture, path(f"shown_{title}"))
    return {f"shown_{title}": f"what {name} shows of itself" for title in drawn}


def draw_beside(subjects: dict[str, Subject], folder, say) -> list:
    """What several runs show of the same images, on one page. subjects: {folder of a run: its subject}."""
    first = next(iter(subjects.values()))
    method, data = first.config.method.name, first.config.data
    others = {subject.config.method.name for subject in subjects.values()} - {method}
    if others or not hasattr(shown.page_of(method), "compare"):
        raise UserError(
            f"{', '.join([method, *others])} can't be drawn --beside each other: that is for runs of one method whose "
            "picture compares them, such as context_encoder."
        )
    folder = paths.make_writable(folder, "choose another --out")
    names = [paths.resolve(run).name for run in subjects]
    titles = names if len(set(names)) == len(names) else list(subjects)
    arrays = {title: run_show(subject) for title, subject in zip(titles, subjects.values())}
    files = []
    for title, picture in shown.compared(method, arrays, data.mean, data.std).items():
        files.append(folder / f"beside_{title}.png")
        paths.save_picture(picture, files[-1])
        say(f"beside_{title}: what {len(arrays)} runs show, {len(first.images)} images  ->  {files[-1]}")
    return files


def check_reconstruction(subject: Subject) -> None:
    check_show(subject)
    name = subject.config.method.name
    if "mask_ratio" not in inspect.signature(parts.find_module("methods", name).make).parameters:
        raise UserError(f"{name} has no method.mask_ratio, which this picture changes: take --what=shown.")
    function, arguments = prepare_show(subject)
    shapes = jax.eval_shape(function, *arguments)
    if "reconstruction" not in shapes or shapes["reconstruction"].shape[1] != 3:
        raise UserError(f"{name} shows no image, its visible part and its reconstruction: take --what=shown.")


def draw_reconstruction(subject: Subject, path) -> dict[str, str]:
    pixels = lambda arrays: arrays["reconstruction"] * np.asarray(subject.encode.std) + np.asarray(subject.encode.mean)
    found = {ratio: pixels(run_show(subject, mask_ratio=ratio)) for ratio in RATIOS}
    paths.save_picture(reconstruct.draw(found), path("reconstruction"))
    settings, ratios = subject.config.method, ", ".join(f"{100 * ratio:.0f}" for ratio in RATIOS)
    # With norm_pix, a method predicts normalised patches; their mean and deviation are taken from the image.
    known = "norm_pix" in settings and settings.norm_pix
    note = ", mean and deviation of patches from the image" if known else ""
    return {"reconstruction": f"{ratios} % hidden and reconstructed{note}"}


PICTURES = {
    "views": Picture(check_run, draw_views),
    "attention": Picture(check_attention, draw_attention),
    "pca": Picture(check_pca, draw_pca),
    "correspondences": Picture(check_correspondences, draw_correspondences),
    "reconstruction": Picture(check_reconstruction, draw_reconstruction),
    "shown": Picture(check_shown, draw_shown),
}
