"""Videos and texts compared by a run whose last stage has aligned the two.

Legend: E width of the space that both are in.
"""

import logging
from collections.abc import Callable
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from msvqa.data.batch import Batch, with_images
from msvqa.data.lexicon import Lexicon
from msvqa.data.medium import Medium
from msvqa.data.pieces import PiecesConfig, clean, encoded
from msvqa.data.processors.processor import Processor, processor_here
from msvqa.data.subwords import Subwords
from msvqa.data.text import Vocabulary, tokenize
from msvqa.engine.checkpoint import Loaded
from msvqa.engine.prediction import answer_of, objective_of
from msvqa.errors import DataError, RunError
from msvqa.objectives import OBJECTIVES
from msvqa.objectives.alignment import Alignment
from msvqa.recipe import DataConfig, Recipe
from msvqa.sections import resolve

logger = logging.getLogger(__name__)


class Matcher:
    """A trained model that has videos and texts in one space."""

    def __init__(self, loaded: Loaded, device: str | None = None) -> None:
        """Take a model that is loaded, to `cuda` or `cpu`; None: a GPU where there is one."""
        self.loaded = loaded
        self.device = torch.device(device or ("cuda" if torch.cuda.is_available() else "cpu"))
        objective = objective_of(loaded)
        assert isinstance(objective, Alignment)
        self.objective = objective.to(self.device)
        self._processor = processor_here(loaded.view)
        if self._processor.pictures is not self._processor:
            raise RunError(
                f"{loaded.location} was trained on features: what makes them of a file is not "
                "known; `msvqa evaluate` asks it about its own data"
            )

    def __repr__(self) -> str:
        return f"Matcher({self.loaded.location!r})"

    def encode_video(self, video: str | Path) -> np.ndarray:
        """Return the vector of a file, float32 (E,) of length 1.

        Raises:
            VideoError: the file yields no frames, or there is none.
            CheckpointError: the vector is not finite.
        """
        return self._asked(self.objective.encode_video, "vector", seen(self._processor, video))

    def encode_text(self, text: str) -> np.ndarray:
        """Return the vector of a text, float32 (E,) of length 1: its product with that of a video
        is how near they are. Words that are not known are logged.

        Raises:
            DataError: the text has no words.
            CheckpointError: the vector is not finite.
        """
        return self._asked(self.objective.encode_text, "vector", self._text(text))

    def match(self, video: str | Path, text: str) -> float:
        """Return how probable it is that a text belongs to a video, to a model that sees both.

        Raises:
            RunError: the model has no part that sees both.
            VideoError, DataError, CheckpointError: as `encode_video` and `encode_text`.
        """
        if not self.objective.can_match:
            raise RunError(
                f"{self.loaded.location}: the model has no part that sees a video beside a text: "
                "compare encode_video and encode_text"
            )
        if not self.objective.config.matching:
            logger.warning(
                "%s was trained without `matching`: what it says of a video beside a text is what "
                "it began with",
                self.loaded.location,
            )
        batch = seen(self._processor, video) | self._text(text)
        batch["video_index"] = torch.zeros(1, dtype=torch.int64)
        score = self._asked(self.objective.match, "score", batch)
        return float(torch.sigmoid(torch.tensor(float(score))))

    def _text(self, text: str) -> Batch:
        ids = read_text(text, self.loaded.lexicon, self.loaded.view.data)
        return {"text": torch.tensor([ids]), "text_length": torch.tensor([len(ids)])}

    def _asked(
        self, method: Callable[[Batch], dict[str, Tensor]], key: str, batch: Batch
    ) -> np.ndarray:
        """Return the only row of what a method answers."""
        answer: np.ndarray = answer_of(self.loaded, method, batch, self.device)[key][0].numpy()
        return answer


def aligns(recipe: Recipe) -> bool:
    """Whether the last stage of a recipe aligns videos and texts."""
    kind = resolve(recipe.stages[-1].objective.name, OBJECTIVES, "objective")
    return issubclass(kind, Alignment)


def seen(processor: Processor, video: str | Path) -> Batch:
    """Return what a processor makes of a file, as a batch of one medium.

    Raises:
        VideoError: it yields nothing, or there is no such file.
    """
    medium = Medium.of_file(video)
    (arrays,) = processor.arrays([medium])
    drawn = processor.draw(arrays, None)
    batch = {name: torch.from_numpy(array)[None] for name, array in drawn.items()}
    if medium.kind != "image":
        return batch
    return with_images(batch, torch.ones(1, dtype=torch.bool), alone=True)


def read_text(text: str, lexicon: Lexicon, data: DataConfig) -> list[int]:
    """Return the ids of a caption or question as the data has them; log words that are not known.

    Raises:
        DataError: it has no words.
    """
    words = tokenize(text)
    if not words:
        raise DataError(f"{text!r} has no words")
    if Subwords.name in lexicon.names and isinstance(data, PiecesConfig):
        subwords, plain = lexicon.of(Subwords), clean(text)
        if not plain:
            raise DataError(f"{text!r} has no words")
        pieces: list[int] = encoded(subwords, [plain], data.text_length)[0].as_py()
        if subwords.unknown_id in pieces:
            logger.warning("%r has words that the vocabulary cannot cut into pieces", text)
        return pieces
    vocabulary = lexicon.of(Vocabulary)
    if unknown := vocabulary.unknown(words):
        logger.warning("not among the words of training: %s", ", ".join(unknown))
    return vocabulary.encode(words)
