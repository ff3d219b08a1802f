"""Footage: frames of a run's videos, from its store where it is there, else from the files."""

from collections.abc import Iterable
from functools import partial

import numpy as np

from msvqa.data.prepared import Prepared, prepared_location
from msvqa.data.sampling import sample_clips
from msvqa.data.split import Split
from msvqa.data.store import Store, store_location, store_spec
from msvqa.data.video import IsolatedDecoder
from msvqa.errors import DataError, VideoError
from msvqa.recipe import Recipe


class Footage:
    """What is left of a run's data. Nothing is prepared or extracted; what is absent is said."""

    def __init__(self, recipe: Recipe) -> None:
        self.clips_config = recipe.clips
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
            self.store = Store.open(store_location(recipe), store_spec(recipe))
        except DataError as error:
            # Without a store frames are decoded; a recipe may have asked for that.
            if recipe.clips.cache == "store" or recipe.features is not None:
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
            if self.store and self.store.spec.kind == "clips" and video in self.store:
                self.clips[video] = self.store.read(video)["clips"]
            else:
                absent.append(video)
        if absent:
            self._decode(absent)

    def _decode(self, videos: list[str]) -> None:
        paths = {
            video: path
            for split in self.splits()
            for video, path in zip(split.media.id, split.media.path, strict=True)
        }
        config = self.clips_config
        plan = partial(
            sample_clips, num_clips=config.num_clips, frames_per_clip=config.frames_per_clip
        )
        decoder = IsolatedDecoder(config.timeout_s)
        try:
            for video in videos:
                if video not in paths:
                    self.reasons[video] = "the video is no longer there"
                    continue
                try:
                    decoded = decoder(paths[video], plan, [config.size_px], config.decoder)
                    self.clips[video] = decoded.frames[config.size_px]
                except VideoError as error:
                    self.reasons[video] = str(error)
        finally:
            decoder.close()
