"""The watchdog: a step that takes too long has all stacks written and the missing worker named.

Each worker counts what it has begun in a file of its own; a thread beside the loop writes the
count, so that a worker without news is one that is stopped, gone or stuck in native code. All
workers begin the same things in the same order: those whose count is behind are the missing ones.
The verdicts go to a file of the run; the driver, which may be on another machine, repeats them.
"""

import faulthandler
import json
import logging
import os
import socket
import threading
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import IO

from msvqa.engine.tracking import following_lines
from msvqa.errors import StorageError
from msvqa.files import written_aside
from msvqa.storage import open_folder

logger = logging.getLogger(__name__)

VERDICTS = "watchdog.log"
BEATS_PER_LIMIT = 4
GIL_GRACE_S = 60.0


@dataclass(frozen=True, kw_only=True)
class Beat:
    """What a worker says of itself."""

    rank: int
    begun: int
    """How many things this worker has begun."""
    doing: str
    time: float
    """Seconds since the epoch, by the clock of the worker's machine."""
    host: str
    pid: int

    def __str__(self) -> str:
        return f"worker {self.rank} (process {self.pid} on {self.host})"


class Watchdog:
    """Watches one worker. A context: the thread lives as long as the block."""

    def __init__(
        self, logs: str | Path, stage: str, *, rank: int, workers: int, limit_s: float | None
    ) -> None:
        self._folder, self._stage = open_folder(logs), stage
        self._logs = self._folder.path
        self._rank, self._workers, self._limit_s = rank, workers, limit_s
        self._now: tuple[int, str, float, bool] = (0, "starts", time.monotonic(), False)
        self._earlier: list[Beat] = []
        self._heard: dict[int, tuple[Beat, float]] = {}
        self._ended = threading.Event()
        self._thread = threading.Thread(target=self._watch, daemon=True, name="watchdog")

    def __enter__(self) -> "Watchdog":
        if self._limit_s is not None:
            self._logs.mkdir(parents=True, exist_ok=True)
            with suppress(StorageError):
                self._earlier = read_beats(self._folder.location, self._stage, self._workers)
            self._thread.start()
        return self

    def __exit__(self, *error: object) -> None:
        self._ended.set()
        if self._thread.is_alive():
            self._thread.join()

    def begins(self, doing: str, *, limited: bool = True) -> None:
        """Note what the worker does now; without a limit it may take as long as all are alive."""
        self._now = (self._now[0] + 1, doing, time.monotonic(), limited)

    def _watch(self) -> None:
        assert self._limit_s is not None
        stacks = self._folder.get(f"{self._stage}-worker{self._rank}-stacks.txt")
        with stacks.open("a", encoding="utf-8") as file:
            try:
                self._look(self._limit_s, file)
            except OSError as error:
                logger.warning("the watchdog ends, since it cannot write: %s", error)
            finally:
                faulthandler.cancel_dump_traceback_later()
        if not stacks.stat().st_size:
            stacks.unlink()

    def _look(self, limit_s: float, stacks: IO[str]) -> None:
        written_for = -1
        while True:
            try:
                written_for = self._look_once(limit_s, stacks, written_for)
            except StorageError as error:
                # One that gives up would be taken for a worker that is missing.
                logger.warning("the watchdog tries again: %s", error)
            if self._ended.wait(limit_s / BEATS_PER_LIMIT):
                return

    def _look_once(self, limit_s: float, stacks: IO[str], written_for: int) -> int:
        """Beat; write stacks and a verdict where it is time; return what they were last for."""
        # Read first: a process that was stopped may go on while its beat is written.
        begun, doing, since, limited = self._now
        self._beat()
        # Fires when this thread does not come back: native code holds the interpreter.
        faulthandler.dump_traceback_later(limit_s + GIL_GRACE_S, file=stacks)
        late = limited and time.monotonic() - since > limit_s
        if begun == written_for or not (late or self._silent_others(limit_s)):
            return written_for
        faulthandler.dump_traceback(file=stacks, all_threads=True)
        self._folder.put(Path(stacks.name).name)
        # A beat later the others have said where they are.
        self._ended.wait(limit_s / BEATS_PER_LIMIT)
        self._beat()
        self._name_missing(limit_s, doing)
        return begun

    def _name_missing(self, limit_s: float, doing: str) -> None:
        verdict = name_missing(self._beats(), self._workers, limit_s)
        message = f"stage {self._stage}: {doing} for more than {limit_s:g} s: {verdict}"
        logger.error(message)
        with (self._logs / VERDICTS).open("a", encoding="utf-8") as verdicts:
            verdicts.write(f"worker {self._rank}: {message}\n")
        # In an object store the verdict of another worker may be replaced: all say the same.
        self._folder.put(VERDICTS)

    def _silent_others(self, limit_s: float) -> bool:
        return any(time.time() - beat.time > limit_s for beat in self._beats())

    def _beats(self) -> list[Beat]:
        """Return what was heard since this start, each with the time when it was news here.

        The clocks of other machines may differ, and beats of an earlier start never change.
        """
        for beat in read_beats(self._folder.location, self._stage, self._workers):
            last, _ = self._heard.get(beat.rank, (None, 0.0))
            if beat != last and beat not in self._earlier:
                self._heard[beat.rank] = beat, time.time()
        return [replace(beat, time=heard_at) for beat, heard_at in self._heard.values()]

    def _beat(self) -> None:
        begun, doing, _, _ = self._now
        beat = Beat(
            rank=self._rank,
            begun=begun,
            doing=doing,
            time=time.time(),
            host=socket.gethostname(),
            pid=os.getpid(),
        )
        name = _beat_name(self._stage, self._rank)
        with written_aside(self._logs / name) as aside:
            aside.write_text(json.dumps(asdict(beat)), encoding="utf-8")
        self._folder.put(name)


@contextmanager
def telling_verdicts(logs: str | Path) -> Iterator[None]:
    """Log what the watchdogs of the workers find while the block runs."""
    with following_lines(open_folder(logs), VERDICTS, logger.error):
        yield


def read_beats(logs: str | Path, stage: str, workers: int) -> list[Beat]:
    """Return the last beat of every worker."""
    folder, found = open_folder(logs), []
    for rank in range(workers):
        try:
            file = folder.get(_beat_name(stage, rank))
            found.append(Beat(**json.loads(file.read_text(encoding="utf-8"))))
        except (OSError, ValueError):
            continue
    return found


def name_missing(beats: Sequence[Beat], workers: int, silent_s: float) -> str:
    """Return a sentence that says which worker the others wait for."""
    # Of a larger group, which a lost node has ended, more are left.
    beats = [beat for beat in beats if beat.rank < workers]
    latest = max((beat.time for beat in beats), default=0.0)
    silent = [beat for beat in beats if latest - beat.time > silent_s]
    unknown = sorted(set(range(workers)) - {beat.rank for beat in beats})
    if unknown:
        return f"nothing was ever heard of worker {', '.join(map(str, unknown))}"
    if silent:
        gone = "; ".join(
            f"{beat}, last heard of {latest - beat.time:.0f} s ago, {beat.doing}" for beat in silent
        )
        return f"missing is {gone}"
    furthest = max((beat.begun for beat in beats), default=0)
    behind = [beat for beat in beats if beat.begun < furthest]
    if behind:
        return "missing is " + "; ".join(f"{beat}, which {beat.doing}" for beat in behind)
    where = "; ".join(f"{beat} {beat.doing}" for beat in beats)
    return f"no worker is behind the others: {where}"


def _beat_name(stage: str, rank: int) -> str:
    return f".{stage}-worker{rank}.beat"
