"""Footage: frames of a run's videos, from its store where it is there, else from the files."""

import hashlib
from collections.abc import Iterable
from contextlib import suppress

import numpy as np

from msvqa.data.prepared import Prepared, prepared_location
from msvqa.data.processors.processor import processor_here, store_location
from msvqa.data.split import Split
from msvqa.data.store import Store
from msvqa.errors import DataError, IncompleteError, StoreError, VideoError
from msvqa.recipe import Recipe

HELD_OUT = ("val", "test")


class Footage:
    """What is left of a run's data. Nothing is prepared or extracted; what is absent is said."""

    def __init__(self, recipe: Recipe) -> None:
        self.processor = processor_here(recipe)
        self.prepared: Prepared | None = None
        self.store: Store | None = None
        self.problems: list[str] = []
        """Why the prepared folder or the store cannot be used."""
        self.clips: dict[str, np.ndarray] = {}
        """uint8 (C, F, H, W, 3) of the videos that were loaded"""
        self.reasons: dict[str, str] = {}
        """Why a video that was asked for has no frames."""
        try:
            self.prepared = Prepared.open(prepared_location(recipe.data))
        except DataError as error:
            self.problems.append(str(error))
        try:
            self.store = Store.open(store_location(recipe), self.processor.spec())
        except DataError as error:
            # Without a store frames are decoded; a recipe may have asked for that.
            if self.processor.way == "store":
                self.problems.append(str(error))

    def splits(self) -> list[Split]:
        """Return the splits that are prepared, with the videos that are present."""
        if self.prepared is None:
            return []
        return [self.prepared.split(name) for name in self.prepared.splits]

    def load(self, video_ids: Iterable[str]) -> None:
        """Put the clips of videos into `clips`, or the reasons why not into `reasons`."""
        absent = []
        for video in dict.fromkeys(video_ids):
            if video in self.clips or video in self.reasons:
                continue
            # A store that is made anew meanwhile has the video no more, or not yet.
            with suppress(StoreError, IncompleteError):
                self.clips |= self._stored(video)
            if video not in self.clips:
                absent.append(video)
        if absent:
            self._decode(absent)

    def _stored(self, video: str) -> dict[str, np.ndarray]:
        """Return the clips of a video, by its id, if the store has any."""
        is_pixels = self.processor.pictures is self.processor
        if not self.store or video not in self.store or not is_pixels:
            return {}
        return {video: self.processor.shown(self.store.read(video))}

    def _decode(self, videos: list[str]) -> None:
        media = {medium.id: medium for split in self.splits() for medium in split.media}
        if (pictures := self.processor.pictures) is None:
            self.reasons |= dict.fromkeys(videos, "what the model sees has no pictures")
            return
        extractor = pictures.extractor()
        try:
            for video in videos:
                if video not in media:
                    self.reasons[video] = "the video is no longer there"
                    continue
                try:
                    self.clips[video] = pictures.shown(extractor.arrays(media[video]))
                except VideoError as error:
                    self.reasons[video] = str(error)
        finally:
            extractor.close()


def held_out(footage: Footage, count: int) -> tuple[Split | None, list[str]]:
    """Return a split to show media of, and the first ones by a hash of their names that have clips.

    Validation comes first; None and nothing where no split is there.
    """
    splits = [split for split in footage.splits() if split.name in HELD_OUT and len(split)]
    if not splits:
        return None, []
    split = min(splits, key=lambda split: HELD_OUT.index(split.name))
    media = sorted(split.media.id, key=lambda v: hashlib.sha256(v.encode()).hexdigest())[:count]
    footage.load(media)
    return split, [medium for medium in media if medium in footage.clips]
