"""What keeps a disk or a bucket from giving or taking a file, in words: the world's fault, so the same command goes on.

Python says it in an `OSError`. Orbax and tensorstore say it in a ValueError of many lines, whose reason stands at the
end: `reason` looks through the whole text of an error and of what caused it.
"""

import errno

from jax_ssl.errors import LostError

# For each: the errors of the system, how it stands in long texts, how the user reads it, and the remedy.
FAULTS = (
    ((errno.ENOSPC,), ("no space left", "enospc"), "the disk is full", "make room there"),
    ((errno.EDQUOT,), ("quota exceeded",), "the quota is used up", "make room there, or get a larger quota"),
    ((errno.EROFS,), ("read-only file system",), "the disk is mounted read-only", "mount it for writing"),
    (
        (errno.EACCES, errno.EPERM),
        ("permission denied", "permission_denied", "does not have storage.", "operation not permitted"),
        "permission denied",
        "give access there",
    ),
    (
        (errno.EIO, errno.ESTALE, errno.ENOTCONN, errno.ETIMEDOUT, errno.EHOSTDOWN, errno.EHOSTUNREACH),
        ("input/output error", "stale file handle", "transport endpoint", "timed out", "unavailable", "curl error"),
        "the disk or the network does not answer",
        "see that it can be reached",
    ),
)
LENGTH = 300  # of what is quoted of an error
BUGS = (TypeError, AttributeError, LookupError, AssertionError, NotImplementedError)  # repeating these helps nobody


def reason(error: BaseException) -> tuple[str, str] | None:
    """(what is wrong, the remedy) if a disk, a bucket or the way to it is to blame for `error`; else None."""
    for cause in _causes(error):
        for numbers, words, said, remedy in FAULTS:
            if isinstance(cause, OSError) and cause.errno in numbers:
                return said, remedy
            # Of a plain OSError without a number, or of a library that has put one into words.
            if getattr(cause, "errno", None) is None and any(word in str(cause).lower() for word in words):
                return said, remedy
    return None


def lost(error: OSError) -> LostError | None:
    """The same as a sentence that may end a command; None for an error that is not the disk's, such as a bug."""
    for cause in _causes(error):
        if isinstance(cause, LostError):
            return cause  # a file that could not be closed after a checkpoint that could not be written
    found = reason(error)
    if found is None:
        return None
    where = f"{error.filename}: " if error.filename else "A file could not be read or written: "
    return LostError(f"{where}{found[0]}; {found[1]}, then repeat the command: a run goes on from its last checkpoint.")


def quote(error: BaseException) -> str:
    """The error on one line; of a long one the beginning and the end, where libraries put the reason."""
    text = " ".join(str(error).split())
    half = LENGTH // 2
    return f"{type(error).__name__}: {text if len(text) <= LENGTH else f'{text[:half]} ... {text[-half:]}'}"


def _causes(error: BaseException):
    """The error and all that led to it."""
    seen = set()
    while error is not None and id(error) not in seen:
        seen.add(id(error))
        yield error
        error = error.__cause__ or error.__context__
