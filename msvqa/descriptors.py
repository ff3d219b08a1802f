"""The descriptors of the standard streams, which may be closed, full or without a reader."""

import io
import os
from typing import Any, TextIO

STANDARD = (0, 1, 2)


class Outlet(io.FileIO):
    """A descriptor that takes everything; what it can no longer write it drops, and notes why."""

    def __init__(self, descriptor: int, *, closefd: bool = False) -> None:
        super().__init__(descriptor, "w", closefd=closefd)
        self.failure: OSError | None = None

    def write(self, data: Any) -> int:
        """Write, or seem to."""
        if self.failure is None:
            try:
                return super().write(data) or 0
            except OSError as error:
                self.failure = error
        return memoryview(data).nbytes


def outlet(
    descriptor: int, *, encoding: str, line_buffering: bool | None = None, closefd: bool = False
) -> TextIO:
    """Return a stream that writes to a descriptor and is never in the way of what prints.

    Args:
        descriptor: what it writes to.
        encoding: what it does not have is written out.
        line_buffering: without it, those of stderr and of terminals are shown at once.
        closefd: whether closing the stream closes the descriptor.
    """
    if line_buffering is None:
        line_buffering = descriptor == 2 or os.isatty(descriptor)
    buffered = io.BufferedWriter(Outlet(descriptor, closefd=closefd))
    # A name may hold what the encoding does not have, or what is no character at all.
    return io.TextIOWrapper(
        buffered, encoding=encoding, errors="backslashreplace", line_buffering=line_buffering
    )


def hold_standard() -> None:
    """Open on nothing those that are closed: the next file would get their number.

    What prints, in this process or in one that it starts, would write into that file.
    """
    for descriptor in STANDARD:
        try:
            os.fstat(descriptor)
        except OSError:
            # It gets the lowest number that is free, which is this one.
            os.open(os.devnull, os.O_WRONLY if descriptor else os.O_RDONLY)
