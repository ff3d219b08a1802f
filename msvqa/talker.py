"""A trained model that is talked to about videos, from a run directory alone.

Legend: T frames, n letters.
"""

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor
from transformers import StoppingCriteria, TextStreamer

from msvqa.data.batch import with_images
from msvqa.data.conversations.conversation import Conversation, Turn
from msvqa.data.medium import Medium, kind_of
from msvqa.data.processors.frames import Frames
from msvqa.data.processors.processor import processor_here
from msvqa.data.resize import resize
from msvqa.engine.checkpoint import Loaded, load_checkpoint
from msvqa.engine.precision import autocast
from msvqa.engine.prediction import objective_of, writes_answers
from msvqa.errors import DataError, RunError
from msvqa.mvbench.adapters.adapter import Adapter, Source
from msvqa.mvbench.prompts import Prompt
from msvqa.objectives.generation import Generation
from msvqa.run import Run

ROLES = ("system", "user", "assistant")
Messages = Sequence[Mapping[str, str]]
"""Turns of a conversation: `role`, one of `ROLES`, and `content`."""


class Talker:
    """A model that writes its answers."""

    def __init__(self, loaded: Loaded, device: str | None = None) -> None:
        processor = processor_here(loaded.view)
        if not isinstance(processor, Frames):
            raise RunError(f"{loaded.location} does not see frames: it cannot be shown a video")
        self._processor = processor
        self.loaded = loaded
        self.device = torch.device(device or ("cuda" if torch.cuda.is_available() else "cpu"))
        found = objective_of(loaded)
        assert isinstance(found, Generation)
        self.objective = found.to(self.device)
        self._seen: tuple[str, Tensor] | None = None

    def __repr__(self) -> str:
        return f"Talker({self.loaded.location!r})"

    def answer(
        self,
        video: str | Path | None,
        messages: str | Messages,
        *,
        on_words: Callable[[str], None] | None = None,
        stops: Callable[[], bool] | None = None,
    ) -> str:
        """Return what the model says to the last message about a video.

        Args:
            video: a file, also an image or a folder of frames; None: a conversation without.
            messages: a question, or a conversation that ends with one: `[{"role": "user",
                "content": ...}, {"role": "assistant", ...}, {"role": "user", ...}]`.
            on_words: called with each piece of the answer as it is written.
            stops: asked after each word; the answer ends where it says so.

        Raises:
            DataError: the messages are no conversation that ends with a question.
            VideoError: the file yields no frames, or there is none.
        """
        kind = "text" if video is None else kind_of(video)
        conversation = conversation_of(messages, kind)
        batch = {} if video is None else self._batch(self._frames(video))
        if kind == "image":
            batch = with_images(
                batch, torch.ones(1, dtype=torch.bool, device=self.device), alone=True
            )
        return self.respond(batch, conversation, on_words=on_words, stops=stops)

    def respond(
        self,
        batch: dict[str, Tensor],
        conversation: Conversation,
        *,
        on_words: Callable[[str], None] | None = None,
        stops: Callable[[], bool] | None = None,
        **besides: Any,
    ) -> str:
        """Return the answer to a conversation about frames that are on the device."""
        if on_words is not None:
            besides["streamer"] = _Spoken(self.objective, on_words)
        if stops is not None:
            besides["stopping_criteria"] = [_Asks(stops)]
        with torch.inference_mode(), autocast(self.device, self._precision):
            (text,) = self.objective.respond(batch, [conversation], **besides)
        return text

    def letter_logits(self, batch: dict[str, Tensor], conversation: Conversation) -> np.ndarray:
        """Return how likely each of the letters that `options` counts is to come next, (n,)."""
        with torch.inference_mode(), autocast(self.device, self._precision):
            found = self.objective.letter_logits(batch, [conversation])
        return found[0].cpu().numpy()

    @property
    def _precision(self) -> Any:
        return self.loaded.view.stages[-1].precision

    def batch_of(self, frames: np.ndarray) -> dict[str, Tensor]:
        """Return frames uint8 (T, H, W, 3) as the model was trained to see them."""
        config = self._processor.config
        if config.fit == "crop":
            side = min(frames.shape[1:3])
            top, left = ((length - side) // 2 for length in frames.shape[1:3])
            frames = np.ascontiguousarray(frames[:, top : top + side, left : left + side])
        if frames.shape[1:3] != (config.size_px, config.size_px):
            frames = resize(frames, config.size_px)
        return self._batch(torch.from_numpy(frames))

    def _batch(self, frames: Tensor) -> dict[str, Tensor]:
        return {
            "frames": frames[None].to(self.device),
            "video_index": torch.zeros(1, dtype=torch.long, device=self.device),
        }

    def _frames(self, video: str | Path) -> Tensor:
        """Return the frames of a video, which is read once for all that is asked about it."""
        if self._seen is None or self._seen[0] != str(video):
            (arrays,) = self._processor.arrays([Medium.of_file(video)])
            drawn = self._processor.draw(arrays, None)["frames"]
            frames = drawn if drawn.ndim == 4 else drawn[len(drawn) // 2]
            self._seen = (str(video), torch.from_numpy(np.ascontiguousarray(frames)))
        return self._seen[1]


def conversation_of(messages: str | Messages, kind: Any) -> Conversation:
    """Return messages as a conversation whose last answer is still to be written.

    Raises:
        DataError: they are none.
    """
    if isinstance(messages, str):
        messages = [{"role": "user", "content": messages}]
    turns: list[Turn] = []
    instruction = ""
    for number, message in enumerate(messages):
        role, content = message.get("role"), message.get("content")
        if role not in ROLES or not isinstance(content, str):
            raise DataError(f"messages.{number}: role, one of {', '.join(ROLES)}, and content")
        if role == "system":
            instruction = f"{instruction}{content}"
        elif role == "user":
            if not content.strip():
                raise DataError(f"messages.{number}: the question is empty")
            turns.append(Turn(content, "", instruction))
        elif turns and not turns[-1].answer:
            turns[-1] = turns[-1]._replace(answer=content)
        else:
            raise DataError(f"messages.{number}: an answer without a question")
    if not turns or turns[-1].answer:
        raise DataError("messages: the last one must be a question of the user")
    return Conversation(kind, tuple(turns))


def open_talker(run: str | Path, device: str | None = None) -> Talker:
    """Return the model of a finished run that ends with `generation`.

    Raises:
        RunError: it ends with something else.
    """
    opened = Run.open(run)
    if not writes_answers(opened.recipe):
        raise RunError(
            f"{run} writes no answers: only a run that ends with generation is talked to"
        )
    return Talker(load_checkpoint(opened.locate(opened.checkpoint())), device)


class _Spoken(TextStreamer):
    """Gives the words of an answer as they come, without what ends it."""

    def __init__(self, objective: Generation, on_words: Callable[[str], None]) -> None:
        super().__init__(objective.chat.tokenizer, skip_special_tokens=True)
        # Of embeddings there are no tokens of the prompt to be skipped.
        self._on_words, self._text, self._given = on_words, "", 0
        self._stops = {*objective.config.writing.stop, objective.dialogue.form.end}

    def on_finalized_text(self, text: str, stream_end: bool = False) -> None:
        """Take the next words, and hand on what can be none of the end."""
        self._text += text
        found = [place for stop in self._stops if (place := self._text.find(stop)) >= 0]
        safe = min(found, default=len(self._text))
        if not found and not stream_end:
            safe -= max(map(len, self._stops), default=0)
        words = self._text[self._given : max(safe, self._given)]
        self._given = max(safe, self._given)
        if words:
            self._on_words(words)


class _Asks(StoppingCriteria):
    """Ends an answer where somebody says so."""

    def __init__(self, stops: Callable[[], bool]) -> None:
        self._stops = stops

    def __call__(self, input_ids: Tensor, scores: Tensor, **_: Any) -> Tensor:
        done = self._stops()
        return torch.full((len(input_ids),), done, dtype=torch.bool, device=input_ids.device)


class TrainedRun(Adapter):
    """One of our own runs, asked on MVBench: `--model RUN`."""

    def __init__(self, source: Source) -> None:
        super().__init__(source)
        self._talker = open_talker(source.model, source.device)

    @property
    def name(self) -> str:
        """The name of the run, and which weights it has."""
        loaded = self._talker.loaded
        return f"{loaded.recipe.name} {loaded.info['files']['weights.safetensors']['sha256'][:12]}"

    def generate(self, frames: np.ndarray, prompt: Prompt) -> str:
        """Return what the model says, greedily."""
        batch = self._talker.batch_of(frames)
        conversation = self._talker.objective.conversation(prompt)
        limit = self.source.max_new_tokens
        return self._talker.respond(batch, conversation, max_new_tokens=limit, do_sample=False)

    def letter_logits(
        self, frames: np.ndarray, prompt: Prompt, letters: Sequence[str]
    ) -> np.ndarray:
        """Return how likely each letter is to come next, (n,)."""
        batch = self._talker.batch_of(frames) | {"options": torch.tensor([len(letters)])}
        return self._talker.letter_logits(batch, self._talker.objective.conversation(prompt))
