"""What is said while a stage or a trial has no workers, since the cluster has no room for them.

Ray Train and Tune wait without end and without a word. Ray Train's controller, an actor, notes
whether it found room, and the driver, which has the console, reads the notes.
"""

import logging
import time
import uuid
from typing import Any

import ray
from ray.experimental.internal_kv import (
    _internal_kv_del,
    _internal_kv_get,
    _internal_kv_put,
)
from ray.train.v2._internal.execution.callback import ControllerCallback
from ray.train.v2._internal.execution.controller.state import (
    PreemptingState,
    ReschedulingState,
    RestartingState,
    RunningState,
    SchedulingState,
)

from msvqa.engine.cluster import Placement
from msvqa.engine.stopping import StopRequest
from msvqa.engine.unwrapping import user_error
from msvqa.errors import StoppedError, is_lasting

logger = logging.getLogger(__name__)

SAY_AGAIN_S = 300.0
SHRINKS_WITHIN_S = 60.0
"""So long nothing is said where there seems to be room for fewer workers."""
TRIALS_START_WITHIN_S = 30.0
PAUSE_S = 1.0
NAMESPACE = b"msvqa"
WAITING = b"waiting"
"""The other notes are numbers of workers: so many train."""


class RoomNotes(ControllerCallback):
    """Runs in the controller: notes whether there is room, and ends what cannot or must not go on.

    Ray starts the workers again after every error, without end where it is told to put up with any
    number of deaths.
    """

    def __init__(self, key: bytes, run: str, stage: str) -> None:
        self._key, self._run, self._stage = key, run, stage
        self._noted, self._workers = b"", 0

    def after_controller_state_update(self, previous_state: Any, current_state: Any) -> None:
        """Note what the new state means.

        Raises:
            StoppedError: the run was asked to stop, and no worker is there to do so.
            MSVQAError: what has ended the workers, if it would end them again.
        """
        if isinstance(current_state, RestartingState):
            failed = current_state.training_failed_error
            error = user_error(*getattr(failed, "worker_failures", {}).values())
            if error is not None and is_lasting(error):
                raise error
        if isinstance(current_state, (RunningState, PreemptingState)):
            self._note(str(self._workers).encode())
            return
        if current_state.is_terminal():
            return
        if isinstance(current_state, SchedulingState):
            decision: Any = current_state.scaling_decision
            self._workers = decision.num_workers
        # Ray tries again without end: from a group that found no room, or from the same state.
        same_again = type(previous_state) is type(current_state)
        if same_again or isinstance(current_state, ReschedulingState):
            self._note(WAITING)
        if same_again:
            # It would ask as fast as it can.
            time.sleep(PAUSE_S)
        about_to_start = same_again or isinstance(current_state, SchedulingState)
        if about_to_start and StopRequest(self._run).is_asked():
            raise StoppedError(
                f"stage {self._stage!r} was asked to stop before its workers had started: "
                "the same command continues from the last checkpoint"
            )

    def _note(self, what: bytes) -> None:
        if what != self._noted:
            _internal_kv_put(self._key, what, overwrite=True, namespace=NAMESPACE)
            self._noted = what


class RoomWatch:
    """Runs in the driver: says that a stage waits, rarely again, and that it goes on."""

    def __init__(self, placement: Placement, stage: str) -> None:
        self.key = f"{stage}-{uuid.uuid4().hex}".encode()
        self._placement, self._stage = placement, stage
        self._training: bytes | None = None
        self._waits, self._said_at = False, float("-inf")
        self._since: float | None = None

    def look(self) -> None:
        """Say what has changed since the last look."""
        noted = _internal_kv_get(self.key, namespace=NAMESPACE)
        if noted is None:
            return
        if noted != WAITING:
            if self._waits or self._training not in (None, noted):
                logger.warning("stage %s goes on with %s workers", self._stage, noted.decode())
            self._training, self._waits, self._said_at = noted, False, float("-inf")
            self._since = None
            return
        now = time.monotonic()
        self._since = self._since or now
        soon = self._shrinks() and now - self._since < SHRINKS_WITHIN_S
        if now - self._said_at > SAY_AGAIN_S and not soon:
            self._waits, self._said_at = True, now
            logger.warning("stage %s waits for %s: %s", self._stage, self._placement, _room())

    def _shrinks(self) -> bool:
        """Whether there is room for fewer workers, which are soon started."""
        fewest, free = self._placement.fewest, ray.available_resources()
        return fewest is not None and (
            free.get("CPU", 0) >= fewest * self._placement.cpus_per_worker
            and free.get("GPU", 0) >= fewest * self._placement.gpus_per_worker
        )

    def close(self) -> None:
        """Forget the notes."""
        _internal_kv_del(self.key, namespace=NAMESPACE)


class TrialsWatch:
    """Runs in the driver of a search: says that no trial can start, rarely again, and the end."""

    def __init__(self, placement: Placement) -> None:
        self._placement = placement
        self._since: float | None = None
        self._said_at: float | None = None

    def look(self, *, waits: bool) -> None:
        """Say what has changed since the last look.

        Args:
            waits: whether there are trials to start, and none runs.
        """
        now = time.monotonic()
        if not waits:
            if self._said_at is not None:
                logger.warning("the search goes on")
            self._since = self._said_at = None
            return
        self._since = now if self._since is None else self._since
        too_long = now - self._since > TRIALS_START_WITHIN_S
        if too_long and (self._said_at is None or now - self._said_at > SAY_AGAIN_S):
            self._said_at = now
            logger.warning("no trial runs: each waits for %s: %s", self._placement, _room())


def _room() -> str:
    nodes = sum(node["Alive"] for node in ray.nodes())
    total, free = ray.cluster_resources(), ray.available_resources()
    return (
        f"the cluster has {total.get('CPU', 0):g} CPUs and {total.get('GPU', 0):g} GPUs on {nodes} "
        f"nodes, {free.get('CPU', 0):g} and {free.get('GPU', 0):g} of them free. Add a node, or "
        "press Ctrl-C: the same command continues from the last checkpoint"
    )
