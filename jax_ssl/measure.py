"""From a run's folder to numbers: its frozen encoders beside raw pixels and the untrained network."""

import functools
import platform
import time

import jax
import jax.numpy as jnp

from jax_ssl import checkpoints, config, core, metrics, parts, paths, train
from jax_ssl.data import cutouts, pipeline
from jax_ssl.encoder import Encoder, adapt, at_depth, freeze
from jax_ssl.errors import UserError
from jax_ssl.evaluate import emergence, finetune, offline

TASKS = ("knn", "linear", "finetune", "emergence")
WEIGHTS = ("pixels", "untrained", "student", "teacher")
CUTOUTS = 256  # objects, at most, on which emergence is measured
RATES = (1e-3, 4e-3)  # fine-tuning, per 256 images: tried by the pre-trained network and by its control alike


def load_config(folder: str, overrides=()):
    """The config of a run, with overrides for the measurement. Raises UserError where there is no run."""
    path = paths.resolve(folder) / "config.json"
    if not path.exists():
        raise UserError(f"{folder} is no run folder: it has no config.json. A run makes one at its first step.")
    return config.override(config.from_json(path.read_text()), overrides)


def untrained_state(settings) -> core.TrainState:
    """The state before the first step, the very one that training with this config and seed starts from."""
    method, tx, _ = train.build(settings, examples=settings.batch_size)
    return jax.jit(functools.partial(new_state, settings, method, tx))(jax.random.key(settings.seed))


def new_state(settings, method: core.Method, tx, key) -> core.TrainState:
    """`core.create` on views of zeros: to be jitted (XLA then removes their forward pass) or asked for its shapes."""
    shapes = {
        name: (settings.batch_size, sum(recipe["count"] for recipe in group), group[0]["size"], group[0]["size"], 3)
        for name, group in settings.data.crops.items()
    }
    return core.create(method, tx, key, {name: jnp.zeros(shape) for name, shape in shapes.items()})


def encoders(settings, folder: str, wanted, images) -> tuple[dict[str, Encoder], int]:
    """{name: Encoder} of those in `wanted` that the run has, and the step of its newest good checkpoint.

    An untrained network with batch norm comes twice, with its first statistics and with statistics of `images`.
    """
    backbone, found = parts.make_backbone(settings), {}
    loaded, step = checkpoints.load_raw(f"{folder}/checkpoints", names=("params", "teacher", "extra"))
    if "untrained" in wanted:
        found["untrained"] = freeze(backbone, untrained_state(settings), **parts.images_of(settings))
        adapted = adapt(found["untrained"], images)
        if adapted is not found["untrained"]:
            found["untrained, statistics adapted"] = adapted
    for name in ("student", "teacher"):
        if name in wanted and (name == "student" or "backbone" in loaded.get("teacher", {})):
            found[name] = freeze(backbone, loaded, name, **parts.images_of(settings))
    return found, step


def frozen(folder: str, tasks=("knn", "linear"), wanted=WEIGHTS, seed=None, say=print, overrides=()) -> list[dict]:
    """kNN and linear probe of a run beside their baselines: a table, and records appended to results.jsonl."""
    settings = load_config(folder, overrides)
    data = pipeline.labelled(settings, say)
    if data is None:
        raise UserError("There are no labels to measure with: set --config.data.probe.name to a labelled set.")
    seed = settings.seed if seed is None else seed
    named, step = encoders(settings, folder, wanted, data.train_images)
    read = functools.partial(at_depth, depth=settings.feature_depth)
    measured = {name: offline.measure(read(encode), data, seed) for name, encode in named.items()}
    if "pixels" in wanted:
        pixels = offline.pixels(data, settings.data.mean, settings.data.std)
        measured = {"raw pixels": offline.measure_features(*pixels, data, seed)} | measured
    # Of several processes that measure the same, one writes it down.
    record = metrics.record_result if jax.process_index() == 0 else lambda *_, **__: {}
    name = settings.data.probe.name or settings.data.name
    say(f"\n{name}: {len(data.train_images):,} labelled images to learn from, {len(data.test_images):,} to test on")
    say(table(measured))
    records = []
    for label, result in measured.items():
        weights, _, batch_statistics = label.partition(", ")
        weights = weights.removeprefix("raw ")
        common = dict(weights=weights, metric="top1", data=name, split="test", step=step, seed=seed)
        where = dict(train_images=len(data.train_images), test_images=len(data.test_images), frozen=True)
        where |= {"hardware": hardware()}
        where |= {"feature_depth": settings.feature_depth} if settings.feature_depth and weights != "pixels" else {}
        where |= {"batch_statistics": batch_statistics} if batch_statistics else {}
        for k, value in result.knn.items() if "knn" in tasks else ():
            protocol = where | {"temperature": 0.07}
            records.append(record(folder, "knn", value=value, k=k, protocol=protocol, **common))
        if "linear" in tasks:
            chosen = {key: result.linear[key] for key in ("learning_rate", "epochs")}
            protocol = where | chosen | {"optimiser": "sgd", "selection": "a tenth of the training features"}
            value = result.linear["top1"]
            records.append(record(folder, "linear", value=value, k=None, protocol=protocol, **common))
    return records


def table(measured: dict) -> str:
    """Name, kNN at 20 and at its best k, linear probe, effective rank: per cent, aligned."""
    lines = [f"{'':32}{'kNN k=20':>10}{'best k':>10}{'linear':>10}{'RankMe':>10}"]
    for name, result in measured.items():
        k = 20 if 20 in result.knn else min(result.knn)
        numbers = (100 * result.knn[k], 100 * max(result.knn.values()), 100 * result.linear["top1"], result.rankme)
        lines.append(f"{name:32}" + "".join(f"{number:>10.1f}" for number in numbers))
    return "\n".join(lines)


def finetuned(folder: str, labels=1000, epochs=20, which="student", say=print, overrides=()) -> list[dict]:
    """Fine-tunes the run's backbone and the same network from scratch on `labels` images; records both."""
    settings = load_config(folder, overrides)
    data = pipeline.labelled(settings, say)
    if data is None:
        raise UserError("There are no labels to fine-tune on: set --config.data.probe.name to a labelled set.")
    named, step = encoders(settings, folder, (which,), data.train_images)
    chosen = finetune.fewshot(data.train_labels, labels, settings.seed)
    arrays = (data.train_images[chosen], data.train_labels[chosen], data.test_images, data.test_labels, data.classes)
    options = dict(epochs=epochs, base_lr=RATES, seed=settings.seed)
    if not hasattr(named[which].backbone, "depth"):
        # Without a stack of equal blocks there is nothing to decay along; and what is pooled says the network itself.
        options |= dict(layer_decay=1.0, pool="own")
    records = []
    for weights, scratch in (("scratch", True), (which, False)):
        begun = time.time()
        result = finetune.finetune(named[which], *arrays, scratch=scratch, **options)
        spent = time.time() - begun
        say(f"fine-tuned on {len(chosen):,} labels, {weights:8} {100 * result['top1']:5.1f} %, {spent:.0f} s")
        protocol = {key: value for key, value in result.items() if key != "top1"}
        protocol |= {"labels": len(chosen), "hardware": hardware()}
        records.append(
            metrics.record_result(
                folder, "finetune", weights, "top1", result["top1"], settings.data.probe.name or settings.data.name,
                "test", None, protocol, step, settings.seed,
            )
        )  # fmt: skip
    return records


def emerged(folder: str, images: str, wanted=WEIGHTS, say=print, overrides=()) -> list[dict]:
    """Whether the class token attends to objects: Jaccard similarity with the outlines of cut-outs, beside baselines.

    images: a folder of objects cut out of their background, see `data/cutouts.py`.
    """
    settings = load_config(folder, overrides)
    emergence.check(parts.make_backbone(settings))
    scenes, outlines = cutouts.cutouts(images, CUTOUTS, settings.data.eval_size)
    named, step = encoders(settings, folder, wanted, scenes)
    measured = {}
    for name, encode in named.items():
        maps = emergence.class_attention(encode, encode.normalise(scenes))
        measured[name] = emergence.emergence(maps, outlines)
        measured.setdefault("noise", emergence.chance(maps.shape, outlines, settings.seed))
    say(f"\n{len(scenes):,} objects of {images} on pages of noise: Jaccard similarity with most of the attention")
    say(f"{'':32}{'best head':>10}{'all heads':>10}")
    for name, found in measured.items():
        say(f"{name:32}{100 * found['jaccard_best_head']:>10.1f}{100 * found['jaccard_mean_head']:>10.1f}")
    where = dict(data=images, split="test", k=None, step=step, seed=settings.seed)
    where["protocol"] = dict(mass=emergence.MASS, images=len(scenes), size=settings.data.eval_size,
                             heads=settings.model.heads, scenes="composed on noise", hardware=hardware())  # fmt: skip
    return [
        metrics.record_result(folder, "emergence", weights=name, metric=metric, value=value, **where)
        for name, found in measured.items()
        for metric, value in found.items()
    ]


def hardware() -> str:
    """What a number was measured on."""
    kinds = sorted({device.device_kind for device in jax.devices()})
    return f"{jax.device_count()} x {', '.join(kinds)}, {platform.machine()}, jax {jax.__version__}"


def results(folder: str) -> list[dict]:
    """All records of results.jsonl, oldest first."""
    return paths.json_lines(paths.resolve(folder) / "results.jsonl")
