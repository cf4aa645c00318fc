"""The labelled images that measure a run: found before it starts, read once its first lines are shown.

To decode twelve thousand photographs takes a core more than a minute: whoever waits for it sees how far it is.
"""

from collections.abc import Callable

from jax_ssl.data.split import Probe, Splits, open_labelled
from jax_ssl.errors import DataError, UserError
from jax_ssl.run.progress import Counter


def find(config) -> tuple[Splits | None, str]:
    """The images, not read yet; or None, and why.

    Raises UserError if a set that the user names in data.probe.name can't be used. Without that key the training set's
    own labels are used if there are any, and it is no error if there are none.
    """
    try:
        splits = open_labelled(config)
    except UserError as error:
        if config.data.probe.name:
            raise
        return None, str(error)
    return splits, "" if splits else "the images have no labels; data.probe.name can name a labelled set"


def read(splits: Splits, say, alive: Callable[[], None] = lambda: None) -> Probe:
    """The images in memory. say: told what can't be read, and how far it is. alive: called for each batch.

    Raises DataError if too many can't be read.
    """
    splits.train.broken.log = splits.test.broken.log = say
    with Counter("reading the images to measure on", len(splits.train) + len(splits.test), say) as counter:
        return splits.read(lambda count: (counter.add(count), alive()))


def read_or_say(config, splits: Splits, say, alive: Callable[[], None]) -> Probe | None:
    """The same; a run whose own images can't be read goes on without a measure, and says why."""
    try:
        return read(splits, say, alive)
    except DataError as error:
        if config.data.probe.name:
            raise
        say(f"nothing is measured while it trains: {error}")
        return None
