"""What can go wrong, by whose hand: the class of an error decides the exit code of the command."""


class UserError(Exception):
    """The user's mistake, told in one sentence with its remedy. Exit code 2."""


class CodeError(UserError):
    """A Python module of the user's own failed: one sentence, and its cause is where in their code. Exit code 2."""


class DataError(Exception):
    """Too many broken records. Exit code 3."""


class RunError(Exception):
    """The run itself went wrong: not finite, or collapsed with `on_collapse=stop`. Exit code 4."""


class LostError(RunError):
    """What is around the run failed, and the same command goes on: a process died, hangs or never came. Exit code 1."""


EXIT = {UserError: 2, CodeError: 2, DataError: 3, RunError: 4, LostError: 1}
