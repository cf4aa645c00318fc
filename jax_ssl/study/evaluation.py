"""The verb `evaluate`: checks its flags, then runs one task after the other.

kNN and the linear probe are in `measure.measure_frozen`, linear probes of all layers in layers.py, the puzzles of
pretext methods in pretext.py, the user's own rulers in rulers.py; fine-tuning and the emergence of objects are here.
"""

import time

from jax_ssl import parts
from jax_ssl.data import cutouts
from jax_ssl.errors import UserError
from jax_ssl.evaluate import emergence, finetune, offline
from jax_ssl.run import results
from jax_ssl.study import layers, measure, pretext, rulers

TASKS = ("knn", "linear", "layers", "pretext", "finetune", "emergence")
NETWORKS = {  # {task: those of measure.WEIGHTS that it can measure}
    "knn": measure.WEIGHTS,
    "linear": measure.WEIGHTS,
    "layers": layers.NETWORKS,
    "pretext": pretext.NETWORKS,
    "finetune": ("student", "teacher"),  # the same network from scratch is always measured too
    "emergence": ("untrained", "student", "teacher"),
}
LABELS = 1000  # default of fine-tuning: images, at most
CUTOUTS = 256  # objects, at most, on which emergence is measured
RATES = (1e-3, 4e-3)  # of fine-tuning, per 256 images; tried for the pre-trained network and for the one from scratch


def evaluate(
    folder: str, tasks, weights=None, seed=None, labels=None, epochs=20, images=None, pool="max",
    say=measure.print_now, overrides=()
) -> None:  # fmt: skip
    """Runs each of `tasks` on the networks in `weights`, None = all that the task can measure.

    labels, epochs: of fine-tuning. images: the folder of objects for emergence. pool: of the maps, for layers. Raises
    UserError before long work.
    """
    own = [task for task in tasks if "." in task]
    for flag, given, known in (("task", tasks, (*TASKS, *own)), ("weights", weights or (), (*measure.WEIGHTS, "all"))):
        wrong = sorted(set(given) - set(known))
        if wrong:
            raise UserError(f"--{flag}={wrong[0]}: choose from {', '.join(known)}.")
    for task in tasks:
        networks = NETWORKS.get(task, NETWORKS["emergence"])
        if weights and not set(weights) & set(networks):
            raise UserError(f"--task={task} can't measure --weights={','.join(weights)}: take {' or '.join(networks)}.")
    for task in own:
        rulers.find(task)
    if "emergence" in tasks and not images:
        raise UserError("--task=emergence needs --images=FOLDER, of objects cut out of their background.")
    for flag, value in (("epochs", epochs), ("labels", labels)):
        if "finetune" in tasks and value is not None and value < 1:
            raise UserError(f"--{flag}={value}: fine-tuning needs at least 1.")
    settings = measure.load_config(folder, overrides)
    if "pretext" in tasks:
        pretext.task_of(settings)
    if "layers" in tasks:
        layers.depths_of(settings)
    if set(tasks) & set(offline.TASKS):
        measure.measure_frozen(folder, tasks, weights or measure.WEIGHTS, seed, say, overrides)
    if "layers" in tasks:
        layers.measure_layers(folder, pool, weights or layers.NETWORKS, seed, say, overrides)
    if "pretext" in tasks:
        pretext.measure_pretext(folder, weights or pretext.NETWORKS, seed, say, overrides)
    if "finetune" in tasks:
        measure_finetuned(folder, labels, epochs, weights or ("student",), seed, say, overrides)
    if "emergence" in tasks:
        measure_emergence(folder, images, weights or measure.WEIGHTS, seed, say, overrides)
    for task in own:
        rulers.measure_by(task, folder, weights or measure.WEIGHTS, seed, say, overrides)


def measure_at_end(folder: str, say=measure.print_now) -> None:
    """Measures a finished run. Any error is only a warning, as the run itself is finished and saved."""
    try:
        measure.measure_frozen(folder, say=say)
        if pretext.has_task(measure.load_config(folder)):
            pretext.measure_pretext(folder, say=say)
    except Exception as error:
        cause = (
            str(error)
            if isinstance(error, UserError)
            else f"{type(error).__name__}: {str(error).partition(chr(10))[0]}"
        )
        say(f"The run is finished and saved, but not measured: {cause} (evaluate --run={folder} tries again)")


def measure_finetuned(
    folder: str, labels=None, epochs=20, wanted=("student",), seed=None, say=measure.print_now, overrides=(),
    scratch=True,
) -> list[dict]:  # fmt: skip
    """Fine-tunes the run's networks, and the same network from scratch, on `labels` images (None = LABELS at most).

    wanted: student, teacher or both; other names are ignored. scratch: False leaves that one out. Prints a line for
    each; returns the records, which are also in results.jsonl. Raises UserError.
    """
    settings = measure.load_config(folder, overrides)
    seed = settings.seed if seed is None else seed
    saved = measure.open_saved(settings, folder, [name for name in wanted if name in NETWORKS["finetune"]], say)
    data = measure.labelled(settings, say)
    count = len(data.train_images)
    if labels is not None and labels > count:
        raise UserError(f"--labels={labels}: there are {count} labelled images to learn from; take so many or fewer.")
    say(f"\n{measure.introduction(settings, folder, saved, data)}")
    tuned = dict(measure.encoders(settings, saved, data.train_images))
    networks = {"scratch": next(iter(tuned.values())), **tuned} if scratch else tuned
    return finetune_networks(folder, networks, data, settings, saved.step, seed, labels or LABELS, epochs, say)


def finetune_networks(
    folder: str, networks: dict, data, settings, step: int, seed: int, labels: int, epochs: int, say
) -> list[dict]:
    """Fine-tunes each Encoder of `networks`, {student, teacher or scratch: it}, on `labels` images at most.

    The one named `scratch` gives its shape alone. step: of the run. Prints a line for each; returns the records, which
    are also in the results.jsonl of the folder.
    """
    chosen = finetune.fewshot(data.train_labels, min(labels, len(data.train_images)), seed)
    arrays = (data.train_images[chosen], data.train_labels[chosen], data.test_images, data.test_labels, data.classes)
    records = []
    for weights, encode in networks.items():
        options = dict(epochs=epochs, base_lr=RATES, seed=seed)
        if not hasattr(encode.backbone, "depth"):
            # Layer decay needs a stack of blocks; a network without one also pools its features itself.
            options |= dict(layer_decay=1.0, pool="own")
        begun = time.time()
        result = finetune.finetune(encode, *arrays, scratch=weights == "scratch", **options)
        spent = time.time() - begun
        say(f"fine-tuned on {len(chosen):,} labels, {weights:8} {100 * result['top1']:5.1f} %, {spent:.0f} s")
        protocol = {key: value for key, value in result.items() if key != "top1"}
        protocol |= {"labels": len(chosen), "hardware": measure.hardware()} | encode.protocol
        record = dict(data=measure.name_of(settings), split=data.split, k=None, step=step, seed=seed)
        records.append(
            results.record_result(folder, "finetune", weights, "top1", result["top1"], protocol=protocol, **record)
        )
    return records


def measure_emergence(
    folder: str, images: str, wanted=measure.WEIGHTS, seed=None, say=measure.print_now, overrides=()
) -> list[dict]:
    """Measures whether the class token attends to objects: Jaccard similarity with the masks of cut-out objects.

    images: a folder of objects cut out of their background, see `data/cutouts.py`. Prints a line for each network and
    for noise; returns the records, which are also in results.jsonl. Raises UserError.
    """
    settings = measure.load_config(folder, overrides)
    seed = settings.seed if seed is None else seed
    emergence.check_class_token(parts.network_of(settings))
    saved = measure.open_saved(settings, folder, wanted, say)
    scenes, outlines = cutouts.load_cutouts(images, CUTOUTS, settings.data.eval_size, say)
    say(f"\n{len(scenes):,} objects of {images} on noise: Jaccard similarity with most of the attention")
    say(f"{'':32}{'best head':>10}{'all heads':>10}")
    where = dict(data=images, split="test", k=None, step=saved.step, seed=seed)
    shown = dict(images=len(scenes), size=settings.data.eval_size, scenes="composed on noise")
    where["protocol"] = shown | dict(mass=emergence.MASS, heads=settings.model.heads, hardware=measure.hardware())
    records = []

    def note(name, found):
        say(f"{name:32}{100 * found['jaccard_best_head']:>10.1f}{100 * found['jaccard_mean_head']:>10.1f}")
        for metric, value in found.items():
            records.append(
                results.record_result(folder, "emergence", weights=name, metric=metric, value=value, **where)
            )

    for name, encode in measure.encoders(settings, saved, scenes):
        maps = emergence.class_attention(encode, encode.normalise(scenes))
        if not records:
            note("noise", emergence.noise_overlaps(maps.shape, outlines, seed))
        note(name, emergence.head_overlaps(maps, outlines))
    return records
