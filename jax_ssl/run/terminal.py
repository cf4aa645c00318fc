"""Where a command's lines go when nobody reads them any more: nowhere, and the work goes on.

The rule: a closed pipe (`train ... | head`) or a lost terminal ends no work and shows no traceback. What a run says is
in its log.txt too, and what is measured is in files. Lines that could not be written to a file, on a full disk for one,
end no work either, but they are missing where somebody will look for them, and that is told at the end.
"""

import contextlib
import errno
import io
import os
import stat
import sys

GONE = (errno.EPIPE, errno.EIO, errno.ENXIO, errno.EBADF, errno.ECONNRESET)


class LinesLost(Exception):
    """Lines are missing in the file that was to get them."""


class Lasting(io.FileIO):
    """A stream that is pointed at nothing when its reader has gone. lost: why lines are missing in a file, or None."""

    lost: OSError | None = None

    def write(self, data):
        try:
            return super().write(data)
        except OSError as error:
            if error.errno in GONE and not stat.S_ISREG(os.fstat(self.fileno()).st_mode):
                _to_nothing(self.fileno())  # the descriptor itself: libraries in C write to it as well
            else:
                self.lost = error
            return len(data)


@contextlib.contextmanager
def lasting():
    """stdout and stderr outlive their readers in here; those of a notebook or a test stay as they are.

    Raises LinesLost at the end if lines are missing in a file.
    """
    before = sys.stdout, sys.stderr
    sys.stdout, sys.stderr = after = (_outliving(before[0], 1), _outliving(before[1], 2))
    if sys.__stderr__ is None:  # closed by who started us; what writes there at the very end asks for this one
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
        if isinstance(raw, Lasting) and raw.lost:
            raise LinesLost(f"not all lines could be written where they were sent ({raw.lost.strerror}).")


def _outliving(stream, descriptor: int):
    """The stream itself, or what takes its place where it is the process's own on that descriptor."""
    if stream is None:
        return _nothing(descriptor)
    if stream is not (sys.__stdout__ if descriptor == 1 else sys.__stderr__):
        return stream
    stream.flush()
    return io.TextIOWrapper(
        io.BufferedWriter(Lasting(descriptor, "w", closefd=False)),
        stream.encoding,
        "backslashreplace" if stream.errors == "strict" else stream.errors,  # file names may be of any bytes
        line_buffering=stream.line_buffering,
        write_through=stream.write_through,
    )


def _nothing(descriptor: int):
    """A stream into nothing, on that descriptor if it is free: else the next file to be opened would get the lines."""
    try:
        os.fstat(descriptor)
    except OSError:
        _to_nothing(descriptor)
    return open(os.devnull, "w")


def _to_nothing(descriptor: int) -> None:
    nothing = os.open(os.devnull, os.O_WRONLY)
    if nothing != descriptor:
        os.dup2(nothing, descriptor)
        os.close(nothing)
