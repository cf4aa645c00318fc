"""The verb `evaluate`: checks its flags, then runs one task after the other.

kNN and the linear probe are in frozen.py, linear probes of all layers in layers.py, the puzzles of pretext methods in
pretext.py, every ruler that is a file of `evaluate/` and the user's own in rulers.py; fine-tuning and the emergence of
objects are here. A task that fails ends itself and not the others.
"""

import functools
import time
from collections.abc import Callable

from jax_ssl.data import cutouts
from jax_ssl.errors import DataError, RunError, UserError, sentence_of
from jax_ssl.evaluate import emergence, finetune, offline
from jax_ssl.study import cases, frozen, layers, measure, overview, pretext, rulers
from jax_ssl.views.sizes import Size, is_square, written

TASKS = ("knn", "linear", "layers", "pretext", "finetune", "emergence")
NETWORKS = {  # {task: those of measure.WEIGHTS that it can measure}; of a ruler, NEEDS says it
    "knn": measure.WEIGHTS,
    "linear": measure.WEIGHTS,
    "layers": layers.NETWORKS,
    "pretext": pretext.NETWORKS,
    "finetune": measure.TRAINED,  # the same network from scratch is always measured too
}
WITHOUT_PIXELS = ("untrained", "student", "teacher")
SQUARES = ("pretext", "finetune", "emergence")  # tasks that measure on squares alone; of a ruler, NEEDS says it
LABELS = 1000  # default of fine-tuning: images, at most
CUTOUTS = 256  # objects, at most, on which emergence is measured
RATES = (1e-3, 4e-3)  # of fine-tuning, per 256 images; tried for the pre-trained network and for the one from scratch


def evaluate(
    tasks, run=None, file=None, which=None, out=None, seed=None, labels=None, epochs=20, images=None, pool="max",
    say=measure.print_now, overrides=()
) -> None:  # fmt: skip
    """Runs each of `tasks` on the networks in `which`, None = all that the task can measure.

    run: a run's folder; or file: a file of weights, with the folder `out` for its numbers. labels, epochs: of
    fine-tuning. images: the folder of objects for emergence. pool: of the maps, for layers. Raises UserError: before
    long work for mistakes in the words of the command, and at the end if a task could not be measured.
    """
    check_words(tasks, which, images, labels, epochs)
    overrides, of_rulers = rulers.split_overrides(overrides, tasks)
    options = {task: rulers.options_of(task, of_rulers.get(task, ())) for task in tasks if task in rulers.names()}
    if run is None:
        inside = [name for name in which or () if name in measure.TRAINED]
        networks = measure.open_file(file, out, inside[0] if len(inside) == 1 else None, overrides, say)
    else:
        networks = measure.open_run(run, overrides, out, say)
    check_shape(tasks, networks.settings.data.eval_size)
    networks = measure.choose(networks, which, say)
    rows = functools.cache(lambda: rows_of(networks, say))
    jobs = {}
    if set(tasks) & set(offline.TASKS):
        jobs[", ".join(task for task in offline.TASKS if task in tasks)] = lambda: frozen.measure_rows(
            networks, *labelled(rows()), tasks, seed, say
        )
    rest = {
        "layers": lambda task: layers.measure_layers(networks.only(layers.NETWORKS), pool, seed, say),
        "pretext": lambda task: pretext.measure_pretext(networks, seed, say),
        "finetune": lambda task: measure_finetuned(tuned(networks, which), labels, epochs, seed, say),
        "emergence": lambda task: measure_emergence(networks.only(WITHOUT_PIXELS), images, seed, say),
    }
    of_file = lambda task: rulers.measure_rows(task, networks, *rows(), options[task], seed, say)
    own = lambda task: rulers.measure_by(task, networks.only(WITHOUT_PIXELS), seed, say)
    for task in tasks:
        if task not in offline.TASKS:
            jobs[task] = functools.partial(rest.get(task) or (own if "." in task else of_file), task)
    run_each(jobs, networks, say)


def check_words(tasks, which, images, labels, epochs) -> None:
    """Raises UserError for words of the command that are wrong in any folder."""
    own = [task for task in tasks if "." in task]
    known = (*TASKS, *rulers.names())
    for flag, given, choices in (("task", tasks, (*known, *own)), ("weights", which or (), (*measure.WEIGHTS, "all"))):
        wrong = sorted(set(given) - set(choices))
        if wrong:
            raise UserError(f"--{flag}={wrong[0]}: choose from {', '.join(choices)}.")
    for task in tasks:
        networks = rulers.networks_of(task) if task in rulers.names() else NETWORKS.get(task, WITHOUT_PIXELS)
        if which and not set(which) & set(networks):
            raise UserError(f"--task={task} can't measure --weights={','.join(which)}: take {' or '.join(networks)}.")
    for task in own:
        rulers.find(task)
    if "emergence" in tasks and not images:
        raise UserError("--task=emergence needs --images=FOLDER, of objects cut out of their background.")
    for flag, value in (("epochs", epochs), ("labels", labels)):
        if "finetune" in tasks and value is not None and value < 1:
            raise UserError(f"--{flag}={value}: fine-tuning needs at least 1.")


def check_shape(tasks, size: Size) -> None:
    """Raises UserError for images that are no squares, if a task needs squares."""
    known = rulers.names()
    for task in tasks if not is_square(size) else ():
        if task in SQUARES or (task in known and "squares" in rulers.open_ruler(task).NEEDS):
            raise UserError(f"--task={task} measures on squares, and --size={written(size)} is none: give one side.")


def run_each(jobs: dict[str, Callable], networks, say) -> None:
    """Runs one job after the other and prints all in one table; one that fails ends itself alone, with its reason.

    jobs: {name: what returns its records}. Raises the error of an only job; of several, one at the end with the names.
    """
    failed, bugs, found, seconds = [], [], {}, {}
    for name, work in jobs.items():
        begun, found[name] = time.time(), []
        try:
            found[name] = work()
        except (DataError, RunError):  # the images or the disk: the others would meet the same
            raise
        except Exception as error:
            if len(jobs) == 1:
                raise
            failed.append(name)
            bugs += [] if isinstance(error, UserError) else [error]
            say(f"{name} is not measured: {sentence_of(error)}")
        seconds[name] = time.time() - begun
    if len(jobs) > 1:
        say("\n" + "\n".join(overview.table(found, seconds, networks.names)))
    if bugs:
        raise bugs[0]
    if failed:
        raise UserError(
            f"Not measured: {', '.join(failed)}. The reasons are above, and the other numbers in "
            f"{networks.out}/results.jsonl."
        )


def rows_of(networks, say) -> tuple:
    """(Splits, rows of a table) that all rulers of features share."""
    splits = cases.open_splits(networks.settings, say)
    return splits, cases.rows_of(networks, splits, say)


def labelled(found: tuple) -> tuple:
    """What `rows_of` returned. Raises UserError without labels."""
    cases.check_labels(found[0])
    return found


def tuned(networks, which):
    """The networks that are fine-tuned: the student, or those that were asked for."""
    return networks.only(which or ("student",)).only(measure.TRAINED)


def measure_at_end(folder: str, say=measure.print_now) -> frozen.Table | None:
    """Measures a finished run; returns its table, if there is one.

    Any error is only a warning, as the run itself is finished and saved.
    """
    table = None
    try:
        networks = measure.open_run(folder, say=say)
        found, puzzle = rows_of(networks, say), pretext.has_task(networks.settings)
        if found[0].train.labels is not None or not puzzle:  # a puzzle needs none
            table = frozen.measure_table(networks, *labelled(found), offline.TASKS, say=say)
        if puzzle:
            pretext.measure_pretext(networks, say=say)
    except Exception as error:
        say(
            f"The run is finished and saved, but not measured: {sentence_of(error)} (evaluate --run={folder} tries "
            "again)"
        )
    return table


def measure_finetuned(
    networks, labels=None, epochs=20, seed=None, say=measure.print_now, scratch=True
) -> list[dict]:  # fmt: skip
    """Fine-tunes the trained ones of the networks on `labels` images (None = LABELS at most).

    scratch: the same network from scratch, too. Prints a line for each; returns the records, which are also in
    results.jsonl. Raises UserError.
    """
    settings = networks.settings
    seed = settings.seed if seed is None else seed
    data = measure.labelled(settings, say)
    count = len(data.train_images)
    if labels is not None and labels > count:
        raise UserError(f"--labels={labels}: there are {count} labelled images to learn from; take so many or fewer.")
    chosen = finetune.fewshot(data.train_labels, min(LABELS, count) if labels is None else labels, seed)
    arrays = (data.train_images[chosen], data.train_labels[chosen], data.test_images, data.test_labels, data.classes)
    say(f"\n{measure.introduction(networks, data)}")
    records, encoders = [], dict(measure.encoders(networks, data.train_images))
    first = next(iter(encoders.values()))
    options = dict(epochs=epochs, base_lr=RATES, seed=seed) | finetune.options_of(first.backbone)
    trained = {name: encode for name, encode in encoders.items() if name.partition(",")[0] != "untrained"}
    for weights, encode in (({"scratch": first} if scratch else {}) | trained).items():
        begun = time.time()
        result = finetune.finetune(encode, *arrays, scratch=weights == "scratch", **options)
        spent = time.time() - begun
        say(f"fine-tuned on {len(chosen):,} labels, {weights:8} {100 * result['top1']:5.1f} %, {spent:.0f} s")
        protocol = measure.counts(data) | {key: value for key, value in result.items() if key != "top1"}
        protocol |= {"name": "finetune", "labels": len(chosen), "epochs": epochs} | encode.protocol
        where = measure.where(networks, data, seed)
        records += rulers.record(networks.out, where, "finetune", weights, {"top1": result["top1"]}, protocol)
    return records


def measure_emergence(networks, images: str, seed=None, say=measure.print_now) -> list[dict]:
    """Measures whether the class token attends to objects: Jaccard similarity with the masks of cut-out objects.

    images: a folder of objects cut out of their background, see `data/cutouts.py`. Prints a line for each network and
    for noise; returns the records, which are also in results.jsonl. Raises UserError.
    """
    settings = networks.settings
    seed = settings.seed if seed is None else seed
    emergence.check_class_token(networks.backbone)
    scenes, outlines = cutouts.load_cutouts(images, CUTOUTS, settings.data.eval_size, say)
    say(f"\n{len(scenes):,} objects of {images} on noise: Jaccard similarity with most of the attention")
    say(f"{'':32}{'best head':>10}{'all heads':>10}")
    protocol = dict(name="emergence", images=len(scenes), size=settings.data.eval_size, scenes="composed on noise")
    protocol |= dict(mass=emergence.MASS, heads=networks.backbone.heads, hardware=measure.hardware())
    where = dict(data=images, split="test", k=None, step=networks.step, seed=seed)
    records = []

    def note(name, found):
        say(f"{name:32}{100 * found['jaccard_best_head']:>10.1f}{100 * found['jaccard_mean_head']:>10.1f}")
        records.extend(rulers.record(networks.out, where, "emergence", name, found, protocol))

    for name, encode in measure.encoders(networks, scenes):
        maps = emergence.class_attention(encode, encode.normalise(scenes))
        if not records:
            note("noise", emergence.noise_overlaps(maps.shape, outlines, seed))
        note(name, emergence.head_overlaps(maps, outlines))
    return records
