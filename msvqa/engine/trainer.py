"""Ray Train around the training loop: one trainer per stage, resumed from its checkpoints."""

import json
import logging
import queue
import shutil
import threading
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import closing, contextmanager
from pathlib import Path
from typing import IO, Any

import torch

from msvqa import profiling
from msvqa.data.prepared import prepared_location
from msvqa.data.processors.processor import processor_of, store_location
from msvqa.engine import cluster, distributed
from msvqa.engine.checkpoint import checkpoint_name, find_initial, newest_checkpoint
from msvqa.engine.log_file import LogFile
from msvqa.engine.loop import Saver, StageJob, train_stage
from msvqa.engine.stopping import StopRequest
from msvqa.engine.tracking import LIVING, Row, following, send_living
from msvqa.engine.unwrapping import causes, how_it_died, sendable, user_error
from msvqa.engine.watchdog import telling_verdicts
from msvqa.errors import (
    CheckpointError,
    ClusterError,
    MSVQAError,
    NonFiniteLossError,
    StoppedError,
    StorageError,
)
from msvqa.files import lock
from msvqa.recipe import Recipe, StageConfig, parse
from msvqa.run import CHECKPOINT_INFO, Run
from msvqa.storage import Folder

logger = logging.getLogger(__name__)

SNAPSHOT = "checkpoint_manager_snapshot.json"
"""Ray's list of the checkpoints of a stage."""
PAUSE_S = 1.0
"""Between looks at storage that has failed."""


class AgreedError(Exception):
    """A user's error that all workers raise together; to start them again would repeat it."""

    def __init__(self, error: MSVQAError) -> None:
        super().__init__(str(error))
        self.error = error


class RayHost:
    """The loop's view of a Ray Train worker.

    The first worker writes a checkpoint straight to its place in the run, aside and then renamed,
    and Ray learns of it when it is whole. Ray's own copying would give it its name at the first
    file.
    """

    def __init__(self, job: StageJob) -> None:
        import ray.train
        from ray.train.torch import get_device

        self._train = ray.train
        self.rank: int = ray.train.get_context().get_world_rank()
        self.device: torch.device = get_device()
        recipe = parse(job.recipe)
        self._faults = recipe.faults
        self._run = Run(job.run, recipe)
        self._stage = recipe.stages[job.stage].name
        self._folder = self._run.stage_dir(self._stage)
        self._only_writer = WriterLock(self._folder / ".writer")

    def latest_checkpoint(self) -> str | None:
        """Return the newest checkpoint of this stage, the same on every worker.

        It may be one that Ray does not know of, written just before a worker or Ray itself died.
        """
        found, error = None, None
        if self.rank == 0:
            self._only_writer.take()
            for leftover in self._folder.glob(".step-*"):
                shutil.rmtree(leftover, ignore_errors=True)
            try:
                previous = self._faults.damaged_checkpoint == "previous"
                found = newest_checkpoint(self._run.locate(self._folder), or_previous=previous)
            except CheckpointError as refused:
                error = str(refused)
        found, error = distributed.gather_objects((found, error))[0]
        if error:
            raise AgreedError(CheckpointError(error))
        return found

    def report(self, numbers: Mapping[str, float], save: Saver) -> None:
        """Write the checkpoint, hand numbers and checkpoint to Ray.

        Raises:
            AgreedError: storage failed for too long.
        """
        from ray.train import CheckpointUploadMode

        name, wait_s = checkpoint_name(save.step), self._faults.storage_wait_s
        error = save_patiently(save, self._run, self._stage, wait_s) if self.rank == 0 else ""
        error = distributed.gather_objects(error)[0]
        if error:
            raise AgreedError(CheckpointError(error))
        checkpoint = None
        if self.rank > 0:
            send_living(self._run, "logs")
        else:
            checkpoint = self._train.Checkpoint(self._run.locate(self._folder / name))
        self._train.report(
            dict(numbers),
            checkpoint=checkpoint,
            checkpoint_dir_name=name,
            checkpoint_upload_mode=CheckpointUploadMode.NO_UPLOAD,
        )


def save_patiently(save: Saver, run: Run, stage: str, wait_s: float) -> str:
    """Write a checkpoint, again and again while storage fails; return why it failed."""
    pause_s, deadline = 0.5, time.monotonic() + wait_s
    name = f"{stage}/{checkpoint_name(save.step)}"
    while True:
        try:
            save(run.path / name)
            # The rows up to the checkpoint first: a run that goes on from it has only these.
            run.folder.put(*LIVING)
            run.folder.put(name, last=CHECKPOINT_INFO)
            run.folder.forget(name)
            return ""
        except (CheckpointError, StorageError) as error:
            if time.monotonic() + pause_s > deadline:
                return (
                    f"{error}\nTried for {wait_s:g} s "
                    "(faults.storage_wait_s). Earlier checkpoints are untouched: make room "
                    "or bring the storage back, and the same command continues from the last"
                )
            logger.warning("%s; trying again in %g s", error, pause_s)
        time.sleep(pause_s)
        pause_s = min(2 * pause_s, 10.0)


class WriterLock:
    """Keeps two processes from writing the same: after a crash the old one may still run."""

    def __init__(self, file: Path) -> None:
        self._path = file
        self._file: IO[str] | None = None

    def take(self) -> None:
        """Wait until nobody else writes; the lock ends with the process."""
        self._path.parent.mkdir(parents=True, exist_ok=True)
        self._file = self._path.open("w")
        lock(self._file)


def train_stage_on_ray(
    job: StageJob,
    run: Run,
    placement: cluster.Placement,
    on_row: Callable[[Row], None] | None = None,
    callbacks: tuple[Any, ...] = (),
) -> None:
    """Train one stage on Ray; a second call with the same run continues where the first stopped.

    Args:
        job: the stage.
        run: where the results go.
        placement: what the workers get.
        on_row: called with every logged row.
        callbacks: callbacks of Ray Train, told of every report.

    Raises:
        NonFiniteLossError and other user errors of the loop.
        StoppedError: a signal or the run's file `stop` asked for it.
        StorageError: the run cannot be written, again and again or for too long.
        ClusterError: workers died more often than is put up with.
    """
    faults, failures = run.recipe.faults, 0
    while True:
        try:
            _train_stage(job, run, placement, on_row, callbacks)
            return
        except StorageError as error:
            # Ray has files of its own in the run, and does not try again.
            failures += 1
            too_often = 0 <= faults.max_failures < failures
            if too_often or not _is_back(run.folder, faults.storage_wait_s):
                raise
            name = run.recipe.stages[job.stage].name
            logger.warning("%s\nIt is back: stage %s goes on from its last checkpoint", error, name)


def _is_back(folder: Folder, wait_s: float) -> bool:
    """Wait until a folder can be written again, at most so long."""
    deadline = time.monotonic() + wait_s
    while True:
        try:
            folder.try_writing()
            return True
        except (OSError, StorageError):
            if time.monotonic() > deadline:
                return False
        time.sleep(PAUSE_S)


def _train_stage(
    job: StageJob,
    run: Run,
    placement: cluster.Placement,
    on_row: Callable[[Row], None] | None,
    callbacks: tuple[Any, ...],
) -> None:
    from ray.train import CheckpointConfig, FailureConfig, RunConfig, ScalingConfig

    from msvqa.engine.lean_trainer import LeanTrainer
    from msvqa.engine.process_group import group_config
    from msvqa.engine.waiting import RoomNotes, RoomWatch

    stage = run.recipe.stages[job.stage]
    watch = RoomWatch(placement, stage.name)
    notes: Any = RoomNotes(watch.key, run.location, stage.name)
    trainer = LeanTrainer(
        _train_function,
        train_loop_config=job.to_dict(),
        backend_config=group_config(placement.backend),
        scaling_config=ScalingConfig(
            num_workers=_worker_count(placement),
            use_gpu=placement.gpus_per_worker > 0,
            resources_per_worker=_resources(placement),
            # Ray declares the class of its older version.
            elastic_resize_monitor_interval_s=run.recipe.scaling.look_for_nodes_s,  # type: ignore[call-arg]
        ),
        run_config=RunConfig(
            name=stage.name,
            callbacks=[notes, *callbacks],
            storage_path=run.location,
            failure_config=FailureConfig(max_failures=run.recipe.faults.max_failures),
            checkpoint_config=CheckpointConfig(
                num_to_keep=stage.checkpoint.keep,
                checkpoint_score_attribute="score",
                checkpoint_score_order="max",
            ),
        ),
    )
    forget_unusable_snapshot(run, stage.name)
    with (
        closing(watch),
        following(run, on_row),
        telling_verdicts(run.logs_location),
        logged_to(run, f"{stage.name}-driver.log"),
        StopRequest(run.location).on_signals() as signals,
    ):
        error = _fit(trainer, watch.look, run.recipe.faults.max_failures)
    if isinstance(error, StoppedError):
        error.signal_number = signals[0] if signals else None
    if error:
        raise error


def stage_job(run: Run, number: int) -> StageJob:
    """Return what a worker needs to train a stage of a run, whose data and store are there."""
    recipe, view = run.recipe, run.recipe.of_stage(number)
    other = recipe.validation(number) if view.stages[0].validate.on in recipe.evaluations else None
    return StageJob(
        recipe=recipe.to_dict(),
        stage=number,
        run=run.location,
        prepared=prepared_location(view.data),
        store=_store_of(view),
        init_from=initial_checkpoint(recipe.stages[number], run),
        validated_on=prepared_location(other.data) if other else None,
        validation_store=_store_of(other) if other else None,
        profile=profiling.folder(),
    )


def _store_of(view: Recipe) -> str | None:
    return store_location(view) if processor_of(view).way == "store" else None


def initial_checkpoint(stage: StageConfig, run: Run) -> str | None:
    """Return the checkpoint that a stage starts from, or None."""
    return find_initial(stage.init_from, run) if stage.init_from else None


def forget_unusable_snapshot(run: Run, stage: str) -> None:
    """Remove Ray's list of checkpoints where Ray would stumble over it.

    Ray does not write it aside: a crash or a full disk leaves half of it. Ray also insists on every
    checkpoint in it. Without the list the checkpoints are found by their names all the same.
    """
    file = f"{stage}/{SNAPSHOT}"
    there = {name.split("/")[1] for name in run.folder.sizes(stage)}
    try:
        content = run.folder.get(file).read_text(encoding="utf-8")
        known = json.loads(content)["checkpoint_results"]
        usable = all(result["checkpoint_dir_name"] in there for result in known)
    except FileNotFoundError:
        return
    except (OSError, ValueError, KeyError, TypeError):
        usable = False
    if not usable:
        logger.warning("%s is damaged or out of date and is made anew", file)
        run.folder.remove(file)


def _fit(trainer: Any, look: Callable[[], None], max_failures: int) -> MSVQAError | None:
    """Train; return the user's error that has ended it, if one has."""
    from ray.exceptions import RayActorError
    from ray.train.v2.api.exceptions import TrainingFailedError

    try:
        ended: MSVQAError | None = _in_thread(trainer.fit, look).return_value
        return ended
    except TrainingFailedError as error:
        failures = [*getattr(error, "worker_failures", {}).values()]
        failures += [getattr(error, "controller_failure", None)]
        ours = user_error(*failures)
        died = [cause for f in failures for cause in causes(f) if isinstance(cause, RayActorError)]
        if died and isinstance(ours, ClusterError):
            return ClusterError(
                f"workers died more often than faults.max_failures={max_failures} allows; the "
                f"last time: {how_it_died(died[0])}\nThe same command continues from the last "
                "checkpoint. A worker without a trace was killed, mostly for want of memory"
            )
        if ours is None:
            raise
        return ours


def _in_thread(function: Callable[[], Any], look: Callable[[], None]) -> Any:
    """Call a function in a thread: in the main one Ray would answer Ctrl-C instead of us.

    Args:
        function: what is called.
        look: called every second while it runs.
    """
    ended: queue.Queue[tuple[Any, BaseException | None]] = queue.Queue()

    def call() -> None:
        try:
            ended.put((function(), None))
        except BaseException as error:  # handed to the caller, which raises it
            ended.put((None, error))

    threading.Thread(target=call, daemon=True, name="trainer").start()
    while True:
        try:
            result, error = ended.get(timeout=1.0)
        except queue.Empty:
            look()
            continue
        if error is not None:
            raise error
        return result


def _train_function(job: dict[str, Any]) -> MSVQAError | None:
    """Run in every worker. Returns an error of all workers, which trying again would repeat."""
    try:
        _train_in_worker(StageJob(**job))
    except (NonFiniteLossError, StoppedError) as error:
        # Raised by all workers together; an exception would make Ray start the stage again.
        return error
    except AgreedError as agreed:
        return agreed.error
    except Exception as error:
        if ours := user_error(error):
            raise sendable(ours, error) from None
        raise
    return None


def _train_in_worker(job: StageJob) -> None:
    host = RayHost(job)
    run = Run(job.run, parse(job.recipe))
    log_to_file(run, run.recipe.stages[job.stage].name, host.rank)
    try:
        train_stage(job, host)
    finally:
        send_living(run)


def log_to_file(run: Run, stage: str, rank: int) -> None:
    """Send what this package logs in this process to a file of the run."""
    handler = LogFile(_earlier_log(run, f"{stage}-worker{rank}.log"))
    root = logging.getLogger("msvqa")
    root.handlers = [handler]
    root.setLevel(logging.INFO)


@contextmanager
def logged_to(run: Run, name: str) -> Iterator[None]:
    """Send what this package logs in the block to a file too, which is there when needed."""
    handler = LogFile(_earlier_log(run, name))
    handler.setLevel(logging.WARNING)
    ours = logging.getLogger("msvqa")
    ours.addHandler(handler)
    try:
        yield
    finally:
        ours.removeHandler(handler)
        handler.close()
        send_living(run, f"logs/{name}")


def _earlier_log(run: Run, name: str) -> Path:
    """Return a log, with what earlier starts have written into it."""
    try:
        return run.folder.get(f"logs/{name}")
    except StorageError as error:
        logger.warning("%s", error)
    return run.path / "logs" / name


def _worker_count(placement: cluster.Placement) -> Any:
    if placement.fewest is None:
        return placement.workers
    return placement.fewest, placement.workers


def _resources(placement: cluster.Placement) -> dict[str, float]:
    resources = {"CPU": placement.cpus_per_worker}
    if placement.gpus_per_worker:
        resources["GPU"] = placement.gpus_per_worker
    return resources
