"""A run: the directory of one experiment, readable without this package.

runs/NAME/recipe.yaml             the resolved recipe
runs/NAME/environment.json        versions and hardware
runs/NAME/metrics.jsonl           one row per logged step and per validation
runs/NAME/STAGE/step-00000120/    checkpoints
runs/NAME/evaluate/SPLIT/         predictions.parquet, metrics.json
runs/NAME/tensorboard/  logs/  report.html
"""

import json
import os
import platform
import sys
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from datetime import datetime, timezone
from importlib import metadata
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from msvqa.errors import CheckpointError, RunError, did_you_mean, one_of
from msvqa.recipe import Recipe, differences, load

if TYPE_CHECKING:
    import pyarrow

CHECKPOINT_INFO = "checkpoint.json"
# Fields that may change when a run is resumed, because they do not change what is computed.
FREE_TO_CHANGE = ("runs", "scaling.", "faults.", "evaluation.", "data.allow_missing")
VERSIONS_OF = (
    "msvqa", "ray", "torch", "torchvision", "numpy", "av", "decord", "pyarrow", "h5py", "nltk",
)  # fmt: skip


@contextmanager
def written_aside(path: Path) -> Iterator[Path]:
    """Give a temporary path beside `path`; rename it to `path` only when the block ends well."""
    path.parent.mkdir(parents=True, exist_ok=True)
    aside = path.with_name(f".{path.name}.{os.getpid()}.tmp")
    try:
        yield aside
        aside.replace(path)
    finally:
        aside.unlink(missing_ok=True)


def write_json(path: Path, content: Any) -> None:
    """Write JSON so that no reader ever sees half a file."""
    with written_aside(path) as aside:
        aside.write_text(json.dumps(content, indent=2) + "\n", encoding="utf-8")


class Run:
    """The results of one experiment."""

    def __init__(self, path: Path, recipe: Recipe) -> None:
        self.path, self.recipe = path, recipe

    def __repr__(self) -> str:
        return f"Run({str(self.path)!r})"

    @classmethod
    def open(cls, path: str | Path) -> "Run":
        """Open an existing run.

        Raises:
            RunError: the directory is not a run.
        """
        path = Path(path).absolute()
        if not (path / "recipe.yaml").is_file():
            runs = [str(p.parent) for p in path.parent.glob("*/recipe.yaml")]
            hint = did_you_mean(str(path), runs) or (f"; there are {one_of(runs)}" if runs else "")
            raise RunError(f"{path} is not a run: it has no recipe.yaml{hint}")
        return cls(path, load(path / "recipe.yaml"))

    @classmethod
    def create(cls, recipe: Recipe) -> "Run":
        """Create the directory of a recipe, or open it again when it was made by the same recipe.

        Raises:
            RunError: the directory belongs to a recipe that differs in what is computed.
        """
        run = cls(recipe.run_dir, recipe)
        if (run.path / "recipe.yaml").is_file():
            changed = [
                line
                for line in differences(cls.open(run.path).recipe, recipe)
                if not line.startswith(FREE_TO_CHANGE)
            ]
            if changed:
                raise RunError(
                    f"{run.path} cannot be resumed because the recipe has changed "
                    f"({'; '.join(changed[:5])}{'; ...' if len(changed) > 5 else ''}): "
                    "choose another name=NAME, or undo the change"
                )
        with written_aside(run.path / "recipe.yaml") as aside:
            aside.write_text(recipe.to_yaml(), encoding="utf-8")
        write_json(run.path / "environment.json", environment())
        return run

    @property
    def metrics_file(self) -> Path:
        """The file with one JSON object per logged step."""
        return self.path / "metrics.jsonl"

    def stage_dir(self, stage: str) -> Path:
        """Folder of a stage's checkpoints."""
        return self.path / stage

    def logs_dir(self) -> Path:
        """Folder of the workers' logs."""
        return self.path / "logs"

    def metrics(self) -> list[dict[str, Any]]:
        """Return the rows of metrics.jsonl; a last line cut off by a crash is left out."""
        if not self.metrics_file.is_file():
            return []
        rows = []
        for line in self.metrics_file.read_text(encoding="utf-8").splitlines():
            try:
                rows.append(json.loads(line))
            except json.JSONDecodeError:
                continue
        return rows

    def checkpoints(self, stage: str) -> list[tuple[Path, dict[str, Any]]]:
        """Return the whole checkpoints of a stage with their info, oldest first."""
        found = []
        for info_file in sorted(self.stage_dir(stage).glob(f"step-*/{CHECKPOINT_INFO}")):
            info = _read_info(info_file)
            if info is not None and not _damaged_files(info_file.parent, info):
                found.append((info_file.parent, info))
        return found

    def damaged(self, stage: str) -> list[Path]:
        """Return the files of a stage's checkpoints that are cut short.

        A checkpoint that lacks files is none: one that is being removed looks like that.
        """
        found = []
        for info_file in sorted(self.stage_dir(stage).glob(f"step-*/{CHECKPOINT_INFO}")):
            info = _read_info(info_file)
            files = [info_file] if info is None else _damaged_files(info_file.parent, info)
            if all(file.is_file() for file in files):
                found += files
        return found

    def checkpoint(self, stage: str | None = None, which: Literal["best", "last"] = "best") -> Path:
        """Return the best or last checkpoint of a stage, by default of the last stage.

        Raises:
            CheckpointError: the stage has none, or damaged ones, of which the best may be one.
        """
        names = [s.name for s in self.recipe.stages]
        stage = stage or names[-1]
        if stage not in names:
            raise CheckpointError(
                f"{self.path} has no stage {stage!r}{did_you_mean(stage, names)}; "
                f"it has {', '.join(names)}"
            )
        found = self.checkpoints(stage)
        damaged = self.damaged(stage)
        if damaged and self.recipe.faults.damaged_checkpoint == "stop":
            raise CheckpointError(
                f"{damaged[0]} is damaged, and its checkpoint may be the {which} of stage "
                f"{stage!r}: restore it, or remove {damaged[0].parent} to use the others"
            )
        if not found:
            raise CheckpointError(
                f"stage {stage!r} of {self.path} has no checkpoint yet: train it first"
            )
        scored = [entry for entry in found if entry[1]["score"] is not None]
        if which == "last" or not scored:
            return found[-1][0]
        return max(scored, key=lambda entry: entry[1]["score"])[0]

    def is_finished(self, stage: str) -> bool:
        """Whether a stage has been trained to its end."""
        return any(info["finished"] for _, info in self.checkpoints(stage))

    def evaluation_dir(self, split: str) -> Path:
        """Folder of the evaluation of a split."""
        return self.path / "evaluate" / split

    def evaluation(self, split: str) -> tuple[dict[str, Any], "pyarrow.Table"]:
        """Return metrics and predictions of an evaluated split.

        Raises:
            RunError: the split has not been evaluated.
        """
        import pyarrow.parquet

        folder = self.evaluation_dir(split)
        if not (folder / "metrics.json").is_file():
            raise RunError(
                f"{self.path} has no evaluation of {split!r}: run `msvqa evaluate` first"
            )
        content = json.loads((folder / "metrics.json").read_text(encoding="utf-8"))
        return content, pyarrow.parquet.read_table(folder / "predictions.parquet")


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


def _damaged_files(folder: Path, info: Mapping[str, Any]) -> list[Path]:
    """Return the files of a checkpoint that are absent or not as long as they were written."""
    sizes = {folder / name: entry["bytes"] for name, entry in info.get("files", {}).items()}
    return [file for file, size in sizes.items() if _size(file) != size]


def _size(file: Path) -> int | None:
    try:
        return file.stat().st_size
    except OSError:  # its checkpoint may just be removed by the process that trains
        return None
