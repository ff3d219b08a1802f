"""Populations: trials that go on from copies of other trials, and what is kept for that."""

import json
import logging
import tempfile
from collections.abc import Mapping
from pathlib import Path

from msvqa.errors import StorageError
from msvqa.files import write_json
from msvqa.run import CHECKPOINT_INFO, Run, has_score
from msvqa.space import SchedulerConfig

logger = logging.getLogger(__name__)

PLACE = "place.json"
ATTEMPTS = 10
"""To copy a checkpoint of a trial that goes on meanwhile."""


def report_with_place(numbers: Mapping[str, float], run: Run, stage: str, name: str) -> None:
    """Tell Tune numbers and a checkpoint that it may hand to other trials: its place is enough."""
    from ray import tune

    with tempfile.TemporaryDirectory(prefix="msvqa-") as folder:
        write_json(Path(folder) / PLACE, {"run": run.location, "stage": stage, "name": name})
        tune.report(dict(numbers), checkpoint=tune.Checkpoint.from_directory(folder))


def become_donor(run: Run) -> None:
    """Become a copy of the run whose checkpoint Tune hands over, if it is another one.

    A donor at its end hands over its finished checkpoint. Then this trial is finished too, with the
    donor's weights and rows; its recipe has the values with which it would have gone on.
    """
    place = _handed_over()
    if place is None or place["run"] == run.location:
        return
    donor, stage = Run.open(place["run"]), place["stage"]
    before = [path.name for path, _ in run.checkpoints(stage)]
    copied = _copied(run, donor, stage, place["name"])
    if copied is None:
        logger.warning("%s has no checkpoint any more: this trial goes on alone", donor.location)
        return
    name, step = copied
    for old in before:
        if old != name:
            run.folder.remove(f"{stage}/{old}")
    run.write_metrics([r for r in donor.metrics() if r["stage"] != stage or r["step"] <= step])
    run.folder.put(run.metrics_file.name)
    logger.info("goes on from a copy of %s/%s/%s", donor.location, stage, name)


def _copied(run: Run, donor: Run, stage: str, wanted: str) -> tuple[str, int] | None:
    """Copy a checkpoint of a donor; return its name and step, None where none is left.

    The donor goes on meanwhile. Where trials wait long for their turn, it may have removed what is
    wanted, or be a copy itself by now; and it may remove what is being copied. Then its newest one
    is taken.

    Raises:
        StorageError: no copy is whole after several attempts.
    """
    for _ in range(ATTEMPTS):
        there = _validated(donor, stage)
        if not there:
            return None
        name = wanted if wanted in there else max(there)
        try:
            run.folder.copy(f"{stage}/{name}", donor.folder, last=CHECKPOINT_INFO)
            # Object stores may not miss what is gone.
            if name in _validated(run, stage):
                return name, there[name]
        except (OSError, StorageError):
            if name in _validated(donor, stage):
                raise
        # What has come of it is no checkpoint, and nothing else would ever remove it.
        run.folder.remove(f"{stage}/{name}")
    raise StorageError(
        f"{donor.location}/{stage}: none of its checkpoints could be copied in {ATTEMPTS} attempts"
    )


def _validated(run: Run, stage: str) -> dict[str, int]:
    """Return the steps of the validated checkpoints of a stage, by their names."""
    found = run.checkpoints(stage)
    return {path.name: int(info["position"]["step"]) for path, info in found if has_score(info)}


def _handed_over() -> dict[str, str] | None:
    from ray import tune

    handed = tune.get_checkpoint()
    if handed is None:
        return None
    with handed.as_directory() as folder:
        place: dict[str, str] = json.loads((Path(folder) / PLACE).read_text(encoding="utf-8"))
    return place


def may_be_handed_over(scheduler: SchedulerConfig) -> int:
    """Return how many of a trial's last checkpoints Tune may still hand to others.

    Tune takes a donor's checkpoint where trials were compared. The donor is at most one comparison
    ahead when the copy starts; another interval is for trials that start late.
    """
    return 2 * scheduler.every_epochs + 2 if scheduler.name == "pbt" else 0


def remove_surplus(run: Run, stage: str, last: int = 0) -> None:
    """Remove a stage's checkpoints but the newest, the best, and so many of the last validated."""
    keep = next(s for s in run.recipe.stages if s.name == stage).checkpoint.keep
    older = run.checkpoints(stage)[:-1]
    scored = [entry for entry in older if has_score(entry[1])]
    best = sorted(scored, key=lambda entry: entry[1]["score"], reverse=True)[:keep]
    kept = {path for path, _ in [*best, *scored[max(0, len(scored) - last) :]]}
    for path, _ in older:
        if path not in kept:
            run.folder.remove(path.relative_to(run.path).as_posix())
