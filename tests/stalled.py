"""A file whose reading does not return, as on a disk or a network share that does not answer."""

import fcntl
import os
import signal
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path


@contextmanager
def stalled(file: Path) -> Iterator[None]:
    """Let every process that opens a file wait, on Linux; whether it is there can be asked.

    The kernel makes whoever opens a file wait for the holder of a lease on it, who is asked to give
    it back and does not: until the block ends, or the kernel takes it (fs.lease-break-time, 45 s).
    """
    descriptor = os.open(file, os.O_RDONLY)
    try:
        # The signal that asks for it back is one that is ignored; Linux's own choice would kill.
        fcntl.fcntl(descriptor, fcntl.F_SETSIG, signal.SIGURG)
        fcntl.fcntl(descriptor, fcntl.F_SETLEASE, fcntl.F_WRLCK)
        yield
    finally:
        os.close(descriptor)
