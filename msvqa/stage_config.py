"""The sections of a recipe about one stage: how long, on what, with which rates, how validated."""

import warnings
from collections.abc import Mapping
from typing import Annotated, Literal

from pydantic import Field, field_validator, model_validator

from msvqa.data.processors import PROCESSORS
from msvqa.data_config import DATA_SET, DataConfig, FoldsConfig
from msvqa.evaluators import EVALUATORS
from msvqa.objectives import OBJECTIVES
from msvqa.sections import Config, NamedConfig, Role, resolve

Rate = Annotated[float, Field(gt=0)]
Decay = Annotated[float, Field(ge=0)]


class EvaluationConfig(Config):
    """How predictions are made and counted."""

    name: str | None = None
    """The evaluator; null: that of the stage's objective."""
    videos_per_batch: int = Field(default=8, ge=1)
    top_k: int = Field(default=5, ge=1)
    count_unknown_as_wrong: bool = True
    """false: predicting the unknown class is right for an unknown answer, as in DualVGR."""
    rerank: int = Field(default=0, ge=0)
    """Of retrieval: so many of the nearest are ordered anew by how well the model finds that they
    match, see the objective's `match`; 0: none."""

    @field_validator("name")
    @classmethod
    def _known(cls, name: str | None) -> str | None:
        if name is not None:
            resolve(name, EVALUATORS, "evaluator")
        return name


class OtherEvaluationConfig(Config):
    """Other data that a model is evaluated on, `msvqa evaluate RUN --on NAME`."""

    data: Annotated[DataConfig | None, DATA_SET] = None
    """null: that of the last stage; without a name: the recipe's with these fields changed."""
    processor: Annotated[NamedConfig | None, Role("processor", PROCESSORS)] = None
    """What becomes of a medium; null: as in the last stage."""
    evaluation: EvaluationConfig | None = None
    """How predictions are made and counted; null: as in the last stage."""
    split: str = "test"
    """Which examples of the data."""


class OptimizerConfig(Config):
    """Adam and its learning rates."""

    name: Literal["adam", "adamw"] = "adam"
    lr: float = Field(default=1e-4, gt=0)
    lr_of: dict[str, Rate] = {}
    """Learning rates of single parts of the model, for example `backbone: 1.0e-5`."""
    betas: tuple[float, float] = (0.9, 0.999)
    eps: float = Field(default=1e-8, gt=0)
    weight_decay: float = Field(default=0.0, ge=0)
    weight_decay_of: dict[str, Decay] = {}
    """Weight decay of single parts of the model."""
    decay_vectors: bool = True
    """false: biases, scales of norms and all other parameters of one axis or none do not decay."""
    layer_decay: float | None = Field(default=None, gt=0, le=1)
    """Multiply the learning rate by this once more for every layer below the top of its part."""
    clip_norm: float | None = Field(default=12.0, gt=0)
    """Largest norm of all gradients together; null switches clipping off."""


class ScheduleConfig(Config):
    """How the learning rate changes."""

    name: Literal["constant", "step", "cosine", "linear"] = "constant"
    every_epochs: int = Field(default=10, ge=1)
    """`step`: multiply by `factor` after every so many epochs."""
    factor: float = Field(default=0.5, gt=0, le=1)
    warmup_steps: int = Field(default=0, ge=0)
    """The rate rises to its full height over so many steps, whatever follows."""
    warmup_epochs: float = Field(default=0.0, ge=0)
    """The same in epochs, also parts of one."""
    rise: Literal["between", "from_zero", "whole"] = "between"
    """The first and the last of n warm-up steps: `between` (1 and n of n + 1 parts of the rate, so
    that no step is for nothing), `from_zero` (0 and n - 1 of n), `whole` (0 and all of it)."""
    least_factor: float = Field(default=0.0, ge=0, le=1)
    """No step has less than this part of the rate, also in the warm-up."""
    length_steps: int | None = Field(default=None, ge=1)
    """`cosine` and `linear`: the step that has the last rate; null: the last of the stage. A stage
    that ends before stays above that rate, one that ends after stays at it."""
    final_factor: float = Field(default=0.0, ge=0, le=1)
    """`cosine` and `linear`: the last learning rate as a part of the first."""

    @model_validator(mode="after")
    def _one_warmup(self) -> "ScheduleConfig":
        if self.warmup_steps and self.warmup_epochs:
            raise ValueError("give either warmup_steps or warmup_epochs")
        return self


class BatchConfig(Config):
    """The global batch, over all workers together.

    Questions come grouped by video, `videos` visits x `questions_per_video`; other kinds of
    examples one by one, `examples` of them.
    """

    videos: int = Field(default=8, ge=1)
    questions_per_video: int = Field(default=1, ge=1)
    """1 is plain shuffling of questions."""
    examples: int | None = Field(default=None, ge=1)
    """null: as many as `videos` says."""
    streams: Literal["mixed", "apart"] = "mixed"
    """`apart`: every step is of images alone, of texts alone or of all else alone, in a random
    order of steps. Questions, which come grouped by video, stay as they are."""
    by_length: bool = False
    """Put examples with texts of like length into one batch, so that less padding is computed; each
    epoch in another way. Only of conversations."""
    accumulate: int = Field(default=1, ge=1)
    """Split each worker's part into this many passes whose gradients add up."""

    @property
    def lanes(self) -> int:
        """Visits of a step, over all workers together."""
        return self.examples or self.videos


class AugmentationConfig(Config):
    """Random changes of the training clips, other ones in every step; for models that see pixels.

    Clips are neither mirrored nor turned, nor played backwards: answers would become wrong.
    """

    shift: float = Field(default=0.0, ge=0, le=0.5)
    """Move a video by at most this part of its height and width; its border fills the gap."""
    zoom: float = Field(default=0.0, ge=0, le=0.5)
    """Enlarge or shrink a video by at most this part."""


class CheckpointConfig(Config):
    """When checkpoints are written and how many stay."""

    every_steps: int | None = Field(default=None, ge=1)
    """Also within an epoch; an epoch that is validated ends with one in any case."""
    keep: int = Field(default=2, ge=1)
    """The best so many stay; the newest always does."""


class ValidateConfig(Config):
    """On what a stage is validated, and how often."""

    on: str = "val"
    """A split of the stage's data, or one of the recipe's `evaluations`."""
    every_steps: int | None = Field(default=None, ge=1)
    """Validate after every so many steps of the stage, and at its end; null: at ends of epochs."""
    at_start: bool = False
    """Validate before the first step too."""


# The name of a method that pydantic has given up.
warnings.filterwarnings("ignore", message='Field name "validate" in "StageConfig" shadows')


class StageConfig(Config):
    """One training phase."""

    name: str = Field(pattern=r"^[a-z][a-z0-9_]*$")
    objective: Annotated[NamedConfig, Role("objective", OBJECTIVES)]
    epochs: int | None = Field(default=None, ge=1)
    steps: int | None = Field(default=None, ge=1)
    """Length of the stage in optimizer steps instead of epochs."""
    init_from: str | None = None
    """Weights to start from: an earlier stage of this recipe, a checkpoint or a run folder."""
    parts: dict[str, Literal["trained", "frozen", "absent"]] = {}
    """What becomes of parts of the model: by default they are trained. `frozen` ones stay as
    they are, `absent` ones are not even built."""
    fresh: tuple[str, ...] = ()
    """Parts that the starting checkpoint may lack: they start as at birth, from weight files or
    chance. All others must be there."""
    data: Annotated[DataConfig | None, DATA_SET] = None
    """Data of this stage alone; null: the recipe's; without `name`: that with these changes."""
    processor: Annotated[NamedConfig | None, Role("processor", PROCESSORS)] = None
    """What becomes of a medium in this stage; null: as the recipe says; without `name`: that with
    these changes."""
    folds: FoldsConfig | None = None
    """Folds of this stage alone; null: the recipe's."""
    evaluation: EvaluationConfig | None = None
    """How predictions of this stage are made and counted; null: as the recipe says."""
    patience_epochs: int | None = Field(default=None, ge=1)
    """Stop when the validation metric has not improved for so many epochs that were validated;
    with `validate.every_steps`, for so many validations."""
    batch: BatchConfig = BatchConfig()
    augmentation: AugmentationConfig = AugmentationConfig()
    optimizer: OptimizerConfig = OptimizerConfig()
    schedule: ScheduleConfig = ScheduleConfig()
    schedule_of: dict[str, ScheduleConfig] = {}
    """Schedules of single parts of the model."""
    precision: Literal["fp32", "bf16"] = "fp32"
    channels_last: bool = True
    compile: bool = False
    """Compile the steps of training: faster by a part after minutes, the last digits differ. What
    validates and answers is not compiled, and checkpoints are the same."""
    sharding: Literal["ddp", "fsdp"] = "ddp"
    """`ddp`: every worker has the whole model. `fsdp`: each has a part of every parameter, gradient
    and moment, for models that no GPU has room for; they are put together layer by layer, and whole
    for a validation."""
    sync_batch_norm: bool = False
    """Batch norm over the batches of all workers together."""
    validate: ValidateConfig = ValidateConfig()  # type: ignore[assignment]
    select: Literal["best", "last"] = "best"
    """Which checkpoint is the result of the stage: by its validations, or simply the last."""
    validate_every_epochs: int = Field(default=1, ge=1)
    least_steps_between_validations: int | None = Field(default=None, ge=1)
    """Epochs that end sooner after the last validation have neither one nor a checkpoint; the end
    of the stage always has both. null: 20, but at most a twentieth of the stage."""
    log_every_steps: int = Field(default=10, ge=1)
    checkpoint: CheckpointConfig = CheckpointConfig()

    @model_validator(mode="after")
    def _one_length(self) -> "StageConfig":
        if (self.epochs is None) == (self.steps is None):
            raise ValueError("give either epochs or steps")
        return self

    @model_validator(mode="after")
    def _consistent(self) -> "StageConfig":
        if self.compile and self.sharding == "fsdp":
            raise ValueError("compile: of a model in parts (sharding: fsdp) nothing is compiled")
        if self.fresh and self.init_from is None:
            raise ValueError("fresh: without init_from all parts start as at birth")
        rates: dict[str, Mapping[str, object]] = {
            "optimizer.lr_of": self.optimizer.lr_of,
            "optimizer.weight_decay_of": self.optimizer.weight_decay_of,
            "schedule_of": self.schedule_of,
        }
        for key, named in rates.items():
            for part in named:
                if self.parts.get(part, "trained") != "trained":
                    raise ValueError(f"{key}.{part}: parts.{part} is {self.parts[part]}")
        for part in self.fresh:
            if part in self.absent:
                raise ValueError(f"fresh: parts.{part} is absent")
        if self.validate.every_steps and self.validate_every_epochs != 1:
            raise ValueError("give either validate.every_steps or validate_every_epochs")
        return self

    @property
    def absent(self) -> tuple[str, ...]:
        """The parts that are not built."""
        return tuple(name for name, state in self.parts.items() if state == "absent")

    @property
    def frozen(self) -> tuple[str, ...]:
        """The parts that stay as they are."""
        return tuple(name for name, state in self.parts.items() if state == "frozen")
