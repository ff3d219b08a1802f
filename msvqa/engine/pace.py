"""How fast a stage was trained or media were extracted, beside what could be, and what limits."""

import logging
import statistics
import time
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from datetime import datetime, timezone
from typing import Any, TypeVar

import numpy as np

from msvqa.data.processors.clock import KINDS
from msvqa.data.store import Store
from msvqa.errors import StorageError
from msvqa.files import read_json, write_json
from msvqa.storage import open_folder

logger = logging.getLogger(__name__)

SPEED = "speed.json"
"""In a store: how fast what is in it was extracted the last time. Nothing depends on it."""
COMPILING = "compiling"
"""In a row: all its steps were compiled, and are not timed."""
WAITING_LIMITS = 0.05
"""Batches are made ahead, so a loop that waits for more than this share of its time is held up."""
UNMEASURED = "`msvqa doctor --speed RECIPE` measures what this machine could reach"

Item = TypeVar("Item")


@dataclass(frozen=True, kw_only=True)
class StagePace:
    """Medians over the rows of a stage; what no row says is None."""

    workers: int | None
    examples_per_s: float | None
    waiting: float | None
    """Share of the time that the first worker waits for batches."""
    decoders_idle: float | None
    """Share of the time that those have nothing to do who decode for it while it trains."""
    tflops: float | None
    """10^12 operations a second of the first worker."""
    share_of_peak: float | None
    """Of what a matrix product of the same type reaches there."""

    @classmethod
    def of(cls, rows: Iterable[Mapping[str, Any]]) -> "StagePace":
        """Return the pace that the rows of metrics.jsonl of a stage tell."""
        train = [row for row in rows if row["kind"] == "train"]
        # Of a stage that went on with other workers, those of the last ones.
        train = [row for row in train if row.get("workers") == train[-1].get("workers")]
        # Where there are others, none whose steps were compiled.
        train = [row for row in train if COMPILING not in row] or train
        numbers = ("waiting", "decoders_idle", "tflops", "share_of_peak")
        return cls(
            workers=max((row["workers"] for row in train[-1:] if "workers" in row), default=None),
            examples_per_s=_median(train, "questions_per_s"),
            **{name: _median(train, name) for name in numbers},
        )

    @property
    def limit(self) -> str | None:
        """The slower side: `data` or `computing`."""
        if self.waiting is None:
            return None
        return "data" if self.waiting > WAITING_LIMITS else "computing"

    def line(
        self, stage: str, precision: str, best_tflops: float | None, otherwise: str = UNMEASURED
    ) -> str:
        """Return all of it in one line.

        Args:
            stage: its name.
            precision: of the stage, as its matrix products are called.
            best_tflops: what the doctor has measured of the whole machine, if it has.
            otherwise: said where it has not; empty: nothing.
        """
        if self.examples_per_s is None or self.waiting is None:
            return f"speed of stage {stage}: no step was logged"
        said = [
            f"{plain(self.examples_per_s)} examples/s on {_counted(self.workers or 1, 'worker')}",
            f"waiting for data {self.waiting:.0%} of the time",
        ]
        if self.decoders_idle is not None:
            said.append(f"decoders idle {self.decoders_idle:.0%} of theirs")
        if self.tflops is not None and self.share_of_peak is not None:
            said.append(
                f"{plain(self.tflops)} TFLOP/s a worker, {self.share_of_peak:.0%} of its best "
                f"{precision} matrix product"
            )
            if best_tflops:
                share = (self.workers or 1) * self.tflops / best_tflops
                best = plain(best_tflops)
                said.append(f"{share:.0%} of the machine's {best} as doctor measured it")
            elif otherwise:
                said.append(otherwise)
        return f"speed of stage {stage}: {'; '.join(said)}; {self.limit} limits"


def _median(rows: Sequence[Mapping[str, Any]], name: str) -> float | None:
    values = [row[name] for row in rows if row.get(name) is not None]
    return statistics.median(values) if values else None


def plain(number: float) -> str:
    """Return a number with three digits, or all of those before its point; never with a power."""
    if number >= 100:
        return f"{number:.0f}"
    return np.format_float_positional(number, precision=3, fractional=False, trim="-")


def _counted(number: int, what: str) -> str:
    return f"{number} {what}{'' if number == 1 else 's'}"


@dataclass(frozen=True, kw_only=True)
class Written:
    """A shard that is in its place, and what that took its worker."""

    shard: int
    began: float
    """Time of day in seconds"""
    spent_s: Mapping[str, float]
    """Seconds of each kind of work"""


@dataclass(frozen=True, kw_only=True)
class ExtractionPace:
    """Where the time of the workers went that extracted the media of a store.

    They are the actors of one operator of Ray Data, which does everything to a medium: what is idle
    are its actors, not operators beside each other.
    """

    media: int
    workers: int
    starting_s: float
    """Until the first worker began."""
    wall_s: float
    """From then to the last shard."""
    spent_s: Mapping[str, float]
    """Seconds of all workers for each kind of work"""
    driver_idle: float
    """Share of the time that the driver waited for shards."""
    ended_at: str
    machine: Mapping[str, Any] | None = None
    """The only one that extracted, as `ceiling.this_machine` says; None: nobody knows, or several
    did."""

    @property
    def media_per_s(self) -> float:
        """Media per second of all workers, without the time until the first began."""
        return self.media / self.wall_s

    @property
    def shares(self) -> dict[str, float]:
        """Share of the workers' time for each kind of work, and `idle`."""
        whole = self.workers * self.wall_s
        found = {kind: seconds / whole for kind, seconds in self.spent_s.items()}
        return {**found, "idle": max(0.0, 1 - sum(found.values()))}

    @property
    def limit(self) -> str:
        """The kind of work that takes most of the time."""
        return max(self.spent_s, key=lambda kind: self.spent_s[kind])

    def line(self, best_per_s: float | None, otherwise: str = UNMEASURED) -> str:
        """Return all of it in one line.

        Args:
            best_per_s: media per second that the machine can do by what the doctor has measured.
            otherwise: said where nothing was measured; empty: nothing.
        """
        shares = ", ".join(f"{kind} {share:.0%}" for kind, share in self.shares.items() if share)
        said = [
            f"speed of extraction: {plain(self.media_per_s)} media/s on "
            f"{_counted(self.workers, 'worker')} ({shares})"
        ]
        if best_per_s:
            share, best = self.media_per_s / best_per_s, plain(best_per_s)
            said.append(f"{share:.0%} of the machine's {best} as doctor measured it")
        elif otherwise:
            said.append(otherwise)
        return "; ".join([*said, f"{self.limit} limits"])


class ExtractionClock:
    """Notes where the time of an extraction goes."""

    def __init__(self, workers: int) -> None:
        """Begin when work is handed out."""
        self._workers = workers
        self._start, self._start_s = time.time(), time.perf_counter()
        self._first: float | None = None
        self._waited_s = 0.0
        self._spent_s = dict.fromkeys(KINDS, 0.0)

    def waited(self, items: Iterable[Item]) -> Iterator[Item]:
        """Yield what comes, and note how long it was waited for."""
        iterator = iter(items)
        while True:
            start = time.perf_counter()
            try:
                item = next(iterator)
            except StopIteration:
                return
            finally:
                self._waited_s += time.perf_counter() - start
            yield item

    def add(self, written: Written) -> None:
        """Take up a shard."""
        # Clocks of two machines may differ: nobody began before there was work.
        began = max(written.began, self._start)
        self._first = began if self._first is None else min(self._first, began)
        for kind, seconds in written.spent_s.items():
            self._spent_s[kind] += seconds

    def pace(self, media: int) -> ExtractionPace | None:
        """Return what was noted; None where nothing was done."""
        if self._first is None:
            return None
        whole_s = time.perf_counter() - self._start_s
        starting_s = min(self._first - self._start, whole_s)
        return ExtractionPace(
            media=media,
            workers=self._workers,
            starting_s=starting_s,
            wall_s=max(whole_s - starting_s, 1e-9),
            spent_s=dict(self._spent_s),
            driver_idle=self._waited_s / whole_s,
            ended_at=datetime.now(timezone.utc).isoformat(timespec="milliseconds"),
        )


def keep_pace(location: str, pace: ExtractionPace) -> None:
    """Write into a store how fast it was extracted, if it can be: the store is worth more."""
    folder = open_folder(location)
    try:
        write_json(folder.path / SPEED, asdict(pace))
        folder.put(SPEED)
    except (StorageError, OSError) as error:
        logger.warning("how fast %s was extracted is not kept: %s", location, error)


def kept_pace(store: Store) -> ExtractionPace | None:
    """Return how fast a store was extracted; those of earlier versions do not say."""
    try:
        found = read_json(open_folder(store.location).get(SPEED))
        return ExtractionPace(**found) if found else None
    except (TypeError, StorageError):
        return None
