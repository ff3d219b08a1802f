"""A run: the directory of one experiment, readable without this package.

runs/NAME/recipe.yaml             the resolved recipe
runs/NAME/environment.json        versions and hardware
runs/NAME/metrics.jsonl           one row per logged step and per validation
runs/NAME/STAGE/step-00000120/    checkpoints
runs/NAME/evaluate/SPLIT/         predictions.parquet, metrics.json; also evaluate/EVALUATION/
runs/NAME/tensorboard/  logs/  report.html
"""

import json
import math
import os
import platform
import re
import sys
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from datetime import datetime, timezone
from importlib import metadata
from pathlib import Path, PurePosixPath
from typing import TYPE_CHECKING, Any, Literal

from msvqa.errors import CheckpointError, RunError, did_you_mean, one_of
from msvqa.files import holder_of, json_text, lock, sign, write_json, written_aside
from msvqa.recipe import Recipe, differences, load
from msvqa.storage import Folder, Kept, absolute, is_remote, join, open_folder

if TYPE_CHECKING:
    import pyarrow

CHECKPOINT_INFO = "checkpoint.json"
# Fields that may change when a run is resumed, because they do not change what is computed.
FREE_TO_CHANGE = (
    *("runs", "scaling.", "faults.", "evaluation."),
    *("data.allow_missing", "data.follow_links", "data.shared_videos", "data.equal_videos"),
)
SHARDING = r"stages\.\d+\.sharding\b"
"""Of a stage, free to change too: how its workers share the model, like their number."""
VERSIONS_OF = (
    "msvqa", "ray", "torch", "torchvision", "numpy", "av", "decord", "torchcodec", "pyarrow",
    "h5py", "nltk",
)  # fmt: skip


def may_change(line: str, recipe: Recipe) -> bool:
    """Whether a line of `differences` is of a field that may change when a run is resumed.

    Evaluations may, but for those that its stages are validated on.
    """
    validated = tuple(f"evaluations.{stage.validate.on}." for stage in recipe.stages)
    if line.startswith("evaluations"):
        return not line.startswith(validated)
    return line.startswith(FREE_TO_CHANGE) or re.match(SHARDING, line) is not None


@contextmanager
def only_one(folder: Folder) -> Iterator[None]:
    """Keep a second command out of a run or a search; object stores cannot.

    Raises:
        RunError: another command works there.
        StorageError: it cannot be written.
    """
    folder.create()
    with (folder.path / ".command").open("a+", encoding="utf-8") as file:
        try:
            lock(file, wait=False)
        except BlockingIOError:
            raise RunError(
                f"another command works in {folder.location} ({holder_of(file)}): "
                "wait for its end, or stop it"
            ) from None
        sign(file)
        yield


class Run(Kept):
    """The results of one experiment."""

    def __init__(self, location: str | Path, recipe: Recipe) -> None:
        self.recipe = recipe
        self.folder = open_folder(location)

    def __repr__(self) -> str:
        return f"Run({self.location!r})"

    @classmethod
    def open(cls, location: str | Path) -> "Run":
        """Open an existing run, on a disk or in an object store.

        Raises:
            RunError: the directory is not a run.
        """
        location = absolute(location)
        recipe = open_folder(location).get("recipe.yaml")
        if not recipe.is_file():
            runs = _runs_beside(location)
            hint = did_you_mean(location, runs) or (f"; there are {one_of(runs)}" if runs else "")
            raise RunError(f"{location} is not a run: it has no recipe.yaml{hint}")
        return cls(location, load(recipe))

    @classmethod
    def create(cls, recipe: Recipe) -> "Run":
        """Create the directory of a recipe, or open it again when it was made by the same recipe.

        Raises:
            RunError: the directory belongs to a recipe that differs in what is computed.
            StorageError: it cannot be written.
        """
        run = cls(recipe.run_location, recipe)
        run.refuse_changes()
        run.folder.create()
        with written_aside(run.path / "recipe.yaml") as aside:
            aside.write_text(recipe.to_yaml(), encoding="utf-8")
        write_json(run.path / "environment.json", environment())
        run.folder.put("recipe.yaml", "environment.json")
        return run

    def refuse_changes(self) -> None:
        """Compare the recipe with that of the directory, if it has one.

        Raises:
            RunError: they differ in what is computed.
        """
        if not self.folder.get("recipe.yaml").is_file():
            return
        changed = [
            line
            for line in differences(Run.open(self.location).recipe, self.recipe)
            if not may_change(line, self.recipe)
        ]
        if changed:
            raise RunError(
                f"{self.location} cannot be resumed because the recipe has changed "
                f"({'; '.join(changed[:5])}{'; ...' if len(changed) > 5 else ''}): "
                "choose another name=NAME, or undo the change"
            )

    @property
    def metrics_file(self) -> Path:
        """The file with one JSON object per logged step."""
        return self.path / "metrics.jsonl"

    def stage_dir(self, stage: str) -> Path:
        """Folder of a stage's checkpoints."""
        return self.path / stage

    @property
    def logs_location(self) -> str:
        """Folder of the workers' logs."""
        return join(self.location, "logs")

    def metrics(self) -> list[dict[str, Any]]:
        """Return the rows of metrics.jsonl; a last line cut off by a crash is left out."""
        file = self.folder.get(self.metrics_file.name)
        if not file.is_file():
            return []
        rows = []
        for line in file.read_text(encoding="utf-8").splitlines():
            try:
                rows.append(json.loads(line))
            except json.JSONDecodeError:
                continue
        return rows

    def write_metrics(self, rows: Sequence[Mapping[str, Any]]) -> None:
        """Write metrics.jsonl anew, where that changes it: also for a last line cut off."""
        text = "".join(json_text(row) + "\n" for row in rows)
        file = self.folder.get(self.metrics_file.name)
        before = file.read_text(encoding="utf-8") if file.is_file() else ""
        if text == before:
            return
        with written_aside(file) as aside:
            aside.write_text(text, encoding="utf-8")

    def checkpoints(self, stage: str) -> list[tuple[Path, dict[str, Any]]]:
        """Return the whole checkpoints of a stage with their info, oldest first.

        Of those in an object store only the info is here: others read them at `locate(path)`.
        """
        sizes = self.folder.sizes(stage)
        found = []
        for name in _with_info(sizes):
            info = _read_info(self.folder.get(f"{name}/{CHECKPOINT_INFO}"))
            if info is not None and not _damaged_files(name, info, sizes):
                found.append((self.path / name, info))
        return found

    def damaged(self, stage: str) -> list[Path]:
        """Return the files of a stage's checkpoints that are cut short.

        A checkpoint that lacks files is none: one that is being removed looks like that.
        """
        sizes = self.folder.sizes(stage)
        found = []
        for name in _with_info(sizes):
            file = f"{name}/{CHECKPOINT_INFO}"
            marker = self.folder.get(file)
            info = _read_info(marker)
            if info is None and not marker.exists():
                continue  # removed since it was listed
            files = [file] if info is None else _damaged_files(name, info, sizes)
            if all(file in sizes for file in files):
                found += [self.path / file for file in files]
        return found

    def checkpoint(
        self, stage: str | None = None, which: Literal["best", "last"] | None = None
    ) -> Path:
        """Return the best or last checkpoint of a stage, by default the result of the last stage.

        Raises:
            CheckpointError: the stage has none, or damaged ones, of which the best may be one.
        """
        return self.chosen(stage, which)[0]

    def chosen(
        self, stage: str | None = None, which: Literal["best", "last"] | None = None
    ) -> tuple[Path, dict[str, Any]]:
        """Return such a checkpoint with its info.

        Raises:
            CheckpointError: as `checkpoint`.
        """
        names = [s.name for s in self.recipe.stages]
        stage = stage or names[-1]
        if stage not in names:
            raise CheckpointError(
                f"{self.location} has no stage {stage!r}{did_you_mean(stage, names)}; "
                f"it has {', '.join(names)}"
            )
        which = which or self.recipe.stages[names.index(stage)].select
        found = self.checkpoints(stage)
        damaged = self.damaged(stage)
        if damaged and self.recipe.faults.damaged_checkpoint == "stop":
            raise CheckpointError(
                f"{self.locate(damaged[0])} is damaged, and its checkpoint may be the {which} of "
                f"stage {stage!r}: restore it, or remove {self.locate(damaged[0].parent)} to use "
                "the others"
            )
        if not found:
            raise CheckpointError(
                f"stage {stage!r} of {self.location} has no checkpoint yet: train it first"
            )
        scored = [entry for entry in found if has_score(entry[1])]
        if which == "last" or not scored:
            return found[-1]
        return max(scored, key=lambda entry: entry[1]["score"])

    def locate(self, path: Path) -> str:
        """Return the location of one of the run's files or folders, for every machine."""
        return join(self.location, *path.relative_to(self.path).parts)

    def is_finished(self, stage: str) -> bool:
        """Whether a stage has been trained to its end."""
        return any(info["finished"] for _, info in self.checkpoints(stage))

    def evaluation_dir(self, name: str) -> Path:
        """Folder of the evaluation of a split, or of one of the recipe's `evaluations`."""
        return self.path / "evaluate" / name

    def evaluated(self) -> list[str]:
        """Return the splits and evaluations whose metrics are there."""
        names = self.folder.sizes("evaluate")
        return sorted(name.split("/")[1] for name in names if name.endswith("/metrics.json"))

    def evaluation(self, split: str) -> tuple[dict[str, Any], "pyarrow.Table"]:
        """Return metrics and predictions of an evaluated split.

        Raises:
            RunError: the split has not been evaluated.
        """
        import pyarrow.parquet

        file = self.folder.get(f"evaluate/{split}/predictions.parquet")
        return self.metrics_of(split), pyarrow.parquet.read_table(file)

    def metrics_of(self, split: str) -> dict[str, Any]:
        """Return the metrics of an evaluated split.

        Raises:
            RunError: the split has not been evaluated.
        """
        try:
            file = self.folder.get(f"evaluate/{split}/metrics.json")
            content: dict[str, Any] = json.loads(file.read_text(encoding="utf-8"))
        except FileNotFoundError:
            raise RunError(
                f"{self.location} has no evaluation of {split!r}: run `msvqa evaluate` first"
            ) from None
        return content


def has_score(info: Mapping[str, Any]) -> bool:
    """Whether a checkpoint has a score to be compared; that of earlier versions may be NaN."""
    return info["score"] is not None and math.isfinite(info["score"])


def load_recipe(location: str | Path, overrides: Sequence[str] = ()) -> Recipe:
    """Read a recipe from its file or from the run that has it, on a disk or in an object store.

    Raises:
        RecipeError: lists every problem with its path.
    """
    if is_remote(location):
        location = absolute(location)
        is_run = not location.endswith(".yaml")
    else:
        is_run = Path(location).is_dir()
    return load(join(location, "recipe.yaml") if is_run else location, overrides)


def environment() -> dict[str, Any]:
    """Return versions, command and hardware as plain data."""
    versions: dict[str, str] = {}
    for package in VERSIONS_OF:
        try:
            versions[package] = metadata.version(package)
        except metadata.PackageNotFoundError:
            versions[package] = "absent"
    return {
        "time": datetime.now(timezone.utc).isoformat(timespec="seconds"),
        "python": platform.python_version(),
        "platform": platform.platform(),
        "cpus": os.cpu_count(),
        "command": _command(sys.argv),
        "versions": versions,
    }


def _command(arguments: Sequence[str]) -> str:
    return " ".join([Path(arguments[0]).name, *arguments[1:]]) if arguments else ""


def _read_info(file: Path) -> dict[str, Any] | None:
    try:
        info: dict[str, Any] = json.loads(file.read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return None
    return info


def _damaged_files(name: str, info: Mapping[str, Any], sizes: Mapping[str, int]) -> list[str]:
    """Return the files of a checkpoint that are absent or not as long as they were written."""
    written = {f"{name}/{file}": entry["bytes"] for file, entry in info.get("files", {}).items()}
    return [file for file, size in written.items() if sizes.get(file) != size]


def _with_info(sizes: Mapping[str, int]) -> list[str]:
    """Return the checkpoints of a stage that have their marker, oldest first."""
    markers = [PurePosixPath(name) for name in sizes if name.endswith(f"/{CHECKPOINT_INFO}")]
    return sorted(str(m.parent) for m in markers if m.parent.name.startswith("step-"))


def _runs_beside(location: str) -> list[str]:
    """Return the runs in the same folder; an object store would have to list all their files."""
    if is_remote(location):
        return []
    return [str(file.parent) for file in Path(location).parent.glob("*/recipe.yaml")]
