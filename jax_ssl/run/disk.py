"""Errors of a disk or a bucket, in words. They are not the run's fault, so repeating the command helps.

Python raises an `OSError`. Orbax and tensorstore raise a ValueError of many lines, with the reason at the end: `reason`
searches the whole text of an error and of its causes.
"""

import errno

from jax_ssl.errors import LostError

# For each: errno values, how long texts say it, how we tell the user, and the remedy.
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
LENGTH = 300  # characters quoted of an error
BUGS = (TypeError, AttributeError, LookupError, AssertionError, NotImplementedError)  # repeating does not help


def reason(error: BaseException) -> tuple[str, str] | None:
    """(what is wrong, the remedy) if a disk, a bucket or the network caused `error`; else None."""
    for cause in _causes(error):
        for numbers, words, fault, remedy in FAULTS:
            if isinstance(cause, OSError) and cause.errno in numbers:
                return fault, remedy
            # An OSError without a number, or an error of a library that only has the words.
            if getattr(cause, "errno", None) is None and any(word in str(cause).lower() for word in words):
                return fault, remedy
    return None


def lost_error(error: OSError) -> LostError | None:
    """The LostError to raise for an error of a disk or bucket; None for another error, such as a bug."""
    for cause in _causes(error):
        if isinstance(cause, LostError):
            return cause  # a file that could not be closed after a checkpoint that could not be written
    found = reason(error)
    if found is None:
        return None
    where = f"{error.filename}: " if error.filename else "A file could not be read or written: "
    return LostError(f"{where}{found[0]}; {found[1]}, then repeat the command: a run goes on from its last checkpoint.")


def quote(error: BaseException) -> str:
    """The error on one line; of a long one only the beginning and the end, where libraries put the reason."""
    text = " ".join(str(error).split())
    half = LENGTH // 2
    return f"{type(error).__name__}: {text if len(text) <= LENGTH else f'{text[:half]} ... {text[-half:]}'}"


def _causes(error: BaseException):
    """The error and all errors that led to it."""
    seen = set()
    while error is not None and id(error) not in seen:
        seen.add(id(error))
        yield error
        error = error.__cause__ or error.__context__
