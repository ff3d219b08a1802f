"""What a stage reads: prepared examples, and arrays of their media from a store or made anew."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from itertools import islice

import numpy as np
import torch

from msvqa.data.batch import Batch, to_device
from msvqa.data.buffers import Buffers
from msvqa.data.chance import Chance
from msvqa.data.examples import EXAMPLES
from msvqa.data.folds import dealt, read_split
from msvqa.data.loader import MediaSource
from msvqa.data.order import chunks
from msvqa.data.prepared import Prepared
from msvqa.data.processors.clock import Decoders
from msvqa.data.processors.processor import Processor, processor_of, say_who_read
from msvqa.data.split import Split
from msvqa.data.store import Arrays, Store
from msvqa.errors import DataError
from msvqa.models.model import Sizes
from msvqa.recipe import Recipe
from msvqa.sections import resolve

VIDEOS_PER_COPY = 64
OF_NO_DATA = {
    words.name: 2 for name in EXAMPLES for words in resolve(name, EXAMPLES, "kind of example").lists
}
"""Sizes of word lists that hold nothing yet."""


@dataclass(frozen=True)
class StoreSource:
    """Arrays of media from a store: views of memory-mapped shards."""

    store: Store
    split: Split
    processor: Processor
    buffers: Buffers = field(default_factory=Buffers)

    def batches(
        self, groups: Sequence[Sequence[int]], chance: Chance | None = None
    ) -> Iterator[Batch]:
        """Yield what is drawn of the stored arrays, copied once: into buffers used again."""
        ids, draw = self.split.media.id, self.processor.draw
        for rows in groups:
            yield self.buffers.stack(
                [draw(self.store.read(ids[row]), _generator(chance, row)) for row in rows]
            )


class EmptySource:
    """Nothing: there are no arrays, or they are on the device already, see `Inputs.resident`."""

    def batches(
        self, groups: Sequence[Sequence[int]], chance: Chance | None = None
    ) -> Iterator[Batch]:
        """Yield an empty batch for every group."""
        return ({} for _ in groups)


@dataclass(frozen=True)
class DirectSource:
    """Arrays of media made here, one after another: for what is read quickly, or for a few."""

    split: Split
    processor: Processor

    def batches(
        self, groups: Sequence[Sequence[int]], chance: Chance | None = None
    ) -> Iterator[Batch]:
        """Yield what is drawn of the arrays of the split's media.

        Raises:
            VideoError: a medium has none.
        """
        rows = [row for group in groups for row in group]
        made = self.processor.arrays(self.split.media.medium(row) for row in rows)
        return _stacked(self.processor, zip(rows, made, strict=True), groups, chance)


@dataclass(frozen=True)
class StreamSource:
    """Arrays of media made by other processes while training runs."""

    split: Split
    processor: Processor
    decoders: Decoders

    def batches(
        self, groups: Sequence[Sequence[int]], chance: Chance | None = None
    ) -> Iterator[Batch]:
        """Yield what is drawn of the arrays of the split's media.

        Raises:
            DataError: a medium cannot be decoded; it must not become silent zeros.
        """
        made = self._made([row for rows in groups for row in rows])
        return _stacked(self.processor, made, groups, chance)

    def _made(self, rows: Sequence[int]) -> Iterator[tuple[int, Arrays]]:
        from msvqa.engine.ingest import stream_media

        media = [self.split.media.medium(row) for row in rows]
        stream = stream_media(media, self.processor, self.decoders.workers)
        for row, medium, item in zip(rows, media, stream, strict=True):
            if item.arrays is None:
                raise DataError(
                    f"video {medium.id} ({medium.path}): {item.error}; run `msvqa doctor --data` "
                    f"and take it out, or use {self.processor.section}.cache=store"
                )
            self.decoders.busy_s += item.busy_s
            say_who_read(medium, item.by_pyav)
            yield row, item.arrays


def _stacked(
    processor: Processor,
    made: Iterator[tuple[int, Arrays]],
    groups: Sequence[Sequence[int]],
    chance: Chance | None,
) -> Iterator[Batch]:
    buffers = Buffers()
    drawn = (processor.draw(arrays, _generator(chance, row)) for row, arrays in made)
    return (buffers.stack(list(islice(drawn, len(rows)))) for rows in groups)


def _generator(chance: Chance | None, row: int) -> np.random.Generator | None:
    return None if chance is None else chance.of_medium(row)


@dataclass(frozen=True, kw_only=True)
class Inputs:
    """One split with the source of its videos. Videos that the store rejected are left out."""

    split: Split
    source: MediaSource
    resident: Batch = field(default_factory=dict)
    """Tensors of all videos of the split that are on the device; batches lack these."""

    @property
    def decoders(self) -> Decoders | None:
        """Who makes the arrays while training runs; None: they are there, or made in the loop."""
        return self.source.decoders if isinstance(self.source, StreamSource) else None

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
        store_path: the extracted store; None where the processor keeps none.
        split: name of the split.
        device: where the batches will go, for pinned memory and resident features.
    """
    processor = processor_of(recipe)
    present = {"present_only": processor.reads_files}
    if store_path is None:
        examples = read_split(prepared, split, recipe.folds, **present)
        return Inputs(split=examples, source=_unstored(examples, processor, recipe))
    store = Store.open(store_path)
    examples = read_split(dealt(recipe, prepared, store.copies), split, recipe.folds, **present)
    absent = [video for video in examples.media.id if video not in store]
    unexplained = sorted(set(absent) - set(store.rejected))
    if unexplained:
        raise DataError(
            f"{store_path} lacks {len(unexplained)} videos of split {split!r}, the first is "
            f"{unexplained[0]}: run `msvqa extract` again"
        )
    examples = examples.without(absent)
    on_gpu = device is not None and device.type == "cuda"
    source = StoreSource(store, examples, processor, Buffers(pinned=on_gpu))
    if device and on_gpu and processor.resides_on_device:
        return make_resident(source, device)
    return Inputs(split=examples, source=source)


def _unstored(split: Split, processor: Processor, recipe: Recipe) -> MediaSource:
    if not processor.spec().arrays:
        return EmptySource()
    if processor.way == "direct":
        return DirectSource(split, processor)
    return StreamSource(split, processor, Decoders(recipe.scaling.data_workers or 1))


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
    return Inputs(split=split, source=EmptySource(), resident=resident)


def model_sizes(recipe: Recipe, prepared: Prepared | None) -> Sizes:
    """Return what a model of the recipe must know of its data; without data, of any words."""
    return Sizes(
        **(prepared.lexicon.sizes() if prepared else OF_NO_DATA),
        **processor_of(recipe).sizes(),
        word_size=recipe.data.word_size,
    )
