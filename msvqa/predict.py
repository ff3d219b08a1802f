"""Predict: answer a question about one video, or compare two, from a run directory alone."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, TypeAlias

import torch
from torch import Tensor

from msvqa.data.processors.processor import processor_here
from msvqa.data.text import AnswerList
from msvqa.embedder import Embedder, embeds, open_embedder
from msvqa.engine.checkpoint import Loaded, load_checkpoint
from msvqa.engine.prediction import answer_of, check_answers, objective_of, writes_answers
from msvqa.errors import RunError
from msvqa.matcher import Matcher, aligns, read_text, seen
from msvqa.run import Run

if TYPE_CHECKING:
    from msvqa.talker import Talker


@dataclass(frozen=True)
class Answer:
    """One possible answer."""

    text: str
    probability: float

    def __str__(self) -> str:
        return f"{self.text} ({self.probability:.1%})"


class Answerer:
    """A trained model that answers questions about video files."""

    def __init__(self, loaded: Loaded, device: str | None = None) -> None:
        if AnswerList.name not in loaded.lexicon.names:
            raise RunError(
                f"{loaded.location} was not trained on questions: it knows no answers; `msvqa "
                "evaluate` asks it about its own data"
            )
        self._processor = processor_here(loaded.view)
        if self._processor.pictures is not self._processor:
            raise RunError(
                f"{loaded.location} was trained on extracted features; answering from a video file "
                "needs a model with its own encoders"
            )
        self.loaded = loaded
        self.device = torch.device(device or ("cuda" if torch.cuda.is_available() else "cpu"))
        self.objective = objective_of(loaded).to(self.device)

    def __repr__(self) -> str:
        return f"Answerer({self.loaded.location!r})"

    def answer(self, video: str | Path, question: str, *, top_k: int = 5) -> list[Answer]:
        """Return the most probable answers, best first; log the words that are not known.

        Raises:
            VideoError: the file yields no frames, or there is none.
            DataError: the question is empty.
            CheckpointError: what the model answers is not finite.
            StorageError: the file is in an object store that cannot be read.
        """
        # The classes of unknown answers are no answers: ask for so many more.
        self.objective.top_k = top_k + len(AnswerList.reserved)
        batch = self._question(question) | seen(self._processor, video)
        about = f"for {question!r} about {video}"
        found = answer_of(self.loaded, self.objective.predict, batch, self.device, about)
        top, probability = found["top"][0].tolist(), found["probability"][0].tolist()
        answers = [
            Answer(self.loaded.lexicon.of(AnswerList).decode(number), p)
            for number, p in zip(top, probability, strict=True)
        ]
        return [a for a in answers if a.text not in AnswerList.reserved][:top_k]

    def _question(self, question: str) -> dict[str, Tensor]:
        words = read_text(question, self.loaded.lexicon, self.loaded.view.data)
        return {
            "question": torch.tensor([words]),
            "question_length": torch.tensor([len(words)]),
            "video_index": torch.zeros(1, dtype=torch.int64),
        }


Pretrained: TypeAlias = "Answerer | Embedder | Matcher | Talker"


def from_pretrained(run: str | Path, *, device: str | None = None) -> Pretrained:
    """Return the model of a finished run (its last stage's best checkpoint), ready to be asked.

    That is an `Embedder` where the last stage embeds titled videos, a `Matcher` where it aligns
    videos and texts, a `Talker` where its model writes answers, else an `Answerer`.

    Raises:
        RunError: it is none of these, as where the last stage distils or classifies.
    """
    opened = Run.open(run)
    check_answers(opened.recipe)
    if embeds(opened.recipe):
        return open_embedder(run, device=device)
    if writes_answers(opened.recipe):
        # Not before: it imports `transformers`, which takes seconds.
        from msvqa.talker import open_talker

        return open_talker(run, device=device)
    loaded = load_checkpoint(opened.locate(opened.checkpoint()))
    return Matcher(loaded, device) if aligns(opened.recipe) else Answerer(loaded, device)


def predict(run: str | Path, video: str | Path, question: str, *, top_k: int = 5) -> list[Answer]:
    """Return the most probable answers of a run's model to a question about a video file.

    Raises:
        RunError: the run compares videos, or what should be a question is a file.
    """
    opened = Run.open(run)
    recipe = opened.recipe
    check_answers(recipe)
    if embeds(recipe):
        raise RunError(f"{run} embeds videos and answers no questions: compare two of them")
    if aligns(recipe):
        raise RunError(
            f"{run} compares videos with texts and answers no questions: in Python "
            "msvqa.from_pretrained(run) has encode_video, encode_text and match"
        )
    if writes_answers(recipe):
        raise RunError(f"{run} writes its answers: ask it with `talk`")
    if Path(question).is_file():
        raise RunError(f"{run} answers questions, and {question} is a file: give it a question")
    loaded = load_checkpoint(opened.locate(opened.checkpoint()))
    return Answerer(loaded).answer(video, question, top_k=top_k)


def compare(
    run: str | Path,
    videos: tuple[str, str],
    titles: Sequence[str] = (),
    *,
    on: str | None = None,
) -> float:
    """Return how alike two videos are to a run's model: the cosine of their embeddings.

    Args:
        run: location of a run whose last stage embeds titled videos.
        videos: files, or ids of the data.
        titles: one for each video, in their order; of videos that have none it is that of the data.
        on: evaluation of the recipe whose data ids are of; None: the data of the last stage.

    Raises:
        RunError: the run does not embed videos, or there are more titles than videos.
        DataError: there is no such file and no such id.
    """
    if len(titles) > len(videos):
        raise RunError(f"{len(titles)} titles for {len(videos)} videos")
    first, second, *_ = [*titles, None, None]
    return open_embedder(run, on=on).similarity(*videos, (first, second))


def talk(run: str | Path, video: str, question: str) -> str:
    """Return what a run's model says to a question about a video file.

    Raises:
        RunError: the model of the run writes no answers.
        DataError: the question is empty.
        VideoError: the file yields no frames, or there is none.
    """
    from msvqa.talker import open_talker

    return open_talker(run).answer(video, question)


def talks_about(run: str | Path) -> bool:
    """Whether a run's model writes its answers."""
    return writes_answers(Run.open(run).recipe)


def compares(run: str | Path) -> bool:
    """Whether a run is asked about two videos, and not a question about one."""
    return embeds(Run.open(run).recipe)
