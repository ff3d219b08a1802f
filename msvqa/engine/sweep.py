"""A sweep: the directory of one search. Its trials are ordinary runs.

runs/RECIPE-SPACE/recipe-before.yaml  space.yaml    what is searched, and where
runs/RECIPE-SPACE/trial-0003/                       a run: may be evaluated, reported, resumed
runs/RECIPE-SPACE/shared/                           a run: the stages that all trials have in common
runs/RECIPE-SPACE/tune/                             Ray Tune's own files; nothing is read from them
runs/RECIPE-SPACE/trials.parquet  search.html  best.yaml
"""

import json
import math
import statistics
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal

import pyarrow as pa
import pyarrow.parquet as pq

from msvqa.errors import RunError, one_of
from msvqa.evaluators.evaluator import evaluator_of_stage
from msvqa.files import write_json, written_aside
from msvqa.recipe import Recipe, differences, load, parse
from msvqa.run import CHECKPOINT_INFO, Run, may_change
from msvqa.space import (
    Space,
    Values,
    changes,
    is_fold,
    load_space,
    plain,
    untouched_stages,
    values_of,
    with_values,
)
from msvqa.storage import Folder, Kept, join, open_folder
from msvqa.strict_yaml import read_file, write_yaml

BASE, SPACE = "recipe-before.yaml", "space.yaml"
SHARED, TUNE, TRIAL = "shared", "tune", "trial-"
OUTCOME = "outcome.json"
"""How a trial has ended that is not finished: its state and a message."""
FREE_IN_SPACE = ("concurrent",)

State = Literal["waiting", "running", "finished", "stopped", "diverged", "failed"]
ENDED = ("finished", "stopped", "diverged")
"""States of trials that are over; a failed one is tried again."""


@dataclass(frozen=True)
class Goal:
    """The number that a search improves."""

    metric: str
    mode: Literal["max", "min"]
    monitor: tuple[str, str]
    """Metric and direction that choose a stage's best checkpoint, whose number counts."""

    @property
    def sign(self) -> int:
        """1 where more is better, else -1."""
        return 1 if self.mode == "max" else -1

    def history(self, run: Run) -> list[tuple[float, int]]:
        """Return, for every validation, the number of the best one so far and the epochs done.

        Where validations do not come with epochs, their number takes the place of the epochs. Where
        the last checkpoint is the result of the stage, the last validation is the best. Numbers
        that are not finite, for which the rows have null, are never the best.

        Raises:
            RunError: validation yields no such number.
        """
        stage = run.recipe.stages[-1]
        rows = [r for r in run.metrics() if r["stage"] == stage.name and r["kind"] == "validation"]
        by_epochs = stage.validate.every_steps is None and not stage.validate.at_start
        name, direction = self.monitor
        best_of = max if direction == "max" else min
        found: list[tuple[float, int]] = []
        best: dict[str, Any] | None = None
        for count, row in enumerate(rows, start=1):
            if stage.select == "last":
                best = row
            elif _is_finite(row[name]):
                best = best_of(best or row, row, key=lambda one: float(one[name]))
            if best is None:
                continue
            if self.metric not in best:
                numbers = [key for key, value in best.items() if isinstance(value, float)]
                raise RunError(f"validation yields no {self.metric!r}, but {one_of(numbers)}")
            if _is_finite(best[self.metric]):
                done = int(row["epoch"]) + 1 if by_epochs else count
                found.append((float(best[self.metric]), done))
        return found

    def of(self, run: Run) -> tuple[float, int] | None:
        """Return the last entry of the history, None before the first validation."""
        return next(reversed(self.history(run)), None)


@dataclass(frozen=True, kw_only=True)
class Trial:
    """One trial as it stands."""

    name: str
    location: str
    values: Values
    state: State
    value: float | None = None
    """The searched metric at the best checkpoint."""
    step: int = 0
    epochs: int = 0
    time_s: float = 0.0
    message: str = ""
    """Why it failed."""

    @property
    def ended(self) -> bool:
        """Whether nothing is left to do for it."""
        return self.state in ENDED


@dataclass(frozen=True)
class Best:
    """The values that came out best, over all folds where the search has folds."""

    values: Values
    value: float
    spread: float | None
    """Standard deviation over the folds."""
    trials: Sequence[Trial]


class Sweep(Kept):
    """The directory of one search."""

    def __init__(self, recipe: Recipe, space: Space) -> None:
        self.recipe, self.space = recipe, space
        self.name = f"{recipe.name}-{space.name}"
        self.folder = open_folder(join(recipe.runs, self.name))
        self.goal = _goal(recipe, space)

    @classmethod
    def create(cls, recipe: Recipe, space: Space) -> "Sweep":
        """Create the directory of a search, or open it again for the same search.

        Raises:
            RunError: the directory belongs to another recipe or another space.
        """
        sweep = cls(recipe, space)
        sweep.refuse_changes()
        if any(sweep._changes()):
            # Nothing is lost, and their recipes are those of the earlier search.
            sweep._remove_runs()
        with written_aside(sweep.path / BASE) as aside:
            aside.write_text(recipe.to_yaml(), encoding="utf-8")
        with written_aside(sweep.path / SPACE) as aside:
            aside.write_text(write_yaml(plain(space)), encoding="utf-8")
        sweep.folder.put(BASE, SPACE)
        return sweep

    def refuse_changes(self) -> None:
        """Compare the search with that of the directory, if trials have trained there.

        Raises:
            RunError: it is another one.
        """
        in_recipe, in_space = self._changes()
        changed = in_recipe + in_space
        if changed and self._has_trained(with_shared=bool(in_recipe)):
            raise RunError(
                f"{self.location} cannot go on because the search has changed "
                f"({'; '.join(changed[:5])}{'; ...' if len(changed) > 5 else ''}): choose another "
                "name in the recipe or the space, or undo the change"
            )

    def _changes(self) -> tuple[list[str], list[str]]:
        """Return what differs from the search of the directory, in the recipe and in the space."""
        if not self.folder.get(SPACE, BASE).is_file():
            return [], []
        lines = differences(load(self.path / BASE), self.recipe)
        in_recipe = [line for line in lines if not may_change(line, self.recipe)]
        keys = changes(read_file(self.path / SPACE), json.loads(json.dumps(plain(self.space))))
        return in_recipe, [f"space: {key}" for key in keys if key not in FREE_IN_SPACE]

    def _has_trained(self, *, with_shared: bool) -> bool:
        """Whether a trial has a checkpoint of a stage of its own, or any run has one.

        The first of several stages counts as shared: if not, it may be trained again.
        """
        stages = [stage.name for stage in load(self.path / BASE).stages]
        before = Sweep(load(self.path / BASE), load_space(self.path / SPACE))
        trained = stages[max(before.shared_stages, min(1, len(stages) - 1)) :]
        for file in self.folder.sizes():
            run, _, rest = file.partition("/")
            own = run.startswith(TRIAL) and rest.startswith(
                tuple(f"{stage}/step-" for stage in trained)
            )
            if rest.endswith(f"/{CHECKPOINT_INFO}") and (own or with_shared):
                return True
        return False

    def _remove_runs(self) -> None:
        names = {file.partition("/")[0] for file in self.folder.sizes()}
        shared = {SHARED} if self._changes()[0] else set()
        for name in names:
            if name.startswith(TRIAL) or name in shared:
                self.folder.remove(name)

    def trial_recipe(self, name: str, values: Mapping[str, Any]) -> Recipe:
        """Return the recipe of a trial, whose run is in this directory."""
        changed = with_values(self.recipe, values).to_dict()
        return parse(changed | {"name": name, "runs": self.location})

    @property
    def shared_stages(self) -> int:
        """How many of the first stages all trials have in common; the last one is always theirs."""
        untouched = untouched_stages(self.recipe, self.space.fields)
        return min(untouched, len(self.recipe.stages) - 1)

    def shared_recipe(self) -> Recipe:
        """Return the recipe of the stages in common, whose run is in this directory."""
        raw = self.recipe.to_dict()
        stages = raw["stages"][: self.shared_stages]
        return parse(raw | {"name": SHARED, "runs": self.location, "stages": stages})

    def begun(self) -> dict[str, Trial]:
        """Return the trials that have a run, by name, with the values of their runs."""
        found = {}
        for file in sorted(self.folder.sizes()):
            name, _, rest = file.partition("/")
            if name.startswith(TRIAL) and rest == "recipe.yaml":
                values = values_of(self.run(name).recipe, self.space.fields)
                found[name] = self.trial(name, values, "waiting")
        return found

    def run(self, name: str) -> Run:
        """Open the run of a trial.

        Raises:
            RunError: there is none.
        """
        return Run.open(join(self.location, name))

    def conclude(self, name: str) -> None:
        """Note that a trial is over: one that is neither finished nor diverged was stopped.

        Also one that would have been tried again: what it said was that its workers were taken away
        while it was being stopped.
        """
        folder = open_folder(join(self.location, name))
        outcome = _outcome(folder)
        if (outcome and not outcome.get("again")) or not folder.get("recipe.yaml").is_file():
            return
        if not self.run(name).is_finished(self.recipe.stages[-1].name):
            write_outcome(folder, "stopped")

    def trial(self, name: str, values: Values, state: State) -> Trial:
        """Return a trial with the numbers of its run, if there is one yet.

        Args:
            name: of the trial.
            values: that it was given.
            state: if the run says nothing else.
        """
        location = join(self.location, name)
        known: dict[str, Any] = {"name": name, "location": location, "values": values}
        if not open_folder(location).get("recipe.yaml").is_file():
            return Trial(state=state, **known)
        run = self.run(name)
        # What the run has: pbt may have planned other values for an epoch that never came.
        known["values"] = values_of(run.recipe, values)
        stage = run.recipe.stages[-1].name
        rows = [row for row in run.metrics() if row["stage"] == stage]
        reached = self.goal.of(run)
        outcome = _outcome(run.folder)
        if run.is_finished(stage):
            outcome = {"state": "finished", "message": ""}
        return Trial(
            state=outcome.get("state", state),
            message=outcome.get("message", ""),
            value=reached[0] if reached else None,
            step=max((row["step"] for row in rows), default=0),
            epochs=reached[1] if reached else 0,
            time_s=max((row["time_s"] for row in rows), default=0.0),
            **known,
        )

    def ranked(self, trials: Sequence[Trial]) -> list[Trial]:
        """Return the trials, the best first and those without a number last."""
        return sorted(
            trials,
            key=lambda t: (t.value is None, -self.goal.sign * (t.value or 0.0), t.name),
        )

    def best(self, trials: Sequence[Trial]) -> Best | None:
        """Return the best values; with folds only those that were tried on all of them."""
        groups: dict[str, list[Trial]] = {}
        for trial in trials:
            if trial.value is not None:
                groups.setdefault(json.dumps(_without_fold(trial.values)), []).append(trial)
        most = max(map(len, groups.values()), default=0)
        means = [
            (statistics.mean(trial.value or 0.0 for trial in group), group)
            for group in groups.values()
            if len(group) == most
        ]
        if not means:
            return None
        value, group = max(means, key=lambda pair: self.goal.sign * pair[0])
        values = [trial.value or 0.0 for trial in group]
        spread = statistics.stdev(values) if len(values) > 1 else None
        return Best(_without_fold(group[0].values), value, spread, group)

    def write(self, trials: Sequence[Trial]) -> Best | None:
        """Write trials.parquet, and best.yaml if there is a best; return it."""
        with written_aside(self.path / "trials.parquet") as aside:
            pq.write_table(_table(trials, self.goal.metric), aside)
        best = self.best(trials)
        if best is not None:
            name = f"{self.name}-best"
            recipe = parse(with_values(self.recipe, best.values).to_dict() | {"name": name})
            head = (
                f"# The best of {len(trials)} trials: {self.goal.metric} {best.value:.4f} on "
                f"validation ({', '.join(trial.name for trial in best.trials)}).\n"
            )
            with written_aside(self.path / "best.yaml") as aside:
                aside.write_text(head + recipe.to_yaml(), encoding="utf-8")
        self.folder.put("trials.parquet", "best.yaml")
        return best


def _is_finite(value: float | None) -> bool:
    return value is not None and math.isfinite(value)


def trial_name(number: int) -> str:
    """Return the name of a trial and of its run."""
    return f"{TRIAL}{number:04d}"


def trial_number(name: str) -> int:
    """Return the number in the name of a trial."""
    return int(name.removeprefix(TRIAL))


def write_outcome(run: Folder, state: State, message: str = "", *, again: bool = False) -> None:
    """Note in the run of a trial how it has ended, and whether Tune tries it again."""
    write_json(run.path / OUTCOME, {"state": state, "message": message, "again": again})
    run.put(OUTCOME)


def outcome_state(run: Folder) -> State | None:
    """Return how a trial is noted to have ended, if it is."""
    state: State | None = _outcome(run).get("state")
    return state


def _outcome(run: Folder) -> dict[str, Any]:
    try:
        content: dict[str, Any] = json.loads(run.get(OUTCOME).read_text(encoding="utf-8"))
    except FileNotFoundError:
        return {}
    return content


def _goal(recipe: Recipe, space: Space) -> Goal:
    monitor = evaluator_of_stage(recipe.validation(len(recipe.stages) - 1)).monitor
    name, direction = (space.metric, space.mode) if space.metric and space.mode else monitor
    return Goal(name, direction, monitor)


def _without_fold(values: Values) -> Values:
    return {key: value for key, value in values.items() if not is_fold(key)}


def _table(trials: Sequence[Trial], metric: str) -> pa.Table:
    """Return one row per trial; every searched field is a column, as text unless it is a number."""
    columns: dict[str, list[Any]] = {
        "trial": [trial.name for trial in trials],
        "state": [trial.state for trial in trials],
        metric: [trial.value for trial in trials],
        "step": [trial.step for trial in trials],
        "epochs": [trial.epochs for trial in trials],
        "time_s": [trial.time_s for trial in trials],
        "path": [trial.location for trial in trials],
        "message": [trial.message for trial in trials],
    }
    for key in dict.fromkeys(key for trial in trials for key in trial.values):
        found = [trial.values.get(key) for trial in trials]
        columns[key] = found if _are_numbers(found) else [json.dumps(value) for value in found]
    return pa.table(columns)


def _are_numbers(values: Sequence[Any]) -> bool:
    return all(isinstance(value, (int, float)) and not isinstance(value, bool) for value in values)
