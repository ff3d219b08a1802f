"""The training loop of one stage. Runs in every worker; knows nothing of Ray.

Everything random is a function of (seed, stage, step, worker), and the order of the data one of
(seed, epoch). So a checkpoint needs only the position, and a resumed stage is equal to an
uninterrupted one, also in the middle of an epoch.
"""

import logging
import math
from collections.abc import Iterator, Mapping
from contextlib import closing
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Any, Protocol

import numpy as np
import torch
from torch import Tensor

from msvqa import profiling
from msvqa.collectives import worker_count
from msvqa.compilation import compile_forward
from msvqa.data.augmentation import augment
from msvqa.data.batch import Batch
from msvqa.data.folds import has_split
from msvqa.data.loader import Prefetched, grouped, training_batches
from msvqa.data.order import EpochPlan, Share, count_steps, plan_epoch
from msvqa.data.prepared import Prepared
from msvqa.engine import distributed, parallel
from msvqa.engine.asking import LoopPredictor
from msvqa.engine.batch_norm import synchronize_batch_norm
from msvqa.engine.checkpoint import (
    Content,
    Position,
    not_finite,
    read_info,
    read_lexicon,
    read_training_state,
    save_checkpoint,
)
from msvqa.engine.inputs import Inputs, open_inputs
from msvqa.engine.memory import peak_memory_bytes
from msvqa.engine.meter import Meter
from msvqa.engine.optim import Moment, build_optimizer, set_lr, warms_up_by_epochs
from msvqa.engine.origins import trained
from msvqa.engine.precision import autocast
from msvqa.engine.stage_model import choose_trained, start_model
from msvqa.engine.stopping import StopRequest
from msvqa.engine.tracking import Tracker
from msvqa.engine.watchdog import Watchdog
from msvqa.engine.words import keeps_words
from msvqa.errors import CheckpointError, NonFiniteLossError, StoppedError
from msvqa.evaluators.evaluator import evaluator_of_stage
from msvqa.metrics import is_finite
from msvqa.models.layers.memory_layout import use_channels_last
from msvqa.models.model import Model
from msvqa.objectives import OBJECTIVES
from msvqa.objectives.objective import Objective
from msvqa.recipe import Recipe, StageConfig, parse
from msvqa.run import Run
from msvqa.sections import resolve

logger = logging.getLogger(__name__)

VALIDATED = "validated"
"""Of a report: whether it is of a validation, and not of a checkpoint alone."""
USUAL_DISTANCE, LEAST_VALIDATIONS = 20, 20
"""Steps between validations of short epochs, and how many validations a stage has in any case."""


@dataclass(frozen=True, kw_only=True)
class StageJob:
    """What a worker needs to train one stage; plain data, so that it can travel."""

    recipe: dict[str, Any]
    stage: int
    run: str
    prepared: str
    store: str | None
    init_from: str | None = None
    """Checkpoint whose weights the stage starts from."""
    validated_on: str | None = None
    """Prepared folder of the evaluation that the stage is validated on; None: the stage's own."""
    validation_store: str | None = None
    profile: str | None = None
    """Folder in which the first worker records itself; None: it does not."""

    def to_dict(self) -> dict[str, Any]:
        """Return the job as a dictionary; `StageJob(**job)` reads it back."""
        return asdict(self)


class Host(Protocol):
    """Who runs the loop: gives it a device and an earlier checkpoint, takes its reports."""

    rank: int
    device: torch.device

    def latest_checkpoint(self) -> str | Path | None:
        """Return where the checkpoint to resume from is."""
        ...

    def report(self, numbers: Mapping[str, float], save: "Saver") -> None:
        """Take numbers and a checkpoint; called by all workers equally often."""
        ...


@dataclass(frozen=True)
class Saver:
    """Writes a checkpoint into a folder of the host's choice."""

    step: int
    content: Content

    def __call__(self, folder: Path) -> None:
        """Write the checkpoint."""
        save_checkpoint(folder, self.content)


@dataclass
class _Window:
    """Steps since the last logged row."""

    steps: list[int] = field(default_factory=list)
    parts: list[dict[str, Tensor]] = field(default_factory=list)
    videos: list[list[int]] = field(default_factory=list)


def train_stage(job: StageJob, host: Host) -> Position:
    """Train one stage to its end, from its latest checkpoint if there is one.

    Raises:
        NonFiniteLossError: names step and videos.
        CheckpointError: the checkpoint does not fit.
        StoppedError: the run was asked to stop; a checkpoint is written.
    """
    name = job.recipe["stages"][job.stage]["name"]
    with profiling.of_stage(job.profile if host.rank == 0 else None, f"{name}-worker0"):
        return StageLoop(job, host).run()


class StageLoop:
    """One stage in one worker."""

    def __init__(self, job: StageJob, host: Host) -> None:
        self.host, self.device = host, host.device
        self.recipe: Recipe = parse(job.recipe)
        self.stage_index = job.stage
        self.view = self.recipe.of_stage(job.stage)
        self.stage: StageConfig = self.view.stages[0]
        self.experiment = Run(job.run, self.recipe)
        resume = host.latest_checkpoint()
        self.prepared = self._open_prepared(job, resume)
        self.training = open_inputs(self.view, self.prepared, job.store, "train", self.device)
        self.validated_by = self.recipe.validation(job.stage)
        self.validation = self._open_validation(job)
        if self.device.type == "cpu":
            torch.use_deterministic_algorithms(True, warn_only=True)
            # Filling fresh memory only serves to find reads of it, and costs time in every step.
            torch.utils.deterministic.fill_uninitialized_memory = False  # type: ignore[attr-defined]
        self.meter = Meter(self.device, self.stage, self.training.decoders, counts=host.rank == 0)
        self.resumed = resume is not None
        self.model = self._build_model(job, resume)
        self.objective: Objective = resolve(self.stage.objective.name, OBJECTIVES, "objective")(
            self.stage.objective, self.model
        )
        self.evaluator = evaluator_of_stage(self.validated_by)(self.validated_by.evaluation)
        self._prepare_parameters()
        self.parallel = parallel.share(self.objective, self.stage, self.device)
        if self.stage.compile:
            compile_forward(self.objective, f"stages {self.stage.name}")
        self.optimizer = build_optimizer(self.model, self.stage.optimizer)
        self.position = self._restore(resume)
        self.total_steps, self.epoch_steps = self._count_steps()
        self.tracker = (
            Tracker(self.experiment, self.stage.name, step=self._last_row())
            if host.rank == 0
            else None
        )
        self.window = _Window()
        self.stop_request = StopRequest(self.experiment.location)
        self.meeting = distributed.Meeting()
        self.watchdog = Watchdog(
            self.experiment.logs_location,
            self.stage.name,
            rank=host.rank,
            workers=worker_count(),
            limit_s=self.recipe.faults.watchdog_s,
        )

    def run(self) -> Position:
        """Train until the stage ends."""
        logger.info(
            "worker %d of %d trains stage %s after step %d of %d",
            self.host.rank,
            worker_count(),
            self.stage.name,
            self.position.step,
            self.total_steps,
        )
        try:
            finished = self.position.step >= self.total_steps
            with self.watchdog:
                if self.stage.validate.at_start and not self.resumed:
                    self._validate_at_start()
                while not finished:
                    finished = self._run_epoch()
        finally:
            if self.tracker:
                self.tracker.close()
        return self.position

    # Setting up

    def _open_prepared(self, job: StageJob, resume: str | Path | None) -> Prepared:
        """Open the data, read with the words that the model was trained in."""
        prepared = Prepared.open(job.prepared)
        source = resume or job.init_from
        if source is None or not keeps_words(self.recipe, self.stage_index):
            return prepared
        return prepared.reading(read_lexicon(source), adds=True)

    def _open_validation(self, job: StageJob) -> Inputs | None:
        """Open what the stage is validated on; its texts are read with the stage's words."""
        prepared, name, store = self.prepared, self.view.validated_split, job.store
        if job.validated_on is not None:
            prepared = Prepared.open(job.validated_on).reading(self.prepared.lexicon)
            store = job.validation_store
        if not has_split(prepared, name, self.validated_by.folds):
            return None
        inputs = open_inputs(self.validated_by, prepared, store, name, self.device)
        return inputs if len(inputs.split) else None

    def _build_model(self, job: StageJob, resume: str | Path | None) -> Model:
        """Take weights from the own checkpoint, else `init_from`, else weight files and chance."""
        torch.manual_seed(_seed(self.recipe.seed, 0))
        source = resume or job.init_from
        model, self.origins = start_model(
            self.view, self.prepared, source, resumes=resume is not None
        )
        if parallel.is_cut(self.stage):
            # To its device it goes piece by piece, and only as it lies in memory by default.
            return model
        if self.stage.channels_last:
            use_channels_last(model)
        return model.to(self.device)

    def _prepare_parameters(self) -> None:
        choose_trained(self.model, self.objective, self.stage)
        if self.stage.sync_batch_norm and worker_count() > 1:
            synchronize_batch_norm(self.objective, self.device)

    def _restore(self, resume: str | Path | None) -> Position:
        if resume is None:
            return Position(stage=self.stage.name)
        position = Position(**read_info(resume)["position"])
        if position.stage != self.stage.name:
            raise CheckpointError(
                f"{resume} belongs to stage {position.stage!r}, not to {self.stage.name!r}"
            )
        self.parallel.restore(self.optimizer, read_training_state(resume)["optimizer"])
        return position

    def _last_row(self) -> int:
        """Return the step whose rows are kept; without a checkpoint also those of step 0 go."""
        begins = self.stage.validate.at_start and not self.resumed
        return -1 if begins else self.position.step

    def _plan(self, epoch: int) -> EpochPlan:
        return plan_epoch(self.training.split, self.stage.batch, seed=self.recipe.seed, epoch=epoch)

    def _count_steps(self) -> tuple[int, int]:
        """Return the steps of the stage and those of an epoch; 1 where nobody needs these."""
        if self.stage.steps is not None and not warms_up_by_epochs(self.stage):
            return self.stage.steps, 1
        of_epoch = count_steps(self.training.split, self.stage.batch)
        return self.stage.steps or of_epoch * (self.stage.epochs or 1), of_epoch

    # Training

    def _run_epoch(self) -> bool:
        """Train to the end of an epoch or a validation within it; return whether all is done."""
        plan = self._plan(self.position.epoch)
        start = self.position.step_in_epoch
        batches = Prefetched(lambda: self._batches(plan, start))
        self.window = _Window()
        self.meter.begin()
        self.objective.train()
        # Closed before a validation: what decodes for it may need the same processors.
        with closing(grouped(batches, self.stage.batch.accumulate)) as groups:
            stops = self._take_steps(plan, groups, batches)
        if self.position.step_in_epoch == plan.steps or self.position.step >= self.total_steps:
            return self._end_epoch(stops)
        finished = self._validate_within_epoch()
        if stops and not finished:
            raise self._stopped()
        return finished

    def _take_steps(
        self, plan: EpochPlan, groups: Iterator[list[Batch]], batches: Prefetched
    ) -> bool:
        """Take steps until something is to be validated; return whether the run is to stop."""
        self.watchdog.begins(f"loads the batch of step {self.position.step + 1}")
        for step_in_epoch, micro_batches in enumerate(groups, start=self.position.step_in_epoch):
            kind = self._kind(plan, step_in_epoch)
            with profiling.step(self.total_steps - self.position.step):
                self._step(micro_batches, kind)
            counting = float(plan.weight[step_in_epoch].sum())
            self.meter.stepped(kind, counting, batches.waiting_s)
            self.watchdog.begins(f"meets the others after step {self.position.step}")
            stops = self.meeting.any(self.host.rank == 0 and self.stop_request.is_asked())
            last = step_in_epoch + 1 == plan.steps or self.position.step >= self.total_steps
            ends = last or self._is_validated_within_epochs()
            if ends or self.position.step % self.stage.log_every_steps == 0:
                self._log(batches)
            if ends:
                return stops
            if stops or self._is_asked_for():
                self._log(batches)
                self._report({}, score=None, finished=False)
                self.meter.begin()
            if stops:
                raise self._stopped()
            self.watchdog.begins(f"loads the batch of step {self.position.step + 1}")
        raise RuntimeError(f"epoch {self.position.epoch} has no steps left")

    def _kind(self, plan: EpochPlan, step_in_epoch: int) -> int:
        """Return which stream a step is of; steps of images have other operations than others."""
        if self.stage.batch.streams == "mixed":
            return 0
        return int(self.training.split.stream[plan.rows[step_in_epoch].flat[0]])

    def _is_asked_for(self) -> bool:
        """Return whether the recipe asks for a checkpoint after this very step."""
        every = self.stage.checkpoint.every_steps
        return every is not None and self.position.step % every == 0

    def _stopped(self) -> StoppedError:
        return StoppedError(
            f"stage {self.stage.name!r} was asked to stop and has written a checkpoint "
            f"after step {self.position.step}: the same command continues there"
        )

    def _batches(self, plan: EpochPlan, first_step: int) -> Iterator[Batch]:
        batches = training_batches(
            self.training.split,
            self.training.source,
            plan.after(first_step),
            self._share(),
            self.stage.batch.accumulate,
        )
        pinned = self.device.type == "cuda"
        for batch in batches:
            yield {key: value.pin_memory() for key, value in batch.items()} if pinned else batch

    def _share(self) -> Share:
        return Share(self.host.rank, worker_count())

    def _step(self, micro_batches: list[Batch], kind: int) -> None:
        """Take one optimizer step over the micro batches, whose gradients add up."""
        position = self.position
        if self.meter.is_new(kind):
            self.watchdog.begins(f"counts the operations of step {position.step + 1}")
            with self.meter.counting(kind, len(micro_batches), self.objective):
                self._pass(micro_batches[0], last=True)
            self.optimizer.zero_grad(set_to_none=True)
        torch.manual_seed(
            _seed(self.recipe.seed, self.stage_index + 1, position.step, self.host.rank)
        )
        sums: dict[str, Tensor] = {}
        limited = not self.meter.compiles(kind)
        self.watchdog.begins(f"computes the loss of step {position.step + 1}", limited=limited)
        for number, batch in enumerate(micro_batches, start=1):
            last = number == len(micro_batches)
            with self.parallel.adding_up(last):
                parts = self._pass(batch, last=last, limited=limited)
            for name, value in parts.items():
                sums[name] = sums.get(name, 0) + value.detach()
        limit = self.stage.optimizer.clip_norm
        trainable = [p for group in self.optimizer.param_groups for p in group["params"]]
        norm = self.parallel.clip(trainable, limit if limit else float("inf"))
        moment = Moment(position.step, position.epoch, self.total_steps, self.epoch_steps)
        set_lr(self.optimizer, self.stage, moment)
        self.optimizer.step()
        self.optimizer.zero_grad(set_to_none=True)
        self.window.steps.append(position.step)
        self.window.parts.append(sums | {"gradient_norm": norm.detach()})
        self.window.videos.append(
            [v for batch in micro_batches for v in batch["video"].flatten().tolist()]
        )
        self.position = replace(
            position, step=position.step + 1, step_in_epoch=position.step_in_epoch + 1
        )

    def _pass(self, batch: Batch, *, last: bool, limited: bool = True) -> dict[str, Tensor]:
        """Add the gradients of a micro batch; return the parts of its loss."""
        with autocast(self.device, self.stage.precision):
            parts = self.parallel(self._augmented(batch))
        if last:
            step = self.position.step + 1
            self.watchdog.begins(f"averages the gradients of step {step}", limited=limited)
        parts["loss"].backward()
        return parts

    def _augmented(self, batch: Batch) -> Batch:
        """Copy a batch to the device and change its clips as the stage asks."""
        batch = self.training.to_device(batch, self.device)
        if "clips" in batch:
            batch["clips"] = augment(batch["clips"], self.stage.augmentation)
        return batch

    def _log(self, batches: Prefetched) -> None:
        """Average the steps since the last row; stop on a non-finite loss."""
        window, self.window = self.window, _Window()
        if not window.steps:
            return
        names = list(window.parts[0])
        values = torch.stack([torch.stack([p[n].double() for n in names]) for p in window.parts])
        self._refuse_non_finite(values, window)
        # Waits for what the device still has to do: not before that the steps are done.
        means = distributed.mean_over_workers(values.mean(0)).tolist()
        speed = self.meter.end(self.total_steps - self.position.step)
        batches.waiting_s = 0.0
        numbers = dict(zip(names, means, strict=True)) | {
            "lr": self.optimizer.param_groups[-1]["lr"],
            **speed,
            "memory_gb": peak_memory_bytes(self.device) / 1e9,
            "steps": self.total_steps,
        }
        self._track("train", numbers)

    def _refuse_non_finite(self, values: Tensor, window: _Window) -> None:
        bad = ~values.isfinite().all(1)
        everywhere = distributed.mean_over_workers(bad.double())
        if not everywhere.any():
            return
        index = int(everywhere.nonzero()[0])
        own = [self.training.split.media.id[v] for v in window.videos[index]] if bad[index] else []
        videos = sorted({v for share in distributed.gather_objects(own) for v in share})
        raise NonFiniteLossError(
            f"stage {self.stage.name!r}: the loss is not finite at step {window.steps[index] + 1}; "
            f"videos of that batch: {', '.join(videos)}. Lower optimizer.lr or "
            "optimizer.clip_norm, or look at these videos"
        )

    # Validations and ends of epochs

    def _end_epoch(self, stops: bool) -> bool:
        """Validate and write a checkpoint where they are due; return whether the stage ends."""
        ended = self.position.step >= self.total_steps
        far = ended or self._is_far()
        due = self._is_validated_within_epochs() or self._is_validated_with_epoch(far)
        numbers, score = self._validate() if due or ended else ({}, None)
        stale = self._compare(numbers, score)
        finished = ended or stale
        self.position = replace(self.position, epoch=self.position.epoch + 1, step_in_epoch=0)
        if far or due or stops or self._is_asked_for():
            self._report(numbers, score=score, finished=finished)
        if stops and not finished:
            raise self._stopped()
        return finished

    def _is_validated_with_epoch(self, far: bool) -> bool:
        every = self.stage.validate_every_epochs
        by_epochs = self.stage.validate.every_steps is None
        return by_epochs and far and (self.position.epoch + 1) % every == 0

    def _is_validated_within_epochs(self) -> bool:
        """Return whether a validation is due after this very step, wherever in an epoch it is."""
        every = self.stage.validate.every_steps
        return every is not None and self.position.step % every == 0

    def _validate_within_epoch(self) -> bool:
        """Validate and write a checkpoint; return whether the stage ends, for want of progress."""
        numbers, score = self._validate()
        finished = self._compare(numbers, score)
        self._report(numbers, score=score, finished=finished)
        return finished

    def _validate_at_start(self) -> None:
        """Validate before the first step. The checkpoint says that it was: no resume repeats it."""
        numbers, score = self._validate()
        self._compare(numbers, score)
        self._report(numbers, score=score, finished=False)

    def _compare(self, numbers: Mapping[str, float], score: float | None) -> bool:
        """Note the score of a validation; return whether patience is at its end."""
        best, stale = self.position.best_score, self.position.epochs_since_best
        if numbers:
            improved = score is not None and (best is None or score > best)
            best, stale = (score, 0) if improved else (best, stale + 1)
        self.position = replace(self.position, best_score=best, epochs_since_best=stale)
        patience = self.stage.patience_epochs
        return patience is not None and stale >= patience

    def _is_far(self) -> bool:
        """Return whether the steps of the epoch have passed a multiple of the least distance.

        So it is known from the position alone, and an epoch of that length always has.
        """
        distance = self.stage.least_steps_between_validations
        if distance is None:
            distance = max(1, min(USUAL_DISTANCE, self.total_steps // LEAST_VALIDATIONS))
        every, epoch = self.stage.validate_every_epochs, self.position.epoch
        start = self.position.step - self.position.step_in_epoch
        # Of several epochs only the last is validated, and all of them count.
        if (epoch + 1) % every == 0:
            start -= (every - 1) * count_steps(self.training.split, self.stage.batch)
        return self.position.step // distance > start // distance

    def _validate(self) -> tuple[dict[str, float], float | None]:
        """Return the numbers and the score (higher is better), the same on every worker."""
        if self.validation is None:
            return {}, None
        self.watchdog.begins("validates", limited=False)
        profiling.interrupt()
        distributed.share_buffers(self.objective)
        split = self.validation.split
        predictor = LoopPredictor(
            self.objective,
            self.validation,
            self._share(),
            self.validated_by.evaluation.videos_per_batch,
            self.stage.precision,
        )
        with self.parallel.asked():
            answers = self.evaluator.ask(predictor, split)
        numbers = self.evaluator.validate(answers, split)
        name, direction = self.evaluator.monitor
        numbers |= self._count_not_finite(is_finite(answers))
        self._track("validation", numbers)
        score = numbers[name] if direction == "max" else -numbers[name]
        # What is no number is never the best.
        return numbers, score if math.isfinite(score) else None

    def _count_not_finite(self, finite: np.ndarray) -> dict[str, float]:
        """Return how many predictions are not finite, if there are such.

        Raises:
            NonFiniteLossError: all of them, on every worker.
        """
        bad = int((~finite).sum())
        if not bad:
            return {}
        found = f"{bad} of {len(finite)} predictions of validation are not finite"
        if bad == len(finite):
            raise NonFiniteLossError(
                f"stage {self.stage.name!r}: after step {self.position.step} {found}. Lower "
                "optimizer.lr or optimizer.clip_norm"
            )
        logger.warning("after step %d %s", self.position.step, found)
        return {"not_finite": float(bad)}

    def _track(self, kind: str, numbers: Mapping[str, float]) -> None:
        if self.tracker:
            self.tracker.log(kind, self.position.step, self.position.epoch, numbers)

    def _refuse_non_finite_weights(self) -> None:
        """Write no checkpoint of a model that has diverged in its last step."""
        bad = not_finite(self.parallel.own_weights())
        # Buffers are each worker's own, and parts of parameters.
        if self.meeting.any(bool(bad)):
            raise NonFiniteLossError(
                f"stage {self.stage.name!r}: weights are not finite after step "
                f"{self.position.step}: {bad or 'those of another worker'}. Lower optimizer.lr or "
                "optimizer.clip_norm"
            )

    def _report(self, numbers: Mapping[str, float], *, score: float | None, finished: bool) -> None:
        self._refuse_non_finite_weights()
        profiling.interrupt()
        parts = {group["name"] for group in self.optimizer.param_groups}
        step, name = self.position.step, self.stage.name
        origins = trained(self.origins, parts, name) if step else self.origins
        self.watchdog.begins("hands over a checkpoint", limited=False)
        model, optimizer = self.parallel.whole(self.optimizer, origins)
        content = Content(
            recipe=self.recipe,
            model=model,
            examples=self.prepared.kind.name,
            lexicon=self.prepared.lexicon,
            training_state={"optimizer": optimizer},
            position=self.position,
            score=score,
            finished=finished,
            origins=origins,
        )
        # Ray keeps the best by score; what was not validated has none and stays while newest.
        facts = {
            "score": score if score is not None else -1e30, "step": step,
            VALIDATED: bool(numbers),
        }  # fmt: skip
        self.host.report({**numbers, **facts}, Saver(step, content))


def _seed(*parts: int) -> int:
    """Return a seed that is different for every combination of numbers."""
    return int(np.random.SeedSequence(parts).generate_state(1, np.uint64)[0] >> np.uint64(1))
