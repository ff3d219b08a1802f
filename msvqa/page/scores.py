"""Scores of an evaluation that asked no questions: its numbers, and examples to look at."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from msvqa.evaluators.evaluator import Case, evaluator_of_metrics
from msvqa.page.footage import Footage
from msvqa.page.pictures import Picture, spread, strip

FRAMES, FRAMES_ALONE = 2, 6
"""Of each of several media, and of the only one of a case."""


@dataclass(frozen=True)
class ShownMedium:
    """A medium of a case."""

    id: str
    said: str
    picture: Picture | None
    reason: str
    """Why there is no picture."""


@dataclass(frozen=True)
class ShownCase:
    """An example with its answer and the media that belong to it."""

    said: str
    media: Sequence[ShownMedium]


def headline(metrics: Mapping[str, Any]) -> tuple[str, float | None]:
    """Return the number that says most, and its name."""
    name = evaluator_of_metrics(metrics).monitor[0]
    return name.replace("_", " "), metrics.get(name)


def show_cases(
    metrics: Mapping[str, Any], rows: Sequence[Mapping[str, Any]], footage: Footage | None
) -> dict[str, list[ShownCase]]:
    """Return examples with frames, under what they have in common; groups that have some.

    Args:
        metrics: content of metrics.json.
        rows: those of predictions.parquet.
        footage: frames of the data; None where the data is not known any more.
    """
    groups = evaluator_of_metrics(metrics).cases(rows)
    if footage is not None:
        footage.load(
            medium for group in groups.values() for case in group for medium, _ in case.media
        )
    return {
        title: [_shown(case, footage) for case in cases] for title, cases in groups.items() if cases
    }


def _shown(case: Case, footage: Footage | None) -> ShownCase:
    frames = FRAMES if len(case.media) > 1 else FRAMES_ALONE
    return ShownCase(case.said, [_medium(*medium, footage, frames) for medium in case.media])


def _medium(name: str, said: str, footage: Footage | None, frames: int) -> ShownMedium:
    if footage is None:
        return ShownMedium(name, said, None, "the recipe does not name its data any more")
    clips = footage.clips.get(name)
    picture = None if clips is None else strip(spread(clips, frames))
    return ShownMedium(name, said, picture, footage.reasons.get(name, ""))
