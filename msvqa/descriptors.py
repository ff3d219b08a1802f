"""The descriptors of the standard streams, which may be closed, or lead to a disk that is full."""

import io
import os
from typing import Any

STANDARD = (0, 1, 2)


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


class Outlet(io.FileIO):
    """A descriptor that takes everything; what it can no longer write it drops, and notes why."""

    def __init__(self, descriptor: int, *, closes: bool = False) -> None:
        super().__init__(descriptor, "w", closefd=closes)
        self.failure: OSError | None = None

    def write(self, data: Any) -> int:
        """Write, or seem to."""
        if self.failure is None:
            try:
                return super().write(data) or 0
            except OSError as error:
                self.failure = error
        return memoryview(data).nbytes
