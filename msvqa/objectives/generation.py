"""Second and third stage of VideoChat2: a language model writes captions and answers.

Paper: Li et al., "MVBench", CVPR 2024, section 4.
"""

import json
from collections.abc import Iterable, Sequence
from functools import cached_property
from typing import Any, ClassVar, Literal, cast

import torch
from torch import Tensor, nn
from torch.nn import functional

from msvqa.data.batch import Batch, weighted_mean
from msvqa.data.conversations.conversation import Conversation, Kind, Turn
from msvqa.data.texts import read_texts
from msvqa.errors import DataError, RecipeError
from msvqa.models.layers.language_input import LanguageInput, Visual, next_logits, target_logits
from msvqa.models.layers.writing import WritingConfig, write_answers
from msvqa.models.model import Model
from msvqa.models.videochat2 import VideoChat2
from msvqa.mvbench.prompts import LETTERS, PRESETS, Prompt, letter_tokens
from msvqa.objectives.dialogue import Dialogue, DialogueConfig, Given
from msvqa.objectives.draws import uniform
from msvqa.objectives.objective import Objective
from msvqa.objectives.query_alignment import words_per_worker

# Legend: V media, B rows, L words, O letters.

VIDEO_PROMPTS = (
    "Describe this video in a few words.",
    "What happens in the video?",
    "Say briefly what the clip shows.",
    "Give a short caption of the video.",
    "Sum up the video in a sentence.",
)
IMAGE_PROMPTS = (
    "Describe this image in a few words.",
    "What is in the picture?",
    "Say briefly what the image shows.",
    "Give a short caption of the image.",
    "Sum up the picture in a sentence.",
)


class Generation(Objective):
    """loss = mean negative log-probability of the words that are learned.

    The batch has media with conversations, `conversation_utf8`, or with captions, `text_utf8`: then
    a prompt is drawn for every row. (The released program draws one for a whole batch.)
    """

    class Config(Objective.Config):
        """How a conversation is written, and what asks for captions."""

        name: str = "generation"
        dialogue: DialogueConfig = DialogueConfig()
        video_prompts: tuple[str, ...] = VIDEO_PROMPTS
        image_prompts: tuple[str, ...] = IMAGE_PROMPTS
        preset: Literal["official", "paper", "vlmevalkit", "lmms_eval"] = "official"
        """Words that the questions of MVBench are asked with, see docs/mvbench.md."""
        writing: WritingConfig = WritingConfig()
        """How answers are written."""

    config: Config
    writes_answers: ClassVar[bool] = True
    sees_whole_batch = True
    asks_all_parts = False

    def __init__(self, config: Config, model: Model) -> None:
        if not isinstance(model, VideoChat2) or {"language", "projection"} & model.absent:
            raise RecipeError(
                [f"objective generation needs model videochat2 with a language model and its "
                 f"projection, not {model.config.name} without"]
            )  # fmt: skip
        super().__init__(config, model)

    @property
    def chat(self) -> VideoChat2:
        """The model."""
        return cast(VideoChat2, self.model)

    @cached_property
    def dialogue(self) -> Dialogue:
        """What writes and cuts conversations."""
        config = self.config.dialogue
        # The Q-Former has places for so many words, whatever is asked.
        most = min(config.max_reading, self.chat.config.qformer.max_words)
        config = config.model_copy(update={"max_reading": most})
        return Dialogue(config, self.chat.tokenizer, lambda: self.chat.reader)

    def frozen(self) -> Iterable[nn.Module]:
        """Return what never gets a gradient: no text is written by the Q-Former, few are read."""
        if self.config.dialogue.reading == "none":
            return [part for part in self.chat.qformer.text_branch() if isinstance(part, nn.Module)]
        return [self.chat.qformer.word_head]

    # Training

    def loss(self, batch: Batch) -> dict[str, Tensor]:
        """Return the loss, and which part of the rows was cut or had nothing to learn."""
        texts = self.dialogue.learned(self.conversations(batch), batch["weight"].device)
        given = self.given(batch, texts)
        padding = batch["weight"] == 0
        given = given._replace(labels=given.labels.masked_fill(padding[:, None], -100))
        logits, words = target_logits(self.chat.language, given)
        total = functional.cross_entropy(logits.float(), words, reduction="sum")
        return {
            "loss": total / words_per_worker(given.labels),
            "cut": weighted_mean(texts.cut, batch),
            "dropped": weighted_mean(texts.dropped, batch),
        }

    def given(self, batch: Batch, texts: Given) -> LanguageInput:
        """Return what the language model is given; without `frames` no row has a medium.

        Rows with a medium and rows without one may be in one batch: the latter have frames of
        zeros, whose tokens are left out.
        """
        if "frames" not in batch:
            return self.chat.language_input(texts.before, None, texts.after)
        tokens = self.chat.see(batch)[batch["video_index"]]
        visual = self.chat.visual(tokens, texts.reading)
        if "video" not in batch:
            return self.chat.language_input(texts.before, visual, texts.after)
        some = Visual(visual, batch["video"][batch["video_index"]] >= 0)
        return self.chat.language_input(texts.before, some, texts.after)

    def conversations(self, batch: Batch) -> list[Conversation]:
        """Return what a batch learns from, one for each row."""
        if "conversation_utf8" in batch:
            return [self._read(text) for text in read_texts(batch["conversation_utf8"])]
        if "text_utf8" not in batch:
            raise RecipeError(
                ["objective generation learns from conversations or captions: data instructions or "
                 "caption_files"]
            )  # fmt: skip
        captions = read_texts(batch["text_utf8"])
        return [
            Conversation(kind, (Turn("", caption),), self.config.dialogue.system, f" {prompt}")
            for caption, (kind, prompt) in zip(captions, self._prompts(batch), strict=True)
        ]

    def _read(self, text: str) -> Conversation:
        kind, turns = json.loads(text)
        return Conversation(kind, tuple(Turn(*turn) for turn in turns), self._system)

    @property
    def _system(self) -> str:
        return self.config.dialogue.system

    def _prompts(self, batch: Batch) -> list[tuple[Kind, str]]:
        draws = uniform(self, (len(batch["row"]),), batch["weight"]).tolist()
        images = torch.zeros(len(draws), dtype=torch.bool)
        if "is_image" in batch:
            images = batch["is_image"][batch["video_index"]]
        choices: dict[Kind, tuple[str, ...]] = {
            "image": self.config.image_prompts, "video": self.config.video_prompts,
        }  # fmt: skip
        kinds: list[Kind] = ["image" if image else "video" for image in images.tolist()]
        return [
            (kind, choices[kind][int(draw * len(choices[kind]))])
            for kind, draw in zip(kinds, draws, strict=True)
        ]

    # Asking

    def letters(self, batch: Batch) -> dict[str, Tensor]:
        """Return `chosen` int64 (B,), the likeliest letter, and its `probability` (B,)."""
        asked = [json.loads(text) for text in read_texts(batch["asked_utf8"])]
        preset = PRESETS[self.config.preset]
        conversations = [self.conversation(preset(question, rest)) for question, *rest in asked]
        logits = self.letter_logits(batch, conversations)  # (B, O)
        there = torch.arange(logits.shape[1], device=logits.device) < batch["options"][:, None]
        likely = logits.masked_fill(~there, float("-inf")).softmax(dim=1).max(dim=1)
        return {"chosen": likely.indices, "probability": likely.values}

    def blind_letters(self, batch: Batch) -> dict[str, Tensor]:
        """Return `letters` of frames that are black."""
        return self.letters(batch | {"frames": torch.zeros_like(batch["frames"])})

    def conversation(self, prompt: Prompt) -> Conversation:
        """Return a question of MVBench, whose answer may be begun.

        The system's words are the instruction, which the Q-Former reads.
        """
        turn = Turn(prompt.user, prompt.prefill, prompt.system)
        return Conversation("video", (turn,), self._system)

    def letter_logits(self, batch: Batch, conversations: Sequence[Conversation]) -> Tensor:
        """Return how likely each letter is to come next (B, O), up to a constant."""
        texts = self.dialogue.asked(conversations, batch["frames"].device)
        logits = next_logits(self.chat.language, self.given(batch, texts)).float()  # (B, words)
        most = int(batch["options"].max())
        found = [torch.logsumexp(logits[:, self._tokens(x)], dim=1) for x in LETTERS[:most]]
        return torch.stack(found, dim=1)

    def _tokens(self, letter: str) -> list[int]:
        if not (found := letter_tokens(self.chat.tokenizer, letter)):
            raise DataError(f"the language model has no token for the letter {letter}")
        return found

    def respond(
        self, batch: Batch, conversations: Sequence[Conversation], **besides: Any
    ) -> list[str]:
        """Return an answer to the last question of each conversation.

        Args:
            batch: `frames` and `video_index`, or nothing where there is no medium.
            conversations: B of them.
            besides: of the library's `generate`, such as a streamer.
        """
        device = next(self.chat.parameters()).device
        given = self.given(batch, self.dialogue.asked(conversations, device))
        stops = tuple({*self.config.writing.stop, self.dialogue.form.end})
        writing = self.config.writing.model_copy(update={"stop": stops})
        return write_answers(self.chat.language, self.chat.tokenizer, given, writing, **besides)
