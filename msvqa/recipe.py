"""The recipe: one YAML file that says which data, which model and which training stages.

Reading is strict: unknown keys, wrong types and contradictions are all reported together, with
their path. A recipe reads alone; `key=value` overrides are applied before it is checked.
"""

import json
import os.path
from collections.abc import Sequence
from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import BeforeValidator, Discriminator, Field, Tag, create_model, model_validator

from msvqa.data import DATASETS
from msvqa.data.processors import PROCESSORS
from msvqa.errors import RecipeError, one_of
from msvqa.models import MODELS
from msvqa.models.encoders import ENCODERS
from msvqa.objectives import OBJECTIVES
from msvqa.sections import Config, NamedConfig, Role, apply_overrides, checked, flatten, typed
from msvqa.storage import FeaturesFile, Location, WordVectorsFile, is_remote, join, open_folder
from msvqa.strict_yaml import read_file, write_yaml

RUN_FOLDERS = ("evaluate", "logs", "tensorboard")  # of a run, and so no names of stages
DATA_SET = Role("data set", DATASETS)
ENCODER = Role("encoder", ENCODERS)


def _number_as_text(value: object) -> object:
    return str(value) if type(value) is int else value


VideoId = Annotated[str, BeforeValidator(_number_as_text)]
"""The id of a video; in YAML one that is a number needs no quotation marks."""


class DataConfig(NamedConfig):
    """Fields that every data set has."""

    root: Location
    """Folder with the videos and annotations."""
    prepared: Location | None = None
    """Folder for the manifest and vocabulary; by default `prepared/NAME-<id of root>`."""
    allow_missing: bool = False
    """Go on when videos of the annotations are missing or unreadable."""
    follow_links: bool = False
    """Follow links inside the data root that lead out of it, as to another disk."""
    shared_videos: tuple[VideoId, ...] = ()
    """Videos that may be in more than one split, by id; `train+val` allows all these two share."""
    equal_videos: Literal["warn", "refuse"] = "warn"
    """What becomes of files with other names that are the same byte for byte, in two splits. Of
    published data sets nobody can choose the splits anew; what is said names the videos."""
    answer_top: int = Field(default=4000, ge=1)
    """Keep this many of the most frequent training answers as classes."""
    word_vectors: WordVectorsFile | None = None
    """Text file of GloVe, word2vec or fastText, plain, .gz or .zip; random vectors where none is
    given."""
    word_size: int = Field(default=300, ge=1)
    """Width of the word vectors."""


class ClipsConfig(Config):
    """How a video becomes clips: which frames, at which size, and where they are kept."""

    num_clips: int = Field(default=8, ge=1, le=64)
    frames_per_clip: int = Field(default=16, ge=2, le=64, multiple_of=2)
    size_px: int = Field(default=100, ge=16, le=1024)
    """Height and width of a frame."""
    decoder: Literal["pyav", "decord"] = "pyav"
    cache: Literal["store", "none"] = "store"
    """`store` extracts every video once; `none` decodes while training runs."""
    store: Location | None = None
    """Folder of the clip store; by default inside the prepared folder."""
    timeout_s: float = Field(default=60.0, gt=0)
    """Longest time for decoding one video; as much is given to reading it first, for its hash."""


class FeaturesConfig(Config):
    """Features of frozen encoders instead of pixels: extracted by us, or read from HDF5 files."""

    appearance: Annotated[NamedConfig | None, ENCODER] = None
    """Encoder of frames; a section named after one of the encoders."""
    motion: Annotated[NamedConfig | None, ENCODER] = None
    """Encoder of clips; a section named after one of the encoders."""
    appearance_px: int = Field(default=224, ge=16, le=1024)
    motion_px: int = Field(default=112, ge=16, le=1024)
    appearance_hdf5: FeaturesFile | None = None
    """File with `resnet_features` (videos, clips, frames, width) and `ids`."""
    motion_hdf5: FeaturesFile | None = None
    """File with `resnext_features` (videos, clips, width) and `ids`."""
    appearance_width: int = Field(default=2048, ge=1)
    motion_width: int = Field(default=2048, ge=1)
    pool_motion: bool = False
    """Average an unpooled motion map (width x positions) over its positions."""
    dtype: Literal["float16", "float32"] = "float16"
    resident: Literal["none", "device"] = "none"
    """`device` copies the features of a split to the GPU once, and batches carry row numbers only.
    Without a GPU nothing changes: all workers of a machine map the same store into memory."""
    store: Location | None = None
    """Folder of the feature store; by default inside the prepared folder."""

    @model_validator(mode="after")
    def _one_source(self) -> "FeaturesConfig":
        encoders = (self.appearance is not None, self.motion is not None)
        files = (self.appearance_hdf5 is not None, self.motion_hdf5 is not None)
        if any(encoders) == any(files):
            raise ValueError(
                "name either encoders (appearance, motion) or files (appearance_hdf5, motion_hdf5)"
            )
        if any(encoders) != all(encoders) or any(files) != all(files):
            raise ValueError("appearance and motion go together")
        return self


class OptimizerConfig(Config):
    """Adam and its learning rates."""

    name: Literal["adam", "adamw"] = "adam"
    lr: float = Field(default=1e-4, gt=0)
    lr_of: dict[str, float] = {}
    """Learning rates of single parameter groups, for example `backbone: 1.0e-5`."""
    betas: tuple[float, float] = (0.9, 0.999)
    eps: float = Field(default=1e-8, gt=0)
    weight_decay: float = Field(default=0.0, ge=0)
    clip_norm: float | None = Field(default=12.0, gt=0)
    """Largest norm of all gradients together; null switches clipping off."""


class ScheduleConfig(Config):
    """How the learning rate changes."""

    name: Literal["constant", "step", "cosine"] = "constant"
    every_epochs: int = Field(default=10, ge=1)
    """`step`: multiply by `factor` after every so many epochs."""
    factor: float = Field(default=0.5, gt=0, le=1)
    warmup_steps: int = Field(default=0, ge=0)
    final_factor: float = Field(default=0.0, ge=0, le=1)
    """`cosine`: the last learning rate as a part of the first."""


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
    """`apart`: every step is of videos alone or of images alone, in a random order of steps."""
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


class StageConfig(Config):
    """One training phase."""

    name: str = Field(pattern=r"^[a-z][a-z0-9_]*$")
    objective: Annotated[NamedConfig, Role("objective", OBJECTIVES)]
    epochs: int | None = Field(default=None, ge=1)
    steps: int | None = Field(default=None, ge=1)
    """Length of the stage in optimizer steps instead of epochs."""
    init_from: str | None = None
    """Weights to start from: an earlier stage of this recipe, a checkpoint or a run folder."""
    patience_epochs: int | None = Field(default=None, ge=1)
    """Stop when the validation metric has not improved for so many epochs that were validated."""
    batch: BatchConfig = BatchConfig()
    augmentation: AugmentationConfig = AugmentationConfig()
    optimizer: OptimizerConfig = OptimizerConfig()
    schedule: ScheduleConfig = ScheduleConfig()
    precision: Literal["fp32", "bf16"] = "fp32"
    channels_last: bool = True
    sync_batch_norm: bool = False
    """Batch norm over the batches of all workers together."""
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


class WorkersConfig(Config):
    """As many workers as there is room for, between two numbers, while nodes come and go."""

    min: int = Field(ge=1)
    max: int = Field(ge=1)

    @model_validator(mode="after")
    def _in_order(self) -> "WorkersConfig":
        if self.min > self.max:
            raise ValueError(f"min {self.min} is above max {self.max}")
        return self


def _kind_of_workers(value: object) -> str:
    return "<range>" if isinstance(value, (dict, WorkersConfig)) else "<number>"


Workers = Annotated[
    Annotated[int, Field(ge=1), Tag("<number>")] | Annotated[WorkersConfig, Tag("<range>")],
    Discriminator(_kind_of_workers),
]
"""A number of workers, or the section `{min, max}`."""


class ScalingConfig(Config):
    """What every training stage asks of the cluster."""

    workers: Workers = 1
    """A number: training waits until so many find a place. `{min: M, max: N}`: it goes on with what
    is left when a node is lost, and takes in nodes that come."""
    look_for_nodes_s: float = Field(default=60.0, gt=0)
    """With a range of workers: how often to look for nodes that came. To take one in, all workers
    start again from the last checkpoint."""
    gpus_per_worker: float | None = Field(default=None, ge=0)
    """null: the GPUs there are, shared evenly; 0: none."""
    cpus_per_worker: float = Field(default=1.0, gt=0)
    data_workers: int | None = Field(default=None, ge=1)
    """Processes that decode and extract; by default one for every CPU."""

    @property
    def worker_counts(self) -> range:
        """The numbers of workers that may train."""
        if isinstance(self.workers, WorkersConfig):
            return range(self.workers.min, self.workers.max + 1)
        return range(self.workers, self.workers + 1)


class FaultsConfig(Config):
    """What happens when something fails while training runs."""

    max_failures: int = Field(default=2, ge=-1)
    """Deaths of workers put up with in a stage, each resumed from the last checkpoint; -1: any."""
    damaged_checkpoint: Literal["stop", "previous"] = "stop"
    """`stop` refuses a damaged checkpoint by name; `previous` takes the whole one before it."""
    storage_wait_s: float = Field(default=60.0, ge=0)
    """How long writing a checkpoint is tried again when the disk is full or away."""
    watchdog_s: float | None = Field(default=None, gt=0)
    """A step that takes longer: all stacks go to the run's logs, and who is missing is named."""


class EvaluationConfig(Config):
    """How predictions are made and counted."""

    videos_per_batch: int = Field(default=8, ge=1)
    top_k: int = Field(default=5, ge=1)
    count_unknown_as_wrong: bool = True
    """false: predicting the unknown class is right for an unknown answer, as in DualVGR."""


class FoldsConfig(Config):
    """Cross-validation: the videos of train and val together are dealt to so many parts."""

    count: int = Field(default=5, ge=2, le=100)
    index: int = Field(ge=0)
    """The part that takes the place of val; the others are train. test stays as it is."""

    @model_validator(mode="after")
    def _one_of_them(self) -> "FoldsConfig":
        if self.index >= self.count:
            raise ValueError(f"index {self.index} is not below count {self.count}")
        return self


class Recipe(Config):
    """One experiment. Made by `load` or `parse`, which fill in the types of the named sections."""

    name: str = Field(pattern=r"^[A-Za-z0-9][A-Za-z0-9._-]*$", max_length=100)
    seed: int = Field(default=0, ge=0, lt=2**31)
    runs: Location = Field(default="runs", validate_default=True)
    """Folder of all runs, on a disk or in an object store; this one is in `runs/NAME`."""
    data: Annotated[DataConfig, DATA_SET]
    clips: ClipsConfig = ClipsConfig()
    features: FeaturesConfig | None = None
    processor: Annotated[NamedConfig | None, Role("processor", PROCESSORS)] = None
    """What becomes of a medium; null: `features` where that section is given, else `clips`."""
    folds: FoldsConfig | None = None
    """null: train and val as the data set has them."""
    model: Annotated[NamedConfig, Role("model", MODELS)]
    stages: tuple[StageConfig, ...]
    scaling: ScalingConfig = ScalingConfig()
    faults: FaultsConfig = FaultsConfig()
    evaluation: EvaluationConfig = EvaluationConfig()

    @model_validator(mode="after")
    def _stages_in_order(self) -> "Recipe":
        names = [stage.name for stage in self.stages]
        if not names:
            raise ValueError("stages: at least one stage is needed")
        if len(set(names)) < len(names):
            raise ValueError(f"two stages have the same name: {one_of(names)}")
        for position, stage in enumerate(self.stages):
            if stage.name in RUN_FOLDERS:
                raise ValueError(f"stages.{position}.name: a run has a folder {stage.name!r}")
            if self._lacks_clips and stage.augmentation != AugmentationConfig():
                where = f"stages.{position}.augmentation"
                what = "features" if self.features else "another processor"
                raise ValueError(f"{where}: it needs pixels, and the recipe has {what}")
            if stage.init_from in names[position:]:
                where = f"stages.{position}.init_from"
                raise ValueError(f"{where}: {stage.init_from!r} is not before {stage.name!r}")
        return self

    @model_validator(mode="after")
    def _one_processor(self) -> "Recipe":
        if self.processor is None:
            return self
        for section, fields in (("clips", self.clips), ("features", self.features)):
            if fields not in (None, ClipsConfig()):
                raise ValueError(f"{section}: put its fields into the section processor")
        return self

    @property
    def _lacks_clips(self) -> bool:
        named = self.processor is not None and self.processor.name != "clips"
        return named or self.features is not None

    @property
    def run_location(self) -> str:
        """Folder of this experiment's results."""
        return join(self.runs, self.name)

    def to_dict(self) -> dict[str, Any]:
        """Return the recipe as plain data; `parse` reads it back."""
        return self.model_dump(mode="json")

    def to_yaml(self, *, ascii_only: bool = False) -> str:
        """Return the recipe as YAML with every default written out."""
        return write_yaml(self.to_dict(), ascii_only=ascii_only)


def load(path: str | Path, overrides: Sequence[str] = ()) -> Recipe:
    """Read a recipe file, apply `key=value` overrides and check everything.

    Raises:
        RecipeError: lists every problem with its path.
    """
    folder, name = os.path.split(str(path))
    file = open_folder(folder).get(name) if is_remote(path) else Path(path)
    return parse(read_file(file), overrides, str(path))


def parse(raw: Any, overrides: Sequence[str] = (), source: str = "recipe") -> Recipe:
    """Check plain data (as from `Recipe.to_dict`) and return the typed recipe.

    Raises:
        RecipeError: lists every problem with its path.
    """
    if not isinstance(raw, dict):
        raise RecipeError(
            ["a recipe is a mapping with the keys " + one_of(Recipe.model_fields)], source
        )
    raw = json.loads(json.dumps(raw, default=str))
    problems = apply_overrides(raw, overrides)
    unresolved: dict[str, str] = {}
    recipe: Recipe = checked(typed(Recipe, raw, unresolved), raw, problems, unresolved, source)
    return recipe


def parse_data(name: str, overrides: Sequence[str] = (), **fields: Any) -> DataConfig:
    """Check the `data` section of a recipe alone, for preparing a data set without a recipe.

    Raises:
        RecipeError: lists every problem with its path.
    """
    raw = {"data": {"name": name, **fields}}
    # As in a recipe, for who copies an override from a message.
    keys = [override.removeprefix("data.") for override in overrides]
    problems = apply_overrides(raw["data"], keys)
    unresolved: dict[str, str] = {}
    kind = create_model("Section", __base__=Config, data=(Annotated[DataConfig, DATA_SET], ...))
    config: DataConfig = checked(typed(kind, raw, unresolved), raw, problems, unresolved, name).data
    return config


def differences(old: Recipe, new: Recipe) -> list[str]:
    """Return one line `key: old -> new` for every field in which two recipes differ."""
    before, after = dict(flatten(old.to_dict())), dict(flatten(new.to_dict()))
    absent = "(absent)"
    return [
        f"{key}: {before.get(key, absent)} -> {after.get(key, absent)}"
        for key in {**before, **after}
        if before.get(key, absent) != after.get(key, absent)
    ]
