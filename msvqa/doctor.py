"""Doctor: is this machine ready, is a recipe sound, and which videos and questions are not."""

from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from msvqa.checks.machine import ENVIRONMENT
from msvqa.checks.report import Check, Report
from msvqa.checks.speed import speed_checks
from msvqa.checks.videos import check_data, recognise
from msvqa.data import DATASETS
from msvqa.errors import DataError, MSVQAError, RecipeError
from msvqa.recipe import Recipe
from msvqa.run import load_recipe
from msvqa.sections import resolve
from msvqa.storage import is_remote

WRITTEN = ("runs", "clips.store", "features.store")
"""Paths in a recipe that need not exist yet, beside those of its data and processors."""


def doctor(
    recipe: str | Path | None = None,
    data: str | Path | None = None,
    *,
    overrides: Sequence[str] = (),
    timeout_s: float = 60.0,
    speed: bool = False,
) -> Report:
    """Check this machine and, where given, a recipe and a folder with videos.

    Args:
        recipe: recipe file; it also says which data set `data` holds.
        data: folder with a data set, or with nothing but videos.
        overrides: `key=value` fields of the recipe to change; without one, of its data section.
        timeout_s: longest time for one video.
        speed: also measure how fast this machine decodes and computes.

    Raises:
        DataError: no such folder on a disk.
    """
    if data is not None and is_remote(data):
        raise DataError(f"--data reads every video to its end: copy {data} to a disk, or mount it")
    report = Report([check() for check in ENVIRONMENT])
    loaded = _load(recipe, overrides, report) if recipe is not None else None
    if data is not None:
        folder = Path(data)
        check_data(
            folder, loaded.data if loaded else recognise(folder, overrides), timeout_s, report
        )
    if speed:
        report.checks += speed_checks(Path(data) if data is not None else None, loaded)
    return report


def _load(path: str | Path, overrides: Sequence[str], report: Report) -> Recipe | None:
    try:
        recipe = load_recipe(path, overrides)
    except RecipeError as error:
        report.checks.append(Check(name="recipe", status="fail", detail=str(error)))
        return None
    from msvqa.checks.features import feature_checks
    from msvqa.checks.recipe import check_settings

    try:
        check_settings(recipe)
        stages = ", ".join(stage.name for stage in recipe.stages)
        detail = f"{path} is sound; stages: {stages}"
        report.checks.append(Check(name="recipe", status="ok", detail=detail))
    except MSVQAError as error:
        report.checks.append(Check(name="recipe", status="fail", detail=str(error)))
    files = _file_check(recipe)
    report.checks.append(files)
    if files.status != "fail":
        try:
            report.checks += feature_checks(recipe)
        except MSVQAError as error:
            # Storage that does not answer; what else was found is worth telling.
            report.checks.append(Check(name="features", status="fail", detail=str(error)))
    return recipe


def _file_check(recipe: Recipe) -> Check:
    """Look at all that the recipe names and that has to be there, as training does."""
    from msvqa.checks.sources import sources

    keys = [source.key for source in sources(recipe)]
    keys += [f"stages.{n}.init_from" for n, stage in enumerate(recipe.stages) if stage.init_from]
    if problems := _file_problems(recipe):
        return Check(
            name="files",
            status="fail",
            detail="\n".join(problems),
            advice="correct the path, or put the right file there",
        )
    absent = [
        f"{key}: {path}"
        for key, path in _read_by(recipe)
        if key not in keys and not Path(path).exists()
    ]
    if absent:
        advice = "correct the path, or put the file there"
        detail = f"not there: {'; '.join(absent)}"
        return Check(name="files", status="warn", detail=detail, advice=advice)
    found = f"read, and as the recipe needs them: {', '.join(keys)}"
    return Check(name="files", status="ok", detail=found if keys else "the recipe names none")


def _file_problems(recipe: Recipe) -> list[str]:
    from msvqa.checks.checkpoints import check_initial, check_initial_fit
    from msvqa.checks.sources import check_pretrained_stages, source_problems
    from msvqa.data.prepared import Prepared, prepared_location
    from msvqa.data.processors.processor import processors_of

    problems = source_problems(recipe)
    try:
        found = () if problems else processors_of(recipe)
        for files in (processor.files() for processor in found):
            if files:
                files.check()
        check_initial(recipe)
    except MSVQAError as error:
        problems.append(str(error))
    if problems:
        return problems
    try:
        prepared = [Prepared.open(prepared_location(view.data)) for view in recipe.views()]
    except MSVQAError:
        # How many words and answers there are is not known yet.
        return []
    try:
        check_initial_fit(recipe, prepared)
        check_pretrained_stages(recipe, prepared)
    except MSVQAError as error:
        return [str(error)]
    return []


def _read_by(recipe: Recipe) -> Iterator[tuple[str, str]]:
    """Yield the files and folders that a recipe reads, with their keys."""
    from msvqa.data.dataset import Dataset

    made_by_us = set(WRITTEN)
    own = {"": recipe.data} | {f"stages.{n}.": s.data for n, s in enumerate(recipe.stages)}
    for place, data in own.items():
        made_by_us |= {f"{place}data.prepared", f"{place}processor.store"}
        if data is None:
            continue
        if resolve(data.name, DATASETS, "data set").generate is not Dataset.generate:
            made_by_us.add(f"{place}data.root")
    yield from ((key, path) for key, path in _paths(recipe.to_dict()) if key not in made_by_us)


def _paths(section: Any, prefix: str = "") -> Iterator[tuple[str, str]]:
    """Yield the absolute paths in a section, with their keys."""
    entries = section.items() if isinstance(section, dict) else enumerate(section)
    for key, value in entries:
        place = f"{prefix}{key}"
        if isinstance(value, (dict, list)):
            yield from _paths(value, f"{place}.")
        elif isinstance(value, str) and value.startswith("/"):
            yield place, value
