"""Are videos and annotations sound: every file is read to its end, every row is looked at."""

import os
from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import TYPE_CHECKING

from msvqa.checks.folder import find_videos
from msvqa.checks.report import Check, Report, Status
from msvqa.data.medium import Medium
from msvqa.errors import DataError
from msvqa.recipe import DataConfig, parse_data

if TYPE_CHECKING:
    from msvqa.data.annotated import Annotated
    from msvqa.data.readers import Probe
    from msvqa.data.schema import Problem

MAX_WORKERS = 16
VIDEOS_SHOWN = 5
HARMLESS_KINDS = (
    *("partial", "duplicate_question", "two_files", "shared_file", "allowed_splits"),
    "divided_pair",
)
"""Problems that preparing and training go on with; all others count as failures."""
ANY_VIDEOS = "videos"
"""Stands for the name of a data set where there are no annotations."""
LAYOUTS = (
    ("msrvtt_qa", ("train_qa.json", "TrainValVideo")),
    ("msvd_qa", ("train_qa.json", "youtube_mapping.txt")),
)
"""Published layouts and the entries that a folder with one has."""


def check_data(folder: Path, config: DataConfig, timeout_s: float, report: Report) -> None:
    """Add what is wrong with a folder of videos, and with its annotations where it has some.

    Raises:
        DataError: no such folder, or nothing in it that is known.
    """
    left_out = ""
    if config.name == ANY_VIDEOS:
        found = find_videos(folder, follow_links=config.follow_links)
        media, left_out = [Medium(file, file) for file in found.files], found.said()
        if not media:
            raise DataError(
                f"{folder}: no videos and no data set in a layout that is known{left_out}"
            )
        report.checks.append(
            Check(
                name="annotations",
                status="warn",
                detail=f"none recognised in {folder}: only its videos are checked",
                advice="msvqa doctor RECIPE --data DIR checks the annotations that RECIPE names",
            )
        )
    else:
        from msvqa.data.dataset import open_dataset
        from msvqa.data.media import Media
        from msvqa.data.schema import Problem

        dataset = open_dataset(config.model_copy(update={"root": str(folder.absolute())}))
        media = []
        try:
            annotated = dataset.annotate()
        except DataError as error:
            report.problems.append(Problem(kind="invalid_source", detail=str(error)))
            report.checks.append(_annotation_check(config.name, report.problems))
        else:
            report.problems += annotated.problems
            report.checks.append(_annotation_check(config.name, report.problems))
            report.checks += _cautions(annotated)
            media = [medium for medium in Media(annotated.media, "") if medium.path]
    report.probes = probe_media(folder, {m.path: m.kind for m in media}, timeout_s)
    contents = [_content(path, probe) for path, probe in report.probes.items()]
    problems = [problem for problem in contents if problem is not None]
    problems += _spans(media, report.probes)
    report.problems += problems
    report.checks.append(
        _video_check(
            f"{len(report.probes) or 'none'} in {folder}", report.probes, problems, left_out
        )
    )


def recognise(folder: Path, overrides: Sequence[str] = ()) -> DataConfig:
    """Return the data section for a folder in a published layout, or with nothing but videos.

    Raises:
        DataError: no such folder.
        RecipeError: an override of the section that is wrong.
    """
    if not folder.is_dir():
        raise DataError(f"no folder {folder}")
    found = (
        name for name, entries in LAYOUTS if all((folder / entry).exists() for entry in entries)
    )
    ours = [override for override in overrides if override.startswith("data.")]
    fields = {"root": str(folder), "allow_missing": True}
    if (name := next(found, None)) is None:
        return parse_data("table", ours, **fields).model_copy(update={"name": ANY_VIDEOS})
    return parse_data(name, ours, **fields)


def _cautions(annotated: "Annotated") -> list[Check]:
    """Return what people should know of their examples before they train."""
    name = annotated.kind.name
    said = annotated.kind.cautions(annotated)
    return [Check(name=name, status="warn", detail=detail) for detail in said]


def probe_media(folder: Path, kinds: Mapping[str, str], timeout_s: float) -> dict[str, "Probe"]:
    """Read every medium from end to end, in child processes that may hang or die.

    Args:
        folder: where they are.
        kinds: what each is, by name; records are left out.
        timeout_s: longest time for one.

    Returns:
        What was found, by name, in the order of the names.
    """
    from msvqa.data.video import IsolatedDecoder

    files = sorted(name for name, kind in kinds.items() if kind != "record")
    workers = max(1, min(len(os.sched_getaffinity(0)), MAX_WORKERS, len(files)))

    def read(share: Sequence[str]) -> list["Probe"]:
        decoder = IsolatedDecoder(timeout_s, pixels=False)
        try:
            return [decoder.probe(folder / name, kinds[name]) for name in share]
        finally:
            decoder.close()

    shares = [files[worker::workers] for worker in range(workers)]
    with ThreadPoolExecutor(workers) as threads:
        found = list(threads.map(read, shares))
    return {name: found[n % workers][n // workers] for n, name in enumerate(files)}


def _spans(media: Sequence["Medium"], probes: Mapping[str, "Probe"]) -> list["Problem"]:
    """Return the spans that begin after the end of their video."""
    from msvqa.data.schema import Problem
    from msvqa.data.video import outside

    problems = []
    for medium in media:
        length = probes[medium.path].duration_s if medium.path in probes else 0.0
        if medium.kind == "video" and length and (medium.start or 0.0) >= length:
            detail = f"{medium.path}: {outside(medium, length)}"
            problems.append(
                Problem(kind="outside_video", path=medium.path, video_id=medium.id, detail=detail)
            )
    return problems


def _content(path: str, found: "Probe") -> "Problem | None":
    from msvqa.data.schema import Problem

    if found.outcome == "ok":
        return None
    frames = f" ({found.num_frames} frames)" if found.num_frames else ""
    return Problem(kind=found.outcome, path=path, detail=f"{found.problem}{frames}")


def _annotation_check(name: str, problems: Sequence["Problem"]) -> Check:
    failing = [problem for problem in problems if problem.kind not in HARMLESS_KINDS]
    status: Status = "fail" if failing else "warn" if problems else "ok"
    return Check(
        name="annotations",
        status=status,
        detail=f"{name}: {len(problems)} problems"
        + (f", {len(failing)} of them must be put right" if problems else ""),
        advice=_first_details(failing or problems),
    )


def _video_check(
    where: str, probes: dict[str, "Probe"], problems: list["Problem"], left_out: str
) -> Check:
    from msvqa.data.readers import OUTCOMES

    if not probes:
        return Check(name="videos", status="warn", detail=where)
    outcomes = [found.outcome for found in probes.values()]
    outcomes += [problem.kind for problem in problems if problem.kind == "outside_video"]
    counts = [f"{outcomes.count(o)} {o}" for o in OUTCOMES if o in outcomes]
    bad = [problem for problem in problems if problem.kind not in HARMLESS_KINDS]
    advice = []
    if bad:
        advice.append("replace these files; training leaves them out with data.allow_missing")
    if problems:
        advice.append(_first_details(bad or problems, VIDEOS_SHOWN))
    return Check(
        name="videos",
        status="fail" if bad else "warn" if problems else "ok",
        detail=f"{where}: {', '.join(counts)}{left_out}",
        advice="\n  ".join(advice),
    )


def _first_details(problems: Sequence["Problem"], shown: int = 3) -> str:
    more = [f"and {len(problems) - shown} more"] if len(problems) > shown else []
    return "\n  ".join([*(problem.detail for problem in problems[:shown]), *more])
