"""A command goes on when nobody can read its output any more.

A closed pipe (`train ... | head`) or a lost terminal ends no work and shows no traceback: the lines of a run are in its
log.txt too, and numbers are in files. If stdout is a file and lines can't be written to it, because the disk is full
for example, the work goes on as well, and an error at the end says that lines are missing.
"""

import contextlib
import errno
import io
import os
import stat
import sys

GONE = (errno.EPIPE, errno.EIO, errno.ENXIO, errno.EBADF, errno.ECONNRESET)


class LinesLost(Exception):
    """Lines are missing in the file that stdout or stderr was sent to."""


class TolerantFile(io.FileIO):
    """A stream that goes to os.devnull when its reader is gone. lost: why lines are missing in a file, or None."""

    lost: OSError | None = None

    def write(self, data):
        try:
            return super().write(data)
        except OSError as error:
            if error.errno in GONE and not stat.S_ISREG(os.fstat(self.fileno()).st_mode):
                _redirect_to_null(self.fileno())  # the descriptor itself: libraries in C write to it as well
            else:
                self.lost = error
            return len(data)


@contextlib.contextmanager
def tolerate_lost_readers():
    """Inside `with`, stdout and stderr may lose their readers; the streams of a notebook or a test stay as they are.

    Raises LinesLost at the end if lines are missing in a file.
    """
    before = sys.stdout, sys.stderr
    sys.stdout, sys.stderr = after = (_tolerant(before[0], 1), _tolerant(before[1], 2))
    if sys.__stderr__ is None:  # it was closed when we were started; Python's shutdown writes to it
        sys.__stderr__ = sys.stderr
    try:
        yield
    finally:
        for stream in after:
            stream.flush()
        if None not in before:
            sys.stdout, sys.stderr = before
    for stream in after:
        raw = getattr(getattr(stream, "buffer", None), "raw", None)
        if isinstance(raw, TolerantFile) and raw.lost:
            raise LinesLost(f"not all lines could be written where they were sent ({raw.lost.strerror}).")


def _tolerant(stream, descriptor: int):
    """The stream; a tolerant one in its place if it is the process's own stream on that descriptor."""
    if stream is None:
        return _null_stream(descriptor)
    if stream is not (sys.__stdout__ if descriptor == 1 else sys.__stderr__):
        return stream
    stream.flush()
    return io.TextIOWrapper(
        io.BufferedWriter(TolerantFile(descriptor, "w", closefd=False)),
        stream.encoding,
        "backslashreplace" if stream.errors == "strict" else stream.errors,  # file names may have any bytes
        line_buffering=True,  # `embed ... | tee log` shows each line when it is said, not after 8 kB of them
    )


def _null_stream(descriptor: int):
    """A stream to os.devnull. Takes the descriptor if it is free, or the next file to be opened would get the lines."""
    try:
        os.fstat(descriptor)
    except OSError:
        _redirect_to_null(descriptor)
    return open(os.devnull, "w")


def _redirect_to_null(descriptor: int) -> None:
    null = os.open(os.devnull, os.O_WRONLY)
    if null != descriptor:
        os.dup2(null, descriptor)
        os.close(null)
