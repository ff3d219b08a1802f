"""The recipe: one YAML file that says which data, which model and which training stages.

Reading is strict: unknown keys, wrong types and contradictions are all reported together, with
their path. A recipe reads alone; `key=value` overrides are applied before it is checked.
"""

import copy
import hashlib
import json
import os.path
import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import Discriminator, Field, Tag, create_model, field_validator, model_validator

from msvqa.data.processors import PROCESSORS
from msvqa.data_config import DATA_SET, DataConfig, FoldsConfig
from msvqa.errors import RecipeError, did_you_mean, one_of
from msvqa.models import MODELS
from msvqa.models.encoders import ENCODERS
from msvqa.sections import Config, NamedConfig, Role, apply_overrides, checked, flatten, typed
from msvqa.stage_config import (
    AugmentationConfig,
    BatchConfig,
    CheckpointConfig,
    EvaluationConfig,
    OptimizerConfig,
    OtherEvaluationConfig,
    ScheduleConfig,
    StageConfig,
    ValidateConfig,
)
from msvqa.storage import FeaturesFile, Location, is_remote, join, open_folder
from msvqa.strict_yaml import read_file, write_yaml

__all__ = [
    "AugmentationConfig",
    "BatchConfig",
    "CheckpointConfig",
    "ClipsConfig",
    "DataConfig",
    "EvaluationConfig",
    "FaultsConfig",
    "FeaturesConfig",
    "FoldsConfig",
    "OptimizerConfig",
    "OtherEvaluationConfig",
    "Recipe",
    "ScalingConfig",
    "ScheduleConfig",
    "StageConfig",
    "ValidateConfig",
    "WorkersConfig",
    "differences",
    "load",
    "parse",
    "parse_data",
]

RUN_FOLDERS = ("evaluate", "logs", "tensorboard")  # of a run, and so no names of stages
SPLITS = ("train", "val", "test")
"""What `--split` may mean, and so no names of evaluations, which have their folders beside them."""
NAME, LONGEST_NAME = r"^[A-Za-z0-9][A-Za-z0-9._-]*$", 100
"""What may be the name of a folder."""
STAGES_OWN = ("data", "processor", "folds", "evaluation")
"""Sections that a stage may have of its own."""
READ = ("data", "clips", "features", "processor", "folds")
"""Sections that say what is read."""
ENCODER = Role("encoder", ENCODERS)
Precision = Literal["auto", "float32", "bf16"]
Decoder = Literal["pyav", "decord", "nvdec"]
"""What reads videos: PyAV on the CPU; decord; the decoder of a GPU, where its frames are certain to
be those of PyAV (docs/decoding.md)."""


class ClipsConfig(Config):
    """How a video becomes clips: which frames, at which size, and where they are kept."""

    num_clips: int = Field(default=8, ge=1, le=64)
    frames_per_clip: int = Field(default=16, ge=2, le=64, multiple_of=2)
    size_px: int = Field(default=100, ge=16, le=1024)
    """Height and width of a frame."""
    decoder: Decoder = "pyav"
    """`nvdec` needs a GPU and torchcodec; what it cannot read for certain, PyAV reads."""
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
    precision: Precision = "float32"
    """Number format in which encoders compute. `auto` is bf16 where the machine that extracts gains
    by it and the features stay as they are, else float32; the store keeps what was chosen."""
    compile: bool = False
    """Compile the encoders, which takes a minute or more in every worker: for many videos."""
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
        if any(files) and self.precision != "float32":
            raise ValueError(f"precision: {self.precision} is for encoders, and these are files")
        if any(files) and self.compile:
            raise ValueError("compile: is for encoders, and these are files")
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


class Recipe(Config):
    """One experiment. Made by `load` or `parse`, which fill in the types of the named sections."""

    name: str = Field(pattern=NAME, max_length=LONGEST_NAME)
    seed: int = Field(default=0, ge=0, lt=2**31)
    runs: Location = Field(default="runs", validate_default=True)
    """Folder of all runs, on a disk or in an object store; this one is in `runs/NAME`."""
    data: Annotated[DataConfig, DATA_SET]
    """May be left out where every stage has data of its own."""
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
    evaluations: dict[str, OtherEvaluationConfig] = {}
    """Other data to evaluate on, by name: `msvqa evaluate RUN --on NAME`."""

    @field_validator("evaluations")
    @classmethod
    def _no_splits(
        cls, evaluations: dict[str, OtherEvaluationConfig]
    ) -> dict[str, OtherEvaluationConfig]:
        for name in evaluations:
            if name in SPLITS:
                raise ValueError(f"{name}: that is the name of a split; choose another one")
            if not re.fullmatch(NAME, name) or len(name) > LONGEST_NAME:
                raise ValueError(f"{name!r}: a name has letters, digits, `.`, `_` and `-` alone")
        return evaluations

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
            if self._lacks_clips(stage) and stage.augmentation != AugmentationConfig():
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

    def _lacks_clips(self, stage: StageConfig) -> bool:
        named = stage.processor or self.processor
        return self.features is not None if named is None else named.name != "clips"

    def of_stage(self, number: int) -> "Recipe":
        """Return the recipe of one stage alone: what the stage has of its own is the recipe's."""
        raw = self.to_dict()
        stage = raw["stages"][number]
        for section in STAGES_OWN:
            own, stage[section] = stage[section], None
            raw[section] = raw[section] if own is None else own
        if self.stages[number].processor is not None:
            raw |= NO_PROCESSOR_ELSEWHERE
        return parse(raw | {"stages": [stage]})

    def views(self) -> list["Recipe"]:
        """Return the recipe of each stage alone, see `of_stage`."""
        return [self.of_stage(number) for number in range(len(self.stages))]

    def of_evaluation(self, name: str, number: int = -1) -> "Recipe":
        """Return the recipe of one stage whose data, processor and counting are an evaluation's.

        Raises:
            RecipeError: there is no such evaluation.
        """
        other = self.evaluations.get(name)
        if other is None:
            known = one_of(self.evaluations) if self.evaluations else "none"
            hint = did_you_mean(name, self.evaluations)
            raise RecipeError([f"evaluations: there is no {name!r}{hint}; there are {known}"])
        raw = self.of_stage(number).to_dict()
        if other.data is not None:
            # Folds and stores are those of the data that is trained on.
            raw["folds"] = None
            for section in ("clips", "features", "processor"):
                if raw[section] is not None and "store" in raw[section]:
                    raw[section]["store"] = None
        if other.processor is not None:
            raw |= NO_PROCESSOR_ELSEWHERE
        own = {key: getattr(other, key) for key in ("data", "processor", "evaluation")}
        raw |= {key: value.model_dump(mode="json") for key, value in own.items() if value}
        return parse(raw)

    def validation(self, number: int) -> "Recipe":
        """Return the recipe that a stage is validated by: its own, or that of an evaluation."""
        on = self.stages[number].validate.on
        return self.of_evaluation(on, number) if on in self.evaluations else self.of_stage(number)

    def validations(self) -> list["Recipe"]:
        """Return the recipes of the evaluations that stages are validated on."""
        return [
            self.validation(number)
            for number, stage in enumerate(self.stages)
            if stage.validate.on in self.evaluations
        ]

    @property
    def validated_split(self) -> str:
        """Name of the split that the only stage of this view is validated on."""
        on = self.stages[-1].validate.on
        return self.evaluations[on].split if on in self.evaluations else on

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


NO_PROCESSOR_ELSEWHERE = {"clips": ClipsConfig().model_dump(mode="json"), "features": None}
"""Of the sections that say the processor where no section `processor` does."""


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
    before = copy.deepcopy(raw.get("data"))
    problems = apply_overrides(raw, overrides)
    _move_along(before, raw)
    _fill_in(raw)
    unresolved: dict[str, str] = {}
    recipe: Recipe = checked(typed(Recipe, raw, unresolved), raw, problems, unresolved, source)
    return recipe


def _owners(raw: dict[str, Any]) -> list[dict[str, Any]]:
    """Return the stages and evaluations, which may have sections of their own."""
    stages, evaluations = raw.get("stages"), raw.get("evaluations")
    listed = stages if isinstance(stages, list) else []
    named = evaluations.values() if isinstance(evaluations, dict) else ()
    return [owner for owner in (*listed, *named) if isinstance(owner, dict)]


def _move_along(before: Any, raw: dict[str, Any]) -> None:
    """What an override has changed in the recipe's data is changed in sections that had the same.

    A recipe that was written with all its values names the data of every stage anew.
    """
    now = raw.get("data")
    if not isinstance(before, dict) or not isinstance(now, dict) or now == before:
        return
    changed = {key: value for key, value in now.items() if before.get(key) != value}
    for owner in _owners(raw):
        own = owner.get("data")
        if not isinstance(own, dict) or own.get("name") not in (before.get("name"), now["name"]):
            continue
        own |= {key: value for key, value in changed.items() if own.get(key) == before.get(key)}
        for key in before.keys() - now.keys():
            # A field of the data that were there before.
            if key in own and own[key] == before[key]:
                del own[key]


def _fill_in(raw: dict[str, Any]) -> None:
    """Complete sections of stages and evaluations by the recipe's, and its data by the stages'.

    A section without a name is the recipe's section with other values. Where every stage has data
    of its own, that of the last one stands for all others.
    """
    listed = raw["stages"] if isinstance(raw.get("stages"), list) else []
    for section in ("data", "processor"):
        base = raw.get(section)
        for owner in _owners(raw):
            own = owner.get(section)
            if isinstance(base, dict) and isinstance(own, dict) and "name" not in own:
                owner[section] = _changed(base, own)
    if listed and "data" not in raw:
        own_data = [stage.get("data") if isinstance(stage, dict) else None for stage in listed]
        if all(own_data):
            raw["data"] = own_data[-1]


def _changed(base: Mapping[str, Any], own: Mapping[str, Any]) -> dict[str, Any]:
    """Return a section with changes; what is made of it has a place beside that of the first."""
    changed = {**base, **own}
    said = hashlib.sha256(json.dumps(own, sort_keys=True).encode()).hexdigest()[:8]
    for place in ("prepared", "store"):
        if own and isinstance(base.get(place), str) and place not in own:
            changed[place] = f"{base[place]}-{said}"
    return changed


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


def readers(views: Sequence[Recipe]) -> list[int]:
    """Return the numbers of the stages that read other things than every stage before them."""
    found: dict[str, int] = {}
    for number, view in enumerate(views):
        found.setdefault(view.model_dump_json(include=set(READ)), number)
    return list(found.values())


def differences(old: Recipe, new: Recipe) -> list[str]:
    """Return one line `key: old -> new` for every field in which two recipes differ."""
    before, after = dict(flatten(old.to_dict())), dict(flatten(new.to_dict()))
    absent = "(absent)"
    return [
        f"{key}: {before.get(key, absent)} -> {after.get(key, absent)}"
        for key in {**before, **after}
        if before.get(key, absent) != after.get(key, absent)
    ]
