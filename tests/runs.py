"""The folder of a run that has not run: its first state, saved as training saves its last."""

from jax_ssl import config
from jax_ssl.run import checkpoints, identity
from jax_ssl.study import measure
from tests.small import small


def save_run(folder, name, *more):
    """A run of a method at its small size, under `folder`; returns its path. more: overrides of the config."""
    settings = small(name, *more)
    keeper = checkpoints.Checkpoints(folder / "checkpoints")
    keeper.save(3, measure.untrained_state(settings), wait=True)
    keeper.close()
    identity.write_config(folder, config.to_dict(settings))
    return folder
