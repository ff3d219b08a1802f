"""The recipe: one YAML file that says which data, which model and which training stages.

Reading is strict: unknown keys, wrong types and contradictions are all reported together, with
their path. A recipe reads alone; `key=value` overrides are applied before it is checked.
"""

import importlib
import json
import os.path
import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Annotated, Any, Literal, Union, get_args, get_origin

import yaml
from pydantic import (
    BaseModel,
    ConfigDict,
    Discriminator,
    Field,
    Tag,
    ValidationError,
    create_model,
    model_validator,
)
from pydantic_core import ErrorDetails

from msvqa.data import DATASETS
from msvqa.errors import RecipeError, did_you_mean, one_of
from msvqa.models import MODELS
from msvqa.models.encoders import ENCODERS
from msvqa.objectives import OBJECTIVES
from msvqa.storage import DiskPath, Location, is_remote, join, open_folder
from msvqa.strict_yaml import read_file, read_yaml

RUN_FOLDERS = ("evaluate", "logs", "tensorboard")  # of a run, and so no names of stages


class Config(BaseModel):
    """Base of every section: immutable, strict about types and unknown keys."""

    model_config = ConfigDict(
        extra="forbid",
        frozen=True,
        strict=True,
        use_attribute_docstrings=True,
        allow_inf_nan=False,
        protected_namespaces=(),
    )


class NamedConfig(Config):
    """A section whose `name` says which class reads it."""

    name: str


class DataConfig(NamedConfig):
    """Fields that every data set has."""

    root: Location
    """Folder with the videos and annotations."""
    prepared: Location | None = None
    """Folder for the manifest and vocabulary; by default `prepared/NAME-<id of root>`."""
    allow_missing: bool = False
    """Go on when videos of the annotations are missing or unreadable."""
    answer_top: int = Field(default=4000, ge=1)
    """Keep this many of the most frequent training answers as classes."""
    word_vectors: DiskPath | None = None
    """GloVe text file (.txt, .gz or .zip); random vectors where none is given."""
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

    appearance: NamedConfig | None = None
    """Encoder of frames; a section named after one of the encoders."""
    motion: NamedConfig | None = None
    """Encoder of clips; a section named after one of the encoders."""
    appearance_px: int = Field(default=224, ge=16, le=1024)
    motion_px: int = Field(default=112, ge=16, le=1024)
    appearance_hdf5: DiskPath | None = None
    """File with `resnet_features` (videos, clips, frames, width) and `ids`."""
    motion_hdf5: DiskPath | None = None
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
    """The global batch, over all workers together: `videos` visits x `questions_per_video`."""

    videos: int = Field(default=8, ge=1)
    questions_per_video: int = Field(default=1, ge=1)
    """1 is plain shuffling of questions."""
    accumulate: int = Field(default=1, ge=1)
    """Split each worker's part into this many passes whose gradients add up."""


class CheckpointConfig(Config):
    """When checkpoints are written and how many stay."""

    every_steps: int | None = Field(default=None, ge=1)
    """Also within an epoch; every epoch ends with one in any case."""
    keep: int = Field(default=2, ge=1)
    """The best so many stay; the newest always does."""


class StageConfig(Config):
    """One training phase."""

    name: str = Field(pattern=r"^[a-z][a-z0-9_]*$")
    objective: NamedConfig
    epochs: int | None = Field(default=None, ge=1)
    steps: int | None = Field(default=None, ge=1)
    """Length of the stage in optimizer steps instead of epochs."""
    init_from: str | None = None
    """Weights to start from: an earlier stage of this recipe, a checkpoint or a run folder."""
    patience_epochs: int | None = Field(default=None, ge=1)
    """Stop when the validation metric has not improved for so many epochs."""
    batch: BatchConfig = BatchConfig()
    optimizer: OptimizerConfig = OptimizerConfig()
    schedule: ScheduleConfig = ScheduleConfig()
    precision: Literal["fp32", "bf16"] = "fp32"
    channels_last: bool = True
    sync_batch_norm: bool = False
    """Batch norm over the batches of all workers together."""
    validate_every_epochs: int = Field(default=1, ge=1)
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
    data: DataConfig
    clips: ClipsConfig = ClipsConfig()
    features: FeaturesConfig | None = None
    folds: FoldsConfig | None = None
    """null: train and val as the data set has them."""
    model: NamedConfig
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
            if stage.init_from in names[position:]:
                where = f"stages.{position}.init_from"
                raise ValueError(f"{where}: {stage.init_from!r} is not before {stage.name!r}")
        return self

    @property
    def reads_videos(self) -> bool:
        """Whether video files are needed; not where the features come from HDF5 files."""
        return self.features is None or self.features.appearance_hdf5 is None

    @property
    def run_location(self) -> str:
        """Folder of this experiment's results."""
        return join(self.runs, self.name)

    def to_dict(self) -> dict[str, Any]:
        """Return the recipe as plain data; `parse` reads it back."""
        return self.model_dump(mode="json")

    def to_yaml(self) -> str:
        """Return the recipe as YAML with every default written out."""
        return yaml.safe_dump(self.to_dict(), sort_keys=False, allow_unicode=True, width=110)


_ROLES: dict[str, tuple[Mapping[str, str], type[NamedConfig]]] = {
    "data set": (DATASETS, DataConfig),
    "model": (MODELS, NamedConfig),
    "objective": (OBJECTIVES, NamedConfig),
    "encoder": (ENCODERS, NamedConfig),
}
"""Where the name of a section is looked up, and the fields that the section has in any case."""


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
    problems = _apply_overrides(raw, overrides)
    recipe_class, unresolved = _typed_recipe(raw)
    recipe: Recipe = checked(recipe_class, raw, problems, unresolved, source)
    return recipe


def parse_data(name: str, overrides: Sequence[str] = (), **fields: Any) -> DataConfig:
    """Check the `data` section of a recipe alone, for preparing a data set without a recipe.

    Raises:
        RecipeError: lists every problem with its path.
    """
    raw = {"data": {"name": name, **fields}}
    problems = _apply_overrides(raw["data"], overrides)
    unresolved: dict[str, str] = {}
    data_type = _config_of(raw["data"], "data", "data set", unresolved)
    section = create_model("Section", __base__=Config, data=(data_type, ...))
    config: DataConfig = checked(section, raw, problems, unresolved, name).data
    return config


def checked(
    kind: Any, raw: Any, problems: list[str], unresolved: Mapping[str, str], source: str
) -> Any:
    """Return `raw` as an instance of `kind`, or raise with old and new problems."""
    problems = problems + [f"{place}: {problem}" for place, problem in unresolved.items()]
    checked = None
    try:
        checked = kind.model_validate_json(json.dumps(raw))
    except ValidationError as error:
        found = error.errors(include_url=False)
        problems += [
            _explain(detail, kind) for detail in found if not _is_below(detail, unresolved)
        ]
    if problems:
        raise RecipeError(problems, source)
    return checked


def differences(old: Recipe, new: Recipe) -> list[str]:
    """Return one line `key: old -> new` for every field in which two recipes differ."""
    before, after = dict(flatten(old.to_dict())), dict(flatten(new.to_dict()))
    absent = "(absent)"
    return [
        f"{key}: {before.get(key, absent)} -> {after.get(key, absent)}"
        for key in {**before, **after}
        if before.get(key, absent) != after.get(key, absent)
    ]


def resolve(name: str, table: Mapping[str, str], kind: str) -> Any:
    """Return the class of a name in the table, or of a dotted path `package.module:Class`.

    Raises:
        ValueError: no such name, or the path cannot be imported.
    """
    target = table.get(name, name if ":" in name else None)
    if target is None:
        hint = did_you_mean(name, table)
        raise ValueError(f"unknown {kind} {name!r}{hint}; known: {one_of(table)}")
    module, _, attribute = target.partition(":")
    try:
        return getattr(importlib.import_module(module), attribute)
    except (ImportError, AttributeError) as error:
        raise ValueError(f"{kind} {name!r} cannot be imported: {error}") from error


def _apply_overrides(raw: dict[str, Any], overrides: Sequence[str]) -> list[str]:
    problems = []
    for override in overrides:
        key, equals, text = override.partition("=")
        if not equals or not key:
            problems.append(f"override {override!r} is not of the form key=value")
            continue
        try:
            _set(raw, key.split("."), read_yaml(text, override))
        except (KeyError, RecipeError) as error:
            place = key if isinstance(error, KeyError) else override
            problems.append(f"override {place!r}: {error.args[0]}")
    return problems


def _set(node: Any, keys: list[str], value: Any) -> None:
    """Put a value at a path; a list element is named by its number or by the `name` inside it."""
    for depth, key in enumerate(keys):
        last = depth == len(keys) - 1
        if isinstance(node, list):
            names = [str(item.get("name")) if isinstance(item, dict) else "" for item in node]
            position = (
                int(key) if key.isdigit() else names.index(key) if key in names else len(node)
            )
            if position >= len(node):
                known = ", ".join(f"{n} or {name}" for n, name in enumerate(names))
                raise KeyError(f"there is no {'.'.join(keys[: depth + 1])}; there are {known}")
            key = position  # type: ignore[assignment]
        elif not isinstance(node, dict):
            raise KeyError(f"{'.'.join(keys[:depth])} is not a section")
        if last:
            node[key] = value
        elif isinstance(node, dict) and not isinstance(node.get(key), (dict, list)):
            node[key] = {}
        node = node[key]


def _typed_recipe(raw: dict[str, Any]) -> tuple[type[Recipe], dict[str, str]]:
    """Return `Recipe` with the types that its names stand for, and the names without a meaning."""
    unresolved: dict[str, str] = {}
    stages = raw.get("stages")
    stage_types = tuple(
        _with_types(
            StageConfig,
            objective=_config_of(
                stage.get("objective") if isinstance(stage, dict) else None,
                f"stages.{n}.objective",
                "objective",
                unresolved,
            ),
        )
        for n, stage in enumerate(stages if isinstance(stages, list) else [])
    )
    types: dict[str, Any] = {
        "data": _config_of(raw.get("data"), "data", "data set", unresolved),
        "model": _config_of(raw.get("model"), "model", "model", unresolved),
    }
    if stage_types:
        types["stages"] = tuple[stage_types]  # type: ignore[valid-type]
    features = raw.get("features")
    if isinstance(features, dict):
        encoders = {
            part: _config_of(features.get(part), f"features.{part}", "encoder", unresolved) | None
            for part in ("appearance", "motion")
        }
        types["features"] = _with_types(FeaturesConfig, **encoders)
    return _with_types(Recipe, **types), unresolved


def _config_of(section: Any, place: str, role: str, unresolved: dict[str, str]) -> Any:
    """Return the type of a named section; a name without a meaning is noted in `unresolved`."""
    table, base = _ROLES[role]
    if not isinstance(section, dict) or not isinstance(section.get("name"), str):
        return base
    try:
        return resolve(section["name"], table, role).Config
    except (ValueError, AttributeError) as error:
        unresolved[f"{place}.name"] = str(error)
        return base


def _with_types(base: Any, **types: Any) -> Any:
    fields: dict[str, Any] = {name: (kind, base.model_fields[name]) for name, kind in types.items()}
    return create_model(base.__name__, __base__=base, **fields)


def _is_below(detail: ErrorDetails, unresolved: Mapping[str, str]) -> bool:
    """Whether an error follows only from a name that stands for nothing."""
    place = ".".join(str(part) for part in detail["loc"])
    return any(place.startswith(name.removesuffix("name")) for name in unresolved)


def _explain(detail: ErrorDetails, recipe_class: type[BaseModel]) -> str:
    # The tag of a union's member is no key.
    location = tuple(part for part in detail["loc"] if not str(part).startswith("<"))
    place = ".".join(str(part) for part in location)
    if detail["type"] == "extra_forbidden":
        known = _keys_at(recipe_class, location[:-1])
        hint = did_you_mean(str(location[-1]), known)
        return f"{place}: unknown key{hint}; allowed here: {one_of(known)}"
    if detail["type"] == "missing":
        return f"{place}: is missing"
    message = detail["msg"].removeprefix("Value error, ")
    if detail["type"] == "literal_error":
        allowed = re.findall(r"'([^']*)'", detail.get("ctx", {}).get("expected", ""))
        message += did_you_mean(str(detail["input"]), allowed)
    if detail["type"] == "value_error":
        return f"{place}: {message}" if place else message
    return f"{place}: {message} (got {detail['input']!r})"


def _keys_at(kind: Any, location: Sequence[int | str]) -> list[str]:
    """Return the keys that a section allows, following a path through nested types."""
    for part in location:
        kind = _inner(kind, lambda t: hasattr(t, "model_fields") or get_origin(t) is tuple)
        if get_origin(kind) is tuple and isinstance(part, int):
            kind = get_args(kind)[min(part, len(get_args(kind)) - 1)]
        elif get_origin(kind) in (dict, Mapping):
            kind = get_args(kind)[1]
        elif hasattr(kind, "model_fields") and part in kind.model_fields:
            kind = kind.model_fields[part].annotation
    kind = _inner(kind, lambda t: hasattr(t, "model_fields"))
    return list(getattr(kind, "model_fields", {}))


def _inner(kind: Any, wanted: Callable[[Any], bool]) -> Any:
    """Return the wanted member of a union such as `X | None`, or the type itself."""
    if get_origin(kind) is Union or type(kind).__name__ == "UnionType":
        return next((member for member in get_args(kind) if wanted(member)), kind)
    return kind


def flatten(value: Any, prefix: str = "") -> Iterator[tuple[str, Any]]:
    """Yield every leaf of nested plain data with its dotted key."""
    if isinstance(value, dict) and value:
        for key, inner in value.items():
            yield from flatten(inner, f"{prefix}.{key}" if prefix else str(key))
    elif isinstance(value, list) and value:
        for position, inner in enumerate(value):
            yield from flatten(inner, f"{prefix}.{position}")
    else:
        yield prefix, value
