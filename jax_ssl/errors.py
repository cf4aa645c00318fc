"""What can go wrong, by whose hand: the class of an error decides the exit code of the command."""


class UserError(Exception):
    """The user's mistake, told in one sentence with its remedy. Exit code 2."""


class DataError(Exception):
    """Too many broken records. Exit code 3."""


class RunError(Exception):
    """The run itself went wrong: not finite, collapsed with `on_collapse=stop`, hanging. Exit code 4."""


EXIT = {UserError: 2, DataError: 3, RunError: 4}
