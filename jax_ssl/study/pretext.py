"""A run of a pretext method measured by its own puzzle: `evaluate --task=pretext`, see evaluate/pretext.py.

Baselines and chance stand above the networks, and each row is printed and recorded as soon as it is there. Images need
no labels for it.
"""

from jax_ssl import core, parts
from jax_ssl.data.split import Split, open_splits
from jax_ssl.encoder import Encoder
from jax_ssl.errors import UserError
from jax_ssl.evaluate import pretext
from jax_ssl.run import tallies
from jax_ssl.study import measure, rulers, subject

NETWORKS = ("untrained", "student")
FITTED = 5000  # training images, at most, on which baselines are fitted


def has_task(settings) -> bool:
    """Whether the config's method has a puzzle of its own."""
    return subject.make_method(settings).task is not None


def task_of(settings) -> core.Task:
    """The puzzle of the config's method. Raises UserError where it has none."""
    task = subject.make_method(settings).task
    if task is None:
        raise UserError(f"{settings.method.name} has no puzzle of its own: take --task=knn,linear.")
    return task


def measure_pretext(networks, seed=None, say=measure.print_now) -> list[dict]:
    """The puzzle's table: baselines, chance, the untrained network and the run's; its records in results.jsonl."""
    if networks.encode:
        raise UserError(f"{networks.origin} is a file, and a file has no method with a puzzle: give --run=FOLDER.")
    settings = networks.settings
    task, seed = task_of(settings), settings.seed if seed is None else seed
    state = subject.state_of(networks.arrays, networks.step, networks.origin, settings)
    data, network = open_splits(settings, say), parts.network_of(settings)
    encode = Encoder(network, {}, **parts.images_of(settings))  # for its normalisation and its protocol alone
    test = data.test.read()
    pretext.check(task, state, encode, test)
    train = spread(data.train, FITTED, settings.data).read()
    if data.train.labels is None and measure.name_of(settings) == settings.data.name:
        say(f"{settings.data.name} has no test images: the puzzles are of every tenth image that was trained on")
    shared = measure.counts(data) | dict(train_images=len(train), test_images=len(test))
    shared |= dict(better=task.better, name="pretext") | encode.protocol | task.protocol
    where, records, header = measure.where(networks, data, seed), [], []
    for weights, numbers in rows(task, settings, state, networks.names, encode, train, test, seed):
        if not set(numbers) <= set(header):
            header = list(numbers)
            say(f"\n{rulers.heading(f'own puzzle of {settings.method.name}', header)}")
        say(rulers.table_row(weights, numbers, header))
        for metric, value in numbers.items():
            protocol = shared | {"decides": metric == task.metric}
            records += rulers.record(networks.out, where, "pretext", weights, {metric: value}, protocol)
    return records


def spread(split: Split, most: int, data) -> Split:
    """So many images of a split at most, evenly spread. data: `config.data`."""
    return Split(split.source, split.records[tallies.spread(len(split), most)], data, split.broken)


def rows(task, settings, state, wanted, encode, train, test, seed):
    """The rows of the table, each measured when it is asked for: its name and {metric: number}."""
    yield from pretext.of_baselines(task, encode, train, test, seed)
    for name in NETWORKS:
        if name in wanted:
            shown = untrained(settings, state) if name == "untrained" else state
            yield name, pretext.of_state(task, shown, encode, test, seed)


def untrained(settings, state) -> core.TrainState:
    """The state before the first step, with what was counted over the training images, by which it is measured too."""
    fresh, counted = measure.untrained_state(settings), subject.make_method(settings).tallies
    return fresh.replace(extra=fresh.extra | {name: state.extra[name] for name in counted})
