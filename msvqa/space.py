"""A search space: which fields of a recipe are searched, how values are drawn, who stops early.

Fields are named as in `key=value` overrides. Drawing is a function of the seed alone, so that the
trials of a random or grid search are known, and checked, before anything starts.
"""

import itertools
import json
import math
from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Annotated, Any, Literal

import numpy as np
from pydantic import Field, model_validator

from msvqa.errors import RecipeError
from msvqa.recipe import STAGES_OWN, Recipe, parse
from msvqa.sections import Config, checked, flatten
from msvqa.strict_yaml import read_file

Values = dict[str, Any]
"""One value for every searched field."""

DIGITS = 4
"""Drawn numbers are rounded to so many significant digits, to be read and typed again."""
SAME_FOR_ALL = ("name", "runs", "data", "scaling", "faults", "evaluation")
"""Sections that cannot be searched: places, resources, and data that is prepared once."""
FOLD = "folds.index"
LIVE_SECTIONS = ("optimizer", "schedule", "objective")
"""Sections of a stage that may change in the middle of it."""
MAX_TRIALS = 10_000
"""Each is checked before anything starts, and their names have four digits."""
MAX_INTEGER = 2**53
"""Up to here floating-point numbers, as Optuna and tables use, hold every whole number."""


WholeNumber = Annotated[int, Field(ge=-MAX_INTEGER, le=MAX_INTEGER)]
Number = Annotated[float, Field(allow_inf_nan=False)]


class FieldRange(Config):
    """The values of one field, in exactly one of these forms."""

    choice: tuple[Any, ...] | None = Field(default=None, min_length=1)
    """One of these."""
    grid: tuple[Any, ...] | None = Field(default=None, min_length=1)
    """Each of these, with every other draw."""
    uniform: tuple[Number, Number] | None = None
    log_uniform: tuple[Number, Number] | None = None
    """Uniform in the logarithm: for learning rates and weights."""
    integer: tuple[WholeNumber, WholeNumber] | None = None
    """Whole numbers; both ends are included."""

    @model_validator(mode="after")
    def _one_form(self) -> "FieldRange":
        given = [name for name in type(self).model_fields if getattr(self, name) is not None]
        if len(given) != 1:
            raise ValueError(f"give exactly one of {', '.join(type(self).model_fields)}")
        if self.limits and self.limits[0] >= self.limits[1]:
            raise ValueError(f"{given[0]}: {self.limits[0]} is not below {self.limits[1]}")
        if self.log_uniform and self.log_uniform[0] <= 0:
            raise ValueError("log_uniform: both ends must be above 0")
        if self.uniform and not math.isfinite(self.uniform[1] - self.uniform[0]):
            raise ValueError("uniform: the ends are too far apart")
        return self

    @property
    def options(self) -> tuple[Any, ...] | None:
        """The listed values, None for a range of numbers."""
        return self.grid if self.grid is not None else self.choice

    @property
    def limits(self) -> tuple[float, float] | None:
        """Both ends of a range of numbers."""
        return self.uniform or self.log_uniform or self.integer

    def draw(self, generator: np.random.Generator) -> Any:
        """Return one value."""
        if self.options is not None:
            return self.options[int(generator.integers(len(self.options)))]
        if self.integer is not None:
            return int(generator.integers(self.integer[0], self.integer[1] + 1))
        if self.log_uniform is not None:
            low, high = map(math.log, self.log_uniform)
            return _rounded(math.exp(generator.uniform(low, high)))
        assert self.uniform is not None
        return _rounded(generator.uniform(*self.uniform))


class SchedulerConfig(Config):
    """Who stops trials early, or gives them other values."""

    name: Literal["none", "asha", "median", "pbt"] = "none"
    """`asha` keeps the best part of the trials at 1, r, r*r … epochs; `median` stops trials below
    the median of the others; `pbt` lets the worst trials go on from copies of the best ones."""
    grace_epochs: int = Field(default=1, ge=1)
    """No trial is stopped before so many epochs of the last stage. Here and below: validations
    instead of epochs, where that stage has `validate.every_steps` or `at_start`."""
    reduction: int = Field(default=3, ge=2)
    """`asha`: r, one of r trials goes on."""
    every_epochs: int = Field(default=1, ge=1)
    """`pbt`: trials are compared after every so many epochs."""


class Space(Config):
    """What is searched, and how. The results are in `runs/RECIPE-SPACE`."""

    name: str = Field(pattern=r"^[A-Za-z0-9][A-Za-z0-9._-]*$", max_length=100)
    fields: dict[str, FieldRange] = Field(min_length=1)
    """Keys as in `key=value`, for example `stages.answer.optimizer.lr`."""
    search: Literal["random", "grid", "optuna"] = "random"
    samples: int | None = Field(default=None, ge=1, le=MAX_TRIALS)
    """Draws; each is tried with every combination of the `grid` fields. `grid` needs none."""
    scheduler: SchedulerConfig = SchedulerConfig()
    metric: str | None = None
    """Validation number of the last stage; by default what chooses its best checkpoint."""
    mode: Literal["max", "min"] | None = None
    """Direction of `metric`."""
    seed: int = Field(default=0, ge=0, lt=2**31)
    concurrent: int | None = Field(default=None, ge=1)
    """At most so many trials at once; never more than fit into the cluster."""

    @model_validator(mode="after")
    def _consistent(self) -> "Space":
        ranges = [key for key, field in self.fields.items() if field.options is None]
        grids = [key for key, field in self.fields.items() if field.grid is not None]
        problems = []
        if self.search == "grid" and ranges:
            problems.append(f"search grid needs listed values: {', '.join(ranges)}")
        if self.search == "optuna" and grids:
            problems.append(f"search optuna takes choice in place of grid: {', '.join(grids)}")
        if self.search == "grid" and self.samples is not None:
            problems.append("samples: search grid takes none, it tries all values")
        if self.search != "grid" and self.samples is None:
            problems.append(f"samples: is missing, search {self.search} needs the number of trials")
        if (self.metric is None) != (self.mode is None):
            problems.append("metric and mode go together")
        if self.scheduler.name == "pbt" and (self.search != "random" or grids):
            problems.append("scheduler pbt needs search random, without grid fields")
        if self.trials > MAX_TRIALS:
            problems.append(f"{self.trials} trials are more than {MAX_TRIALS}")
        if problems:
            raise ValueError("; ".join(problems))
        return self

    @property
    def trials(self) -> int:
        """How many trials there are."""
        grids = [field.options for field in self.fields.values() if self._is_swept(field)]
        return math.prod(len(options or ()) for options in grids) * (self.samples or 1)

    def points(self) -> list[Values]:
        """Return the values of all trials of a random or grid search; more samples only add."""
        swept = {key: field for key, field in self.fields.items() if self._is_swept(field)}
        drawn = {key: field for key, field in self.fields.items() if key not in swept}
        combinations = list(itertools.product(*(field.options or () for field in swept.values())))
        found = []
        for sample in range(self.samples or 1):
            generator = np.random.default_rng([self.seed, sample])
            draw = {key: field.draw(generator) for key, field in drawn.items()}
            for combination in combinations:
                values = draw | dict(zip(swept, combination, strict=True))
                found.append({key: values[key] for key in self.fields})
        return found

    def clip(self, values: Mapping[str, Any]) -> Values:
        """Return values put back between the ends of their ranges."""
        clipped = dict(values)
        for key, field in self.fields.items():
            if field.limits:
                low, high = field.limits
                clipped[key] = type(clipped[key])(min(max(clipped[key], low), high))
        return clipped

    def _is_swept(self, field: FieldRange) -> bool:
        return field.grid is not None or (self.search == "grid" and field.choice is not None)


def load_space(path: str | Path) -> Space:
    """Read a search space.

    Raises:
        RecipeError: lists every problem with its path.
    """
    return parse_space(read_file(Path(path)), str(path))


def parse_space(raw: Any, source: str = "search space") -> Space:
    """Check plain data and return the search space.

    Raises:
        RecipeError: lists every problem with its path.
    """
    if not isinstance(raw, dict):
        raise RecipeError(["a search space is a mapping with name and fields"], source)
    raw = json.loads(json.dumps(raw, default=str))
    space: Space = checked(Space, raw, [], {}, source)
    return space


def with_values(recipe: Recipe, values: Mapping[str, Any]) -> Recipe:
    """Return the recipe with other values.

    Raises:
        RecipeError: the values do not make a recipe.
    """
    return parse(recipe.to_dict(), [f"{key}={json.dumps(value)}" for key, value in values.items()])


def probe(recipe: Recipe, space: Space) -> tuple[list[Recipe], list[str]]:
    """Return a recipe for every trial known beforehand and for the ends of ranges, and problems."""
    problems: dict[str, None] = {}
    found: dict[str, Recipe] = {}
    for values in _probes(space):
        try:
            made = with_values(recipe, values)
        except RecipeError as error:
            problems |= dict.fromkeys(error.problems)
        else:
            found.setdefault(made.to_yaml(), made)
    problems |= dict.fromkeys(_unusable(recipe, space))
    problems |= dict.fromkeys(_overlapping(recipe, space))
    return list(found.values()), list(problems)


def values_of(recipe: Recipe, keys: Iterable[str]) -> Values:
    """Return what a recipe has for some fields."""
    content = recipe.to_dict()
    return {key: _find(content, key.split(".")) for key in keys}


def _find(node: Any, parts: Sequence[str]) -> Any:
    for part in parts:
        if isinstance(node, list):
            names = [item.get("name") for item in node]
            node = node[int(part) if part.isdigit() else names.index(part)]
        else:
            node = node[part]
    return node


def untouched_stages(recipe: Recipe, keys: Iterable[str]) -> int:
    """Return how many of the first stages are the same whatever values these fields have."""
    return min((_first_touched(recipe, key) for key in keys), default=len(recipe.stages))


def _first_touched(recipe: Recipe, key: str) -> int:
    """Return the number of the first stage that a field changes; of none, how many there are."""
    parts = _numbered(recipe, key)
    if len(parts) > 1 and parts[0] == "stages" and parts[1].isdecimal():
        return int(parts[1])
    own = [
        parts[0] in STAGES_OWN and getattr(stage, parts[0]) is not None for stage in recipe.stages
    ]
    return own.index(False) if False in own else len(own)


def is_fold(key: str) -> bool:
    """Whether a field says which fold is held out, in all stages or in one."""
    return key == FOLD or (key.startswith("stages.") and key.split(".")[2:] == FOLD.split("."))


def _in_last_stage(recipe: Recipe, key: str, sections: Sequence[str] = ()) -> bool:
    parts = key.split(".")
    last = (str(len(recipe.stages) - 1), recipe.stages[-1].name)
    inside = len(parts) > 2 and parts[0] == "stages" and parts[1] in last
    return inside and (not sections or parts[2] in sections)


def _unusable(recipe: Recipe, space: Space) -> Iterator[str]:
    """Yield what a recipe allows and a search does not."""
    for key in space.fields:
        section = key.partition(".")[0]
        own = _numbered(recipe, key)[2:3] if section == "stages" else []
        if section in SAME_FOR_ALL or own in (["data"], ["evaluation"]):
            section = own[0] if own else section
            yield f"fields.{key}: {section} is the same for all trials; change the recipe"
        if (section in ("clips", "features") or own == ["processor"]) and space.search == "optuna":
            yield f"fields.{key}: what is extracted must be known beforehand: not with optuna"
        if space.scheduler.name == "pbt" and not _in_last_stage(recipe, key, LIVE_SECTIONS):
            yield (
                f"fields.{key}: pbt changes values while a trial runs, which only "
                f"{', '.join(LIVE_SECTIONS)} of stage {recipe.stages[-1].name!r} allow"
            )


def _overlapping(recipe: Recipe, space: Space) -> Iterator[str]:
    """Yield the keys that set the same field, or a part of what another key sets."""
    paths = {key: _numbered(recipe, key) for key in space.fields}
    for first, second in itertools.combinations(sorted(paths, key=lambda key: len(paths[key])), 2):
        if paths[first] == paths[second]:
            yield f"fields.{second}: is the same field as {first}; keep one of them"
        elif paths[first] == paths[second][: len(paths[first])]:
            yield f"fields.{second}: is a part of {first}; keep one of them"


def _numbered(recipe: Recipe, key: str) -> list[str]:
    """Return the parts of a key, with a stage's number in place of its name."""
    parts, names = key.split("."), [stage.name for stage in recipe.stages]
    if len(parts) > 1 and parts[0] == "stages":
        if parts[1] in names:
            parts[1] = str(names.index(parts[1]))
        elif parts[1].isdecimal():
            parts[1] = str(int(parts[1]))
    return parts


def _probes(space: Space) -> Iterator[Values]:
    """Yield the trials that are known, and otherwise each end and each option of every field."""
    if space.search != "optuna":
        yield from space.points()
    for key, field in space.fields.items():
        for value in field.options or field.limits or ():
            yield {key: value}


def _rounded(value: float) -> float:
    return float(f"{value:.{DIGITS}g}")


def plain(space: Space) -> dict[str, Any]:
    """Return a space as plain data without the defaults."""
    content: dict[str, Any] = space.model_dump(mode="json", exclude_defaults=True)
    return content


def changes(old: Mapping[str, Any], new: Mapping[str, Any]) -> list[str]:
    """Return the keys in which the plain data of two spaces differ."""
    before, after = dict(flatten(dict(old))), dict(flatten(dict(new)))
    return [key for key in {**before, **after} if before.get(key) != after.get(key)]
