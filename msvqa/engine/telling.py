"""What a search tells of its trials while Ray Tune runs them, and what came of them at its end.

A trial is read from its run, which may be in an object store that does not answer for a while. The
search goes on meanwhile, and what was to be told is told at the next occasion, or at the end.
"""

import logging
import time
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any, Literal, TypeVar

from ray import cloudpickle

from msvqa.engine.cluster import Placement
from msvqa.engine.sweep import State, Sweep, Trial
from msvqa.engine.unwrapping import user_error
from msvqa.errors import StorageError

logger = logging.getLogger(__name__)

STATES: dict[str, State] = {
    "PENDING": "waiting",
    "RUNNING": "running",
    "PAUSED": "waiting",
    "TERMINATED": "stopped",
    "ERROR": "failed",
}
PAUSE_S = 1.0
"""Between looks at storage that has failed."""
Event = Literal["reports", "completes", "fails"]
Answer = TypeVar("Answer")


class Telling:
    """Tells of trials as they report and end."""

    def __init__(self, sweep: Sweep, on_trial: Callable[[Trial], None] | None) -> None:
        self._sweep, self._on_trial = sweep, on_trial
        self._told: dict[str, Trial] = {}
        self._owed: dict[str, tuple[Any, Event]] = {}

    def tell(self, trial: Any, event: Event) -> None:
        """Tell what one of Tune's trials has come to, and what could not be told before."""
        self._owed[str(trial)] = (trial, event)
        try:
            self._tell_what_is_owed()
        except (OSError, StorageError) as error:
            logger.warning("%s\nThe search goes on; what its trials reach is shown later", error)

    def last(self, trials: Sequence[Any]) -> list[Trial]:
        """Return what came of Tune's trials; wait for storage that has failed.

        Raises:
            StorageError: it failed for too long.
        """

        def read() -> list[Trial]:
            self._tell_what_is_owed()
            for trial in trials:
                # Again: in its last moments the process of a stopped trial may call it failed.
                if trial.status == "TERMINATED":
                    self._sweep.conclude(str(trial))
            return [_summary(self._sweep, trial) for trial in trials]

        return _patiently(read, self._sweep.recipe.faults.storage_wait_s)

    def _tell_what_is_owed(self) -> None:
        for name, (trial, event) in list(self._owed.items()):
            if event == "completes":
                self._sweep.conclude(name)
            summary = _summary(self._sweep, trial)
            del self._owed[name]
            # A run may be at its end before Tune closes the trial or has it go on from another.
            early = summary.ended and event == "reports"
            if self._on_trial and not early and self._told.get(name) != summary:
                self._told[name] = summary
                self._on_trial(summary)


def watcher(telling: Telling, placement: Placement) -> Any:
    """Return the callback of Tune that tells of the trials, and of a search without room."""
    from ray import tune

    from msvqa.engine.waiting import TrialsWatch

    watch = TrialsWatch(placement)

    class Watcher(tune.Callback):
        def on_step_end(self, iteration: int, trials: Sequence[Any], **_: Any) -> None:
            states = {STATES[trial.status] for trial in trials}
            watch.look(waits="waiting" in states and "running" not in states)

        def on_trial_result(
            self, iteration: int, trials: Sequence[Any], trial: Any, result: Any, **_: Any
        ) -> None:
            telling.tell(trial, "reports")

        def on_trial_complete(
            self, iteration: int, trials: Sequence[Any], trial: Any, **_: Any
        ) -> None:
            telling.tell(trial, "completes")

        def on_trial_error(
            self, iteration: int, trials: Sequence[Any], trial: Any, **_: Any
        ) -> None:
            telling.tell(trial, "fails")

    return Watcher()


def _summary(sweep: Sweep, trial: Any) -> Trial:
    values = {key: value for key, value in trial.config["trial"].items() if key != "number"}
    found = sweep.trial(str(trial), values, STATES[trial.status])
    if found.state == "failed" and not found.message and Path(trial.error_file or "").is_file():
        found = replace(found, message=_why(trial))
    return found


def _why(trial: Any) -> str:
    """Return why a trial has failed that could not say so itself."""
    kept = Path(trial.pickled_error_file or "")
    if kept.is_file() and (ours := user_error(cloudpickle.loads(kept.read_bytes()))):
        return str(ours)
    lines = Path(trial.error_file).read_text(encoding="utf-8").strip().splitlines()
    return f"{lines[-1]} (this must be a bug: see {trial.error_file})"


def _patiently(ask: Callable[[], Answer], wait_s: float) -> Answer:
    deadline = time.monotonic() + wait_s
    while True:
        try:
            return ask()
        except (OSError, StorageError) as error:
            if time.monotonic() > deadline:
                raise StorageError(
                    f"{error}\nTried for {wait_s:g} s (faults.storage_wait_s). The runs of the "
                    "trials are untouched: bring the storage back, and the same command continues"
                ) from error
            logger.warning("%s; trying again in %g s", error, PAUSE_S)
        time.sleep(PAUSE_S)
