"""What `evaluate` measures: the networks of a run or of a file of weights, and the labelled images.

Every task of `evaluate` takes a `Networks`, opened once, and yields or records one row for each of its networks.
"""

import dataclasses
import functools
import platform
from collections.abc import Callable, Iterator
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import optax
from ml_collections import ConfigDict

from jax_ssl import config, core, parts, paths, train
from jax_ssl.data.split import Probe, Splits, open_labelled
from jax_ssl.encoder import Encoder, adapt, check_depth, check_size, freeze
from jax_ssl.errors import UserError
from jax_ssl.evaluate import offline
from jax_ssl.run import checkpoints, checks, lock, probe, results
from jax_ssl.views.sizes import sides, size_of
from jax_ssl.weights import load
from jax_ssl.weights.convert import check_shapes

WEIGHTS = ("pixels", "untrained", "student", "teacher")
TRAINED = ("student", "teacher")
ADAPTED, WHOLE = "statistics adapted", "whole, in colour"  # of untrained networks
print_now = functools.partial(print, flush=True)


def load_config(folder: str, overrides=()) -> ConfigDict:
    """The config of a run, with overrides of how it is measured. Raises UserError, also if there is no run."""
    settings = config.override_measuring(config.of_run(folder), overrides)
    checks.check_reading(settings)
    check_size(parts.network_of(settings), settings.data.eval_size)
    checks.check_measuring(settings)
    return settings


def untrained_state(settings) -> core.TrainState:
    """The state that training with this config and seed starts from, without that of the optimiser."""
    return jax.jit(init_of(settings))(jax.random.key(settings.seed))


def init_of(settings) -> Callable:
    """key -> `untrained_state`. It is for jax.jit, where XLA removes the forward pass on zeros, or jax.eval_shape."""
    method, _, _ = train.build(settings, examples=settings.batch_size)
    views = lambda: {
        name: jnp.zeros((settings.batch_size, sum(recipe["count"] for recipe in group), *[group[0]["size"]] * 2, 3))
        for name, group in settings.data.crops.items()
    }
    return lambda key: core.create(method, optax.identity(), key, views())


class Networks(NamedTuple):
    """The networks of a run's newest good checkpoint, or of a file, and where their numbers go.

    settings: the run's config; for a file, how its images are made. origin: the run's folder or the file. out: the
    folder of results.jsonl. step: 0 of a file. names: of the networks that there are, and of pixels, in the order of
    the table. arrays: of the checkpoint. encode: of the file.
    """

    settings: ConfigDict
    origin: str
    out: str
    step: int
    names: tuple[str, ...]
    arrays: dict
    encode: Encoder | None = None

    @property
    def backbone(self):
        """The module that all of the networks are."""
        return self.encode.backbone if self.encode else parts.network_of(self.settings)

    def only(self, wanted) -> "Networks":
        """Those in `wanted` alone; the network of a file counts as student and as teacher."""
        as_wanted = lambda name: name if name in WEIGHTS else "student" if "student" in wanted else "teacher"
        return self._replace(names=tuple(name for name in self.names if as_wanted(name) in wanted))


def open_run(folder: str, overrides=(), out: str | None = None, say=print_now) -> Networks:
    """The Networks of a run. Raises UserError if it has no good checkpoint, or one that does not fit its config."""
    settings = load_config(folder, overrides)
    arrays, step = checkpoints.load_raw(f"{folder}/checkpoints", names=checkpoints.WITHOUT_OPTIMISER)
    names = tuple(name for name in WEIGHTS if name != "teacher" or "backbone" in arrays.get("teacher", {}))
    if lock.in_use(folder):
        say(f"{folder} still trains: it is measured at its last good checkpoint, of step {step:,}")
    check_fit(settings, arrays, folder)
    return Networks(settings, str(folder), str(out or folder), step, names, arrays)


def check_fit(settings, arrays: dict, folder: str) -> None:
    """Raises UserError for a checkpoint whose backbone is not that of the config."""
    state = jax.eval_shape(init_of(settings), jax.random.key(0))
    try:
        check_shapes(arrays["params"]["backbone"], state.params["backbone"], "its checkpoint")
    except UserError as error:
        problem = str(error).partition(". ")[0]
        raise UserError(f"{folder} does not fit its config.json, for {problem}: restore that file.") from None


def open_file(path: str, out: str, which: str | None = None, overrides=(), say=print_now) -> Networks:
    """The Networks of a file of weights, or of an imported folder: it and, as baselines, pixels and new weights.

    which: the network of a file that holds several. Images are normalised as the weights ask for; overrides say how
    else they are made. Raises UserError for what can't be loaded.
    """
    config.folder()  # makes jax_ssl.configs importable from a checkout
    from jax_ssl.configs import common

    encode, settings = load_one(path, which), common.base()
    with settings.data.ignore_type():
        settings.data.update(mean=encode.mean, std=encode.std, eval_size=encode.size, probe=dict(train=0, test=0))
    settings = config.override_measuring(settings, overrides, ("data.mean", "data.std", "seed"))
    checks.check_reading(settings)
    check_depth(encode.backbone, settings.feature_depth)
    check_size(encode.backbone, settings.data.eval_size)
    for key in ("mean", "std"):
        given, right = tuple(settings.data[key]), tuple(getattr(encode, key))
        if given != right:
            say(f"data.{key}={given} is not used: {path} was trained with {right}")
            with settings.unlocked():
                settings.data[key] = right
    file = paths.resolve(path)
    name = (file.name if file.stem in WEIGHTS else file.stem).replace(", ", "_")
    return Networks(settings, str(path), out, 0, (*WEIGHTS[:2], name), {}, encode)


def load_one(path: str, which: str | None) -> Encoder:
    """The only network of a file, whatever it is called; or, of several, the one called `which`. Raises UserError."""
    try:
        return load(path)
    except UserError:
        if which is None:
            raise
        return load(path, which)


def choose(networks: Networks, wanted, say=print_now) -> Networks:
    """The Networks with those in `wanted` alone; None = all. Raises UserError for none, says if one is missing."""
    if wanted is None or set(wanted) == set(WEIGHTS):
        return networks
    chosen = networks.only(wanted)
    if not chosen.names:
        method = networks.settings.method.name
        raise UserError(f"{networks.origin} is a run of {method}, without a teacher: take --weights=student.")
    if networks.encode is None and "teacher" in wanted and "teacher" not in chosen.names:
        say(f"{networks.settings.method.name} has no teacher: it is left out")
    return chosen


def encoders(networks: Networks, images) -> Iterator[tuple[str, Encoder]]:
    """Yields (name for a table, Encoder) for the networks of `networks`, each made when it is asked for."""
    for label, make, _ in makers(networks, images):
        yield label, make()


def makers(networks: Networks, images) -> Iterator[tuple[str, Callable, Callable | None]]:
    """Yields (name for a table, function that makes the Encoder, None) for the networks of `networks`.

    An untrained network with batch norm is yielded twice, with its initial statistics and with those of `images`; one
    behind an input stage once more, without the stage. With these comes a function that makes what they were before.
    """
    for name in networks.names:
        if name == "untrained":
            fresh = functools.cache(functools.partial(untrained, networks))
            yield name, fresh, None
            if len(fresh().variables) > 1:
                yield f"untrained, {ADAPTED}", functools.partial(adapted, fresh, images), fresh
            plain = functools.cache(functools.partial(whole, networks.settings))
            if fresh().protocol and plain() is not None:
                yield f"untrained, {WHOLE}", functools.partial(adapted, plain, images), plain
        elif name != "pixels":
            yield name, functools.partial(trained, networks, name), None


def adapted(fresh: Callable[[], Encoder], images) -> Encoder:
    """The network that `fresh` makes, with the batch statistics of these images."""
    return adapt(fresh(), images)


def untrained(networks: Networks) -> Encoder:
    """The network before its first step, or with new weights where it is that of a file."""
    settings = networks.settings
    if networks.encode is None:
        return freeze(parts.network_of(settings), untrained_state(settings), **parts.images_of(settings))
    encode = networks.encode
    image = jnp.zeros((1, *sides(encode.size), 3))
    variables = jax.jit(encode.backbone.init)(jax.random.key(settings.seed), image)
    kept = {name: tree for name, tree in variables.items() if name in encode.variables}
    return dataclasses.replace(encode, variables=kept, size=settings.data.eval_size)


def trained(networks: Networks, name: str) -> Encoder:
    settings = networks.settings
    if networks.encode is not None:
        return dataclasses.replace(networks.encode, size=settings.data.eval_size)
    return freeze(parts.network_of(settings), networks.arrays, name, **parts.images_of(settings))


def whole(settings) -> Encoder | None:
    """The untrained backbone without its input stage, on whole images in colour: a baseline of those that have one.

    None where it can't take images of that size: it may be made for small tiles.
    """
    backbone, size = parts.make_backbone(settings), settings.data.eval_size
    model = parts.find_module("models", settings.model.name)
    try:
        for side in sides(size) if hasattr(model, "check") else ():
            model.check(side, **parts.without_name(settings.model))
    except UserError:
        return None
    variables = jax.jit(backbone.init)(jax.random.key(settings.seed), jnp.zeros((1, *sides(size), 3)))
    return Encoder(
        backbone,
        {name: tree for name, tree in variables.items() if name != "intermediates"},
        **parts.images_of(settings),
    )


def labelled(settings, say=print_now) -> Probe:
    """The labelled images to measure on, in memory. Raises UserError if there are none."""
    splits = open_labelled(settings, say)
    if splits is None:
        raise UserError("There are no labels to measure with: set --config.data.probe.name to a labelled set.")
    return probe.read(splits, say)


def introduction(networks: Networks, data) -> str:
    """A line on the networks and the images that they are measured on; a second line for a note on the images.

    data: a Probe, or Splits.
    """
    settings, file = networks.settings, networks.encode
    count = sum(np.size(x) for x in jax.tree.leaves(file.variables if file else networks.arrays["params"]["backbone"]))
    if file:
        who = f"{networks.origin}: {type(file.backbone).__name__} of {count / 1e6:.2f} M parameters"
    else:
        who = (
            f"{networks.origin} at step {networks.step:,}: {settings.model.name} of {count / 1e6:.2f} M parameters, "
            f"{settings.method.name}"
        )
    train, test, labels = (
        (len(data.train), len(data.test), data.train.labels)
        if isinstance(data, Splits)
        else (len(data.train_images), len(data.test_images), data.train_labels)
    )
    labelled = "" if labels is None else "labelled "
    classes = "" if labels is None else f" of {len(np.unique(labels)):,} classes"
    sentence = (
        f"{who}; measured on {train:,} {labelled}images{classes} to learn from and {test:,} to test on, of "
        f"{data.about or name_of(settings)}"
    )
    return f"{sentence}\n{data.note}" if data.note else sentence


def name_of(settings) -> str:
    """The name of the data set that is measured on."""
    return settings.data.probe.name or settings.data.name


def protocol_of(label: str, networks: Networks, depth: int | None = None) -> dict:
    """What a number of a network of `encoders` has to say of it, beside its name. depth: that of the config if None."""
    variant, settings = label.partition(", ")[2], networks.settings
    depth = settings.feature_depth if depth is None else depth
    stage = {} if variant == WHOLE else dict(getattr(networks.backbone, "protocol", {}))
    protocol = stage | ({"feature_depth": depth} if depth else {})
    return protocol | {ADAPTED: {"batch_statistics": ADAPTED}, WHOLE: {"input": WHOLE}}.get(variant, {})


def where(networks: Networks, data, seed: int) -> dict:
    """The fields of a record that say what was measured on which images."""
    return dict(data=name_of(networks.settings), split=data.split, step=networks.step, seed=seed, k=None)


def counts(data) -> dict:
    """What every protocol says of the images, a Probe or Splits, and of the machine."""
    train, test = (data.train, data.test) if isinstance(data, Splits) else (data.train_images, data.test_images)
    return dict(train_images=len(train), test_images=len(test), size=size_of(*train.shape[1:3]), hardware=hardware())


def hardware() -> str:
    """Number and kind of the devices, the processor and the version of jax, as text."""
    kinds = sorted({device.device_kind for device in jax.devices()})
    return f"{jax.device_count()} x {', '.join(kinds)}, {platform.machine()}, jax {jax.__version__}"


def has_table(folder: str) -> bool:
    """Whether results.jsonl has numbers of the last step of a run, and not only of an earlier one."""
    lines = paths.json_lines(paths.resolve(folder) / "metrics.jsonl")
    step = lines[-1].get("step") if lines else None
    return any(
        record.get("step") == step and record.get("weights") == "student" and record.get("task") in offline.TASKS
        for record in results.read_results(folder)
    )
