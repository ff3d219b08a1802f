"""Where the time of extractors goes: seconds for each kind of work, and how long they are busy."""

import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass

KINDS = ("reading", "decoding", "computing", "writing")


class Clock:
    """Adds up the seconds of blocks, by their kind."""

    def __init__(self) -> None:
        self.spent_s = dict.fromkeys(KINDS, 0.0)

    @contextmanager
    def at(self, kind: str) -> Iterator[None]:
        """Count the block as work of a kind; also one that fails."""
        start = time.perf_counter()
        try:
            yield
        finally:
            self.spent_s[kind] += time.perf_counter() - start


@dataclass
class Decoders:
    """Processes that make arrays of media while training runs."""

    workers: int
    busy_s: float = 0.0
    """Seconds that all of them together took for what has arrived."""
