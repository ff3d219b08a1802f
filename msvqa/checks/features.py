"""Are the rows of feature files there, and are they numbers that can be trained on."""

import logging
from collections.abc import Sequence

from msvqa.checks.report import Check, Status
from msvqa.data.annotations import several
from msvqa.data.features import FeatureFiles, Survey
from msvqa.data.prepared import Prepared
from msvqa.data.processors.processor import processor_of, store_location, store_spec
from msvqa.data.store import Store
from msvqa.errors import DataError, StoreError
from msvqa.recipe import Recipe

logger = logging.getLogger(__name__)

NAMES_SHOWN = 20
ADVICE = "mend these rows, or go on without their videos: data.allow_missing=true"


def check_features(recipe: Recipe, prepared: Prepared) -> None:
    """Look at every row of the feature files that a recipe names, if it names any.

    Raises:
        DataError: videos have no row or one that cannot be used, and `data.allow_missing` is not
            set, or no training video is left.
    """
    files = processor_of(recipe).files()
    if files is None:
        return
    video_ids = _video_ids(prepared)
    _need_rows(recipe, files, video_ids)
    present = [video for video in video_ids if video in files]
    survey = survey_features(recipe, files, present)
    for place, videos in survey.zero.items():
        logger.warning(
            "%s: the rows of %d of %d videos hold nothing but zeros: %s",
            place, len(videos), len(video_ids), _names(videos),
        )  # fmt: skip
    if not survey.unusable:
        return
    lines = [f"video {video}: {cause}" for video, cause in survey.unusable.items()]
    found = f"{len(lines)} of {len(video_ids)} videos have features that cannot be used:"
    usable = set(present) - set(survey.unusable)
    if recipe.data.allow_missing and not usable.isdisjoint(prepared.split("train", False).media.id):
        logger.warning("%s\n%s\nthey are left out", found, several(lines))
        return
    advice = "no training video is left" if recipe.data.allow_missing else ADVICE
    raise DataError(f"{found}\n{several(lines)}\n{advice}")


def feature_checks(recipe: Recipe) -> list[Check]:
    """Report on every row of the feature files that a recipe names, if it names any."""
    files = processor_of(recipe).files()
    if files is None:
        return []
    video_ids = files.video_ids
    survey = survey_features(recipe, files, video_ids)
    lines = [f"video {video}: {cause}" for video, cause in survey.unusable.items()]
    zeros = [
        f"{place}: nothing but zeros for {_names(videos)}" for place, videos in survey.zero.items()
    ]
    found = f"{len(video_ids)} videos in {files}, {len(lines)} of them cannot be used"
    failed = lines and not recipe.data.allow_missing
    status: Status = "fail" if failed else "warn" if lines or zeros else "ok"
    shown = [several(lines)] if lines else []
    return [
        Check(
            name="features",
            status=status,
            detail="\n".join([found, *shown, *zeros]),
            advice=ADVICE if lines else "",
        )
    ]


def survey_features(recipe: Recipe, files: FeatureFiles, video_ids: Sequence[str]) -> Survey:
    """Return what is wrong with the rows of videos.

    Where all of them are extracted already, only those are looked at again that were refused.
    """
    try:
        store = Store.open(store_location(recipe), store_spec(recipe))
    except StoreError:
        return files.survey(video_ids)
    known = {*store.video_ids, *store.rejected}
    if not (store.is_finite and known.issuperset(video_ids)):
        return files.survey(video_ids)
    refused = [video for video in video_ids if video in store.rejected]
    causes = {video: files.problem(video) for video in refused}
    return Survey(unusable={video: cause for video, cause in causes.items() if cause})


def _names(video_ids: Sequence[str]) -> str:
    """Return the first of many names, and how many more there are."""
    more = f" and {len(video_ids) - NAMES_SHOWN} more" if len(video_ids) > NAMES_SHOWN else ""
    return ", ".join(video_ids[:NAMES_SHOWN]) + more


def _need_rows(recipe: Recipe, files: FeatureFiles, video_ids: Sequence[str]) -> None:
    """Refuse files that lack videos, by name: known before anything starts."""
    missing = [video for video in video_ids if video not in files]
    if not missing or (recipe.data.allow_missing and len(missing) < len(video_ids)):
        return
    advice = (
        "go on without them: data.allow_missing=true"
        if len(missing) < len(video_ids)
        else f"are these the features of {recipe.data.root}?"
    )
    raise DataError(
        f"{len(missing)} of {len(video_ids)} videos have no row in {files}\n"
        f"{several(missing)}\n{advice}"
    )


def _video_ids(prepared: Prepared) -> list[str]:
    """Return the videos of all splits."""
    splits = [prepared.split(name, present_only=False) for name in prepared.splits]
    return sorted({video for split in splits for video in split.media.id})
