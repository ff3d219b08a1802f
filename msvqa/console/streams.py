"""The standard streams of a command: always there, never in the way of its work.

A scheduler may start a command without any; a file opened later would then get the number of one of
them, and whatever prints would write into it. A log disk may be full, and the reader of a pipe may
be gone, while the work has hours to go.
"""

import io
import os
import sys
from contextlib import suppress
from typing import TextIO

from msvqa.descriptors import Outlet, hold_standard


def open_streams() -> None:
    """See that the three streams are there and can be printed to, whatever becomes of them."""
    hold_standard()
    if sys.stdin is None:
        sys.stdin = open(0, closefd=False, encoding="utf-8")  # noqa: SIM115 - a descriptor
    sys.stdout = _outlet(1, sys.stdout)
    sys.stderr = _outlet(2, sys.stderr)


def failure_of(stream: TextIO) -> OSError | None:
    """Return why a stream could not be written, or None; what was printed is flushed first."""
    with suppress(OSError, ValueError):
        stream.flush()
    outlet = getattr(getattr(stream, "buffer", None), "raw", None)
    return outlet.failure if isinstance(outlet, Outlet) else None


def takes_all_characters(stream: TextIO) -> bool:
    """Whether every character can be printed as it is."""
    encoding = (getattr(stream, "encoding", None) or "utf-8").lower()
    return encoding.replace("_", "-").startswith(("utf-8", "utf8", "utf-16", "utf-32"))


def _outlet(descriptor: int, before: TextIO | None) -> TextIO:
    encoding = "utf-8" if before is None else before.encoding
    if before is not None:
        with suppress(OSError, ValueError):
            before.flush()
    buffered = io.BufferedWriter(Outlet(descriptor))
    # A name may hold what the encoding does not have, or what is no character at all.
    return io.TextIOWrapper(
        buffered,
        encoding=encoding,
        errors="backslashreplace",
        line_buffering=descriptor == 2 or os.isatty(descriptor),
    )
