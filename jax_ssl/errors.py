"""The kinds of errors, by their cause: the class of an error decides the exit code of the command."""

LENGTH = 300  # letters of what an unforeseen error says, at most


class UserError(Exception):
    """The user's mistake: one sentence, with the remedy. Exit code 2."""


class CodeError(UserError):
    """A Python module of the user's own failed: one sentence; `__cause__` has the place in their code. Exit code 2."""


class DataError(Exception):
    """Too many broken records. Exit code 3."""


class RunError(Exception):
    """The run itself went wrong: not finite, or collapsed with `on_collapse=stop`. Exit code 4."""


class LostError(RunError):
    """Something outside the run failed: a disk, the network, another process. Repeat the command. Exit code 1."""


EXIT = {UserError: 2, CodeError: 2, DataError: 3, RunError: 4, LostError: 1}


def sentence_of(error: Exception) -> str:
    """What an error says, on one line; with its kind, where it was not foreseen."""
    first = str(error).strip().partition("\n")[0]
    return first if isinstance(error, UserError) else f"{type(error).__name__}: {first[:LENGTH]}"
