"""What a stage reads: prepared questions, and video tensors from a store or decoded on the fly."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import partial

from msvqa.data.dataset import Prepared, Split
from msvqa.data.loader import VideoArrays, VideoSource
from msvqa.data.sampling import sample_clips
from msvqa.data.store import Store
from msvqa.data.video import IsolatedDecoder
from msvqa.errors import DataError
from msvqa.models.model import Sizes
from msvqa.recipe import ClipsConfig, Recipe


@dataclass(frozen=True)
class StoreSource:
    """Video tensors from a store: views of memory-mapped shards."""

    store: Store
    split: Split

    def videos(self, rows: Sequence[int]) -> Iterator[VideoArrays]:
        """Yield the stored arrays of the split's videos."""
        return (self.store.read(self.split.video_id[row]) for row in rows)


@dataclass(frozen=True)
class StreamSource:
    """Video tensors decoded by Ray Data while training runs."""

    split: Split
    clips: ClipsConfig
    data_workers: int

    def videos(self, rows: Sequence[int]) -> Iterator[VideoArrays]:
        """Yield the clips of the split's videos in order.

        Raises:
            DataError: a video cannot be decoded; it must not become silent zeros.
        """
        from msvqa.engine.ingest import stream_clips

        paths = [self.split.path[row] for row in rows]
        for row, item in zip(rows, stream_clips(paths, self.clips, self.data_workers), strict=True):
            if item["error"]:
                raise DataError(
                    f"video {self.split.video_id[row]} ({self.split.path[row]}): {item['error']}; "
                    "run `msvqa doctor --data` and take it out, or use clips.cache=store"
                )
            yield {"clips": item["clips"]}


@dataclass(frozen=True)
class DecodingSource:
    """Video tensors decoded one after another, for a few videos without Ray."""

    split: Split
    clips: ClipsConfig

    def videos(self, rows: Sequence[int]) -> Iterator[VideoArrays]:
        """Yield the clips of the split's videos."""
        return decode_videos([self.split.path[row] for row in rows], self.clips)


def decode_videos(paths: Sequence[str], clips: ClipsConfig) -> Iterator[VideoArrays]:
    """Yield the clips of video files, decoded in a child process that may hang or die.

    Raises:
        VideoError: a file yields no frames.
    """
    plan = partial(
        sample_clips, num_clips=clips.num_clips, frames_per_clip=clips.frames_per_clip
    )
    decoder = IsolatedDecoder(clips.timeout_s)
    try:
        for path in paths:
            decoded = decoder(path, plan, [clips.size_px], clips.decoder)
            yield {"clips": decoded.frames[clips.size_px]}
    finally:
        decoder.close()


@dataclass(frozen=True, kw_only=True)
class Inputs:
    """One split with the source of its videos. Videos that the store rejected are left out."""

    split: Split
    source: VideoSource


def open_inputs(recipe: Recipe, prepared: Prepared, store_path: str | None, split: str) -> Inputs:
    """Open a split for reading.

    Args:
        recipe: the recipe.
        prepared: the prepared folder.
        store_path: the extracted store; None where videos are decoded while training runs.
        split: name of the split.
    """
    questions = prepared.split(split)
    if store_path is None:
        workers = recipe.scaling.data_workers or 1
        return Inputs(split=questions, source=StreamSource(questions, recipe.clips, workers))
    store = Store.open(store_path)
    absent = [video for video in questions.video_id if video not in store]
    unexplained = sorted(set(absent) - set(store.rejected))
    if unexplained:
        raise DataError(
            f"{store_path} lacks {len(unexplained)} videos of split {split!r}, the first is "
            f"{unexplained[0]}: run `msvqa extract` again"
        )
    questions = questions.without(absent)
    return Inputs(split=questions, source=StoreSource(store, questions))


def model_sizes(recipe: Recipe, prepared: Prepared) -> Sizes:
    """Return what a model of the recipe must know of its data."""
    features = recipe.features
    return Sizes(
        vocabulary=len(prepared.vocabulary),
        answers=len(prepared.answers),
        num_clips=recipe.clips.num_clips,
        frames_per_clip=recipe.clips.frames_per_clip,
        size_px=recipe.clips.size_px,
        appearance_width=features.appearance_width if features else None,
        motion_width=features.motion_width if features else None,
        word_size=recipe.data.word_size,
    )
