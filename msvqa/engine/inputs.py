"""What a stage reads: prepared questions, and video tensors from a store or decoded on the fly."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from functools import partial
from itertools import islice
from typing import TYPE_CHECKING

import torch

from msvqa.data.batch import Batch, to_device
from msvqa.data.buffers import Buffers, VideoArrays
from msvqa.data.chance import Chance
from msvqa.data.examples.questions import Questions
from msvqa.data.loader import MediaSource
from msvqa.data.order import chunks
from msvqa.data.prepared import Prepared
from msvqa.data.sampling import sample_clips
from msvqa.data.split import Split
from msvqa.data.store import Store
from msvqa.data.video import IsolatedDecoder
from msvqa.errors import DataError
from msvqa.models.model import Sizes
from msvqa.recipe import ClipsConfig, Recipe

if TYPE_CHECKING:
    from msvqa.data.features import FeatureFiles
from msvqa.data.folds import dealt, read_split

VIDEOS_PER_COPY = 64
OF_NO_DATA = {words.name: 2 for words in Questions.lists}
"""Sizes of word lists that hold nothing yet."""


@dataclass(frozen=True)
class StoreSource:
    """Video tensors from a store: views of memory-mapped shards."""

    store: Store
    split: Split
    buffers: Buffers = field(default_factory=Buffers)

    def batches(
        self, groups: Sequence[Sequence[int]], chance: Chance | None = None
    ) -> Iterator[Batch]:
        """Yield the stored arrays of the split's videos, copied once: into buffers used again."""
        for rows in groups:
            ids = [self.split.media.id[row] for row in rows]
            yield self.buffers.stack([self.store.read(video) for video in ids])


class ResidentSource:
    """Nothing: the videos are on the device already, see `Inputs.resident`."""

    def batches(
        self, groups: Sequence[Sequence[int]], chance: Chance | None = None
    ) -> Iterator[Batch]:
        """Yield an empty batch for every group."""
        return ({} for _ in groups)


@dataclass(frozen=True)
class FileSource:
    """Features straight from HDF5 files, for a few videos."""

    split: Split
    files: "FeatureFiles"

    def batches(
        self, groups: Sequence[Sequence[int]], chance: Chance | None = None
    ) -> Iterator[Batch]:
        """Yield the features of the split's videos."""
        for rows in groups:
            ids = [self.split.media.id[row] for row in rows]
            yield Buffers().stack([self.files.read(video) for video in ids])


@dataclass(frozen=True)
class StreamSource:
    """Video tensors decoded by Ray Data while training runs."""

    split: Split
    clips: ClipsConfig
    data_workers: int

    def batches(
        self, groups: Sequence[Sequence[int]], chance: Chance | None = None
    ) -> Iterator[Batch]:
        """Yield the clips of the split's videos in order.

        Raises:
            DataError: a video cannot be decoded; it must not become silent zeros.
        """
        return _stacked(self._videos([row for rows in groups for row in rows]), groups)

    def _videos(self, rows: Sequence[int]) -> Iterator[VideoArrays]:
        from msvqa.engine.ingest import stream_clips

        paths = [self.split.media.path[row] for row in rows]
        for row, item in zip(rows, stream_clips(paths, self.clips, self.data_workers), strict=True):
            if item["error"]:
                media = self.split.media
                raise DataError(
                    f"video {media.id[row]} ({media.path[row]}): {item['error']}; "
                    "run `msvqa doctor --data` and take it out, or use clips.cache=store"
                )
            yield {"clips": item["clips"]}


@dataclass(frozen=True)
class DecodingSource:
    """Video tensors decoded one after another, for a few videos without Ray."""

    split: Split
    clips: ClipsConfig

    def batches(
        self, groups: Sequence[Sequence[int]], chance: Chance | None = None
    ) -> Iterator[Batch]:
        """Yield the clips of the split's videos."""
        paths = [self.split.media.path[row] for rows in groups for row in rows]
        return _stacked(decode_videos(paths, self.clips), groups)


def _stacked(videos: Iterator[VideoArrays], groups: Sequence[Sequence[int]]) -> Iterator[Batch]:
    buffers = Buffers()
    return (buffers.stack(list(islice(videos, len(rows)))) for rows in groups)


def decode_videos(paths: Sequence[str], clips: ClipsConfig) -> Iterator[VideoArrays]:
    """Yield the clips of video files, decoded in a child process that may hang or die.

    Raises:
        VideoError: a file yields no frames.
        StorageError: the object store that has the files cannot be read.
    """
    plan = partial(sample_clips, num_clips=clips.num_clips, frames_per_clip=clips.frames_per_clip)
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
    source: MediaSource
    resident: Batch = field(default_factory=dict)
    """Tensors of all videos of the split that are on the device; batches lack these."""

    def to_device(self, batch: Batch, device: torch.device) -> Batch:
        """Copy a batch to the device; what is resident there is gathered there."""
        batch = to_device(batch, device)
        return batch | {key: whole[batch["video"]] for key, whole in self.resident.items()}


def open_inputs(
    recipe: Recipe,
    prepared: Prepared,
    store_path: str | None,
    split: str,
    device: torch.device | None = None,
) -> Inputs:
    """Open a split for reading.

    Args:
        recipe: the recipe.
        prepared: the prepared folder.
        store_path: the extracted store; None where videos are decoded while training runs.
        split: name of the split.
        device: where the batches will go, for pinned memory and resident features.
    """
    present = {"present_only": recipe.reads_videos}
    if store_path is None:
        questions = read_split(prepared, split, recipe.folds, **present)
        workers = recipe.scaling.data_workers or 1
        return Inputs(split=questions, source=StreamSource(questions, recipe.clips, workers))
    store = Store.open(store_path)
    questions = read_split(dealt(recipe, prepared, store.copies), split, recipe.folds, **present)
    absent = [video for video in questions.media.id if video not in store]
    unexplained = sorted(set(absent) - set(store.rejected))
    if unexplained:
        raise DataError(
            f"{store_path} lacks {len(unexplained)} videos of split {split!r}, the first is "
            f"{unexplained[0]}: run `msvqa extract` again"
        )
    questions = questions.without(absent)
    on_gpu = device is not None and device.type == "cuda"
    source = StoreSource(store, questions, Buffers(pinned=on_gpu))
    if device and on_gpu and recipe.features and recipe.features.resident == "device":
        return make_resident(source, device)
    return Inputs(split=questions, source=source)


def make_resident(source: StoreSource, device: torch.device) -> Inputs:
    """Copy the arrays of all videos of a split to a device, one tensor for each kind.

    Raises:
        DataError: they are larger than the free memory of the GPU.
    """
    split, arrays = source.split, source.store.spec.arrays
    needed = len(split.media) * sum(array.nbytes for array in arrays.values())
    free = torch.cuda.mem_get_info(device)[0] if device.type == "cuda" else needed
    if needed > free:
        raise DataError(
            f"the features of split {split.name!r} need {needed / 1e9:.1f} GB, the GPU has "
            f"{free / 1e9:.1f} GB free: set features.resident=none or features.dtype=float16"
        )
    resident: Batch = {}
    groups = list(chunks(range(len(split.media)), VIDEOS_PER_COPY))
    for number, batch in enumerate(source.batches(groups)):
        first = number * VIDEOS_PER_COPY
        for key, part in batch.items():
            shape = (len(split.media), *part.shape[1:])
            if key not in resident:
                resident[key] = part.new_empty(shape, device=device)
            resident[key][first : first + len(part)] = part
    return Inputs(split=split, source=ResidentSource(), resident=resident)


def model_sizes(recipe: Recipe, prepared: Prepared | None) -> Sizes:
    """Return what a model of the recipe must know of its data; without data, of any words."""
    features = recipe.features
    return Sizes(
        **(prepared.lexicon.sizes() if prepared else OF_NO_DATA),
        num_clips=recipe.clips.num_clips,
        frames_per_clip=recipe.clips.frames_per_clip,
        size_px=recipe.clips.size_px,
        appearance_width=features.appearance_width if features else None,
        motion_width=features.motion_width if features else None,
        word_size=recipe.data.word_size,
    )
