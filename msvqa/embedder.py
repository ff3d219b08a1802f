"""Embeddings of single videos, by a run whose last stage describes titled videos.

Legend: B videos, S pieces of a title, E width of an embedding.
"""

import logging
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import torch
from torch import Tensor

from msvqa.data.examples.examples import Examples
from msvqa.data.examples.titled import TitledConfig
from msvqa.data.medium import Medium
from msvqa.data.processors.processor import Processor, processor_here
from msvqa.data.store import Arrays
from msvqa.data.subwords import Subwords
from msvqa.engine.checkpoint import Loaded, load_checkpoint
from msvqa.engine.prediction import answer_of, objective_of
from msvqa.errors import DataError, RunError, VideoError, did_you_mean
from msvqa.evaluate import Asked
from msvqa.metrics import cosines
from msvqa.objectives import OBJECTIVES
from msvqa.objectives.describing import Describing
from msvqa.recipe import Recipe
from msvqa.run import Run
from msvqa.sections import resolve

if TYPE_CHECKING:
    from msvqa.data.prepared import Prepared

logger = logging.getLogger(__name__)


@dataclass(frozen=True)
class TitledVideo:
    """What there is to embed."""

    medium: Medium
    title: str = ""


class Embedder:
    """A trained model that embeds titled videos, and says how alike two of them are."""

    def __init__(
        self, run: Run, loaded: Loaded, device: str | None = None, on: str | None = None
    ) -> None:
        """Take a model that is loaded.

        Args:
            run: the run that it is of.
            loaded: its checkpoint.
            device: `cuda` or `cpu`; None: a GPU where there is one.
            on: evaluation of the recipe whose data ids are of; None: the data of the last stage.

        Raises:
            RunError: its data says nothing of how titles become ids.
        """
        asked = Asked.of(run, (), None if on else "train", on)
        if not isinstance(asked.recipe.data, TitledConfig):
            raise RunError(f"{run.location}: data {asked.recipe.data.name!r} has no titles")
        self.run, self.loaded, self._asked, self._on = run, loaded, asked, on
        self._length: int = asked.recipe.data.text_length
        self.device = torch.device(device or ("cuda" if torch.cuda.is_available() else "cpu"))
        self.objective = objective_of(loaded).to(self.device)

    def __repr__(self) -> str:
        return f"Embedder({self.loaded.location!r})"

    @cached_property
    def processor(self) -> Processor:
        """What reads the videos."""
        return processor_here(self._asked.recipe)

    def embed(self, video: str | Path, title: str | None = None) -> np.ndarray:
        """Return the embedding, float32 (E,), of a file, or of a video of the data by its id.

        Args:
            video: a file that the run's processor reads, or else an id.
            title: None: that of the data, or for a file an empty one, and that is logged.

        Raises:
            DataError: there is no such file and no such id.
            VideoError: the file cannot be read.
            CheckpointError: the embedding is not finite.
        """
        found = self.find(video, title)
        (arrays,) = self.processor.uncompiled().arrays([found.medium])
        vector: np.ndarray = self.embed_arrays([arrays], [found.title])[0]
        return vector

    def similarity(
        self, first: str | Path, second: str | Path, titles: Sequence[str | None] = (None, None)
    ) -> float:
        """Return the cosine of the embeddings of two videos, 0 where one of them is zero.

        Raises:
            DataError, VideoError, CheckpointError: as `embed`.
        """
        pairs = zip((first, second), titles, strict=True)
        both = np.stack([self.embed(video, title) for video, title in pairs])
        return float(cosines(both, np.array([[0, 1]]))[0])

    def embed_arrays(self, videos: Sequence[Arrays], titles: Sequence[str]) -> np.ndarray:
        """Return the embeddings, float32 (B, E), of what the processor has read of B videos.

        Raises:
            CheckpointError: one is not finite.
        """
        drawn = [self.processor.draw(arrays, None) for arrays in videos]
        batch = {
            name: torch.from_numpy(np.stack([arrays[name] for arrays in drawn]))
            for name in drawn[0]
        }
        batch |= self._titles(titles)
        found = answer_of(self.loaded, self.objective.embed, batch, self.device)  # type: ignore[arg-type]
        vectors: np.ndarray = found["embedding"].numpy()
        return vectors

    def find(self, video: str | Path, title: str | None = None) -> TitledVideo:
        """Return the medium of a file or an id, and its title.

        Raises:
            DataError: there is neither; names the id that is nearest.
        """
        if Path(video).is_file():
            if title is None:
                logger.warning("%s: no title is given, so it is embedded with an empty one", video)
            return TitledVideo(Medium.of_file(video), title or "")
        if Path(video).name != str(video):
            raise DataError(f"{video}: there is no such file")
        return self._of_data(str(video), title)

    def _of_data(self, name: str, title: str | None) -> TitledVideo:
        known: list[str] = []
        for split_name in self._prepared.splits:
            split = self._prepared.split(split_name, present_only=False)
            if name not in split.media.id:
                known += split.media.id
                continue
            row = split.media.id.index(name)
            medium = split.media.medium(row)
            if not medium.path:
                raise DataError(f"video {name!r} of {self._prepared.root} has no file")
            return TitledVideo(medium, _title(split.examples, row) if title is None else title)
        raise DataError(
            f"{name!r} is no file, and no video of {self._prepared.root} "
            f"{f'in evaluation {self._on!r} ' if self._on else ''}has this id"
            f"{did_you_mean(name, known)}: a run that embeds videos takes files, or ids of its data"
        )

    @cached_property
    def _prepared(self) -> "Prepared":
        return self._asked.prepare()

    def _titles(self, titles: Sequence[str]) -> dict[str, Tensor]:
        encoded = self.loaded.lexicon.of(Subwords).encode(titles, self._length)
        mask = np.arange(self._length) < encoded.count[:, None]
        tokens = torch.from_numpy(encoded.ids.astype(np.int64))
        return {"tokens": tokens, "token_mask": torch.from_numpy(mask)}


def embeds(recipe: Recipe) -> bool:
    """Whether the last stage of a recipe embeds titled videos."""
    kind = resolve(recipe.stages[-1].objective.name, OBJECTIVES, "objective")
    return issubclass(kind, Describing)


def open_embedder(run: str | Path, *, device: str | None = None, on: str | None = None) -> Embedder:
    """Return the model of a run's last stage, ready to embed.

    Raises:
        RunError: the last stage does not embed titled videos, or has no checkpoint.
    """
    opened = Run.open(run)
    if not embeds(opened.recipe):
        stage = opened.recipe.stages[-1]
        raise RunError(
            f"{opened.location}: its last stage, {stage.name!r} ({stage.objective.name}), does not "
            "embed titled videos: a run that ends with tagging or similarity does"
        )
    return Embedder(opened, load_checkpoint(opened.locate(opened.checkpoint())), device, on)


def readable(
    processor: Processor, media: Iterable[Medium]
) -> Iterator[tuple[Medium, Arrays | VideoError]]:
    """Yield what a processor reads of each medium, or why it cannot."""
    extractor = processor.extractor()
    try:
        for medium in media:
            try:
                found: Arrays | VideoError = extractor.arrays(medium)
            except VideoError as error:
                found = error
            yield medium, found
    finally:
        extractor.close()


def _title(examples: Examples, row: int) -> str:
    """Return the title of a medium: what the first example about it says."""
    places = np.argwhere(examples.media.reshape(len(examples), -1) == row)
    if not len(places):
        return ""
    example, side = places[0].tolist()
    title: str = examples.table["titles"][example].as_py()[side]
    return title
