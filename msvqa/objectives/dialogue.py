"""Conversations as the language model and the Q-Former of VideoChat2 are given them.

Paper: Li et al., "MVBench", CVPR 2024, section 4.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any, Literal, NamedTuple

import torch
from pydantic import Field
from torch import Tensor

from msvqa.data.conversations.conversation import Conversation, Reading, Targets, Turn
from msvqa.data.conversations.forms import Form, form_of
from msvqa.data.conversations.tokens import Tokenization
from msvqa.models.layers.language_input import Text
from msvqa.sections import Config

# Legend: B rows, L tokens of the longest text.

Outcomes = dict[str, Tensor]
ANSWER = "\ue002"
"""Stands for the answer that is to be written; no text of a user has it."""


class DialogueConfig(Config):
    """How conversations are written, what of them is learned, and what the Q-Former reads."""

    form: Literal["vicuna", "mistral", "chat_template"] = "vicuna"
    """`chat_template`: that of the tokenizer."""
    targets: Targets = "answers_only"
    """`reference_headers` learns the headers of the roles too, as the released program does."""
    limit: int = Field(default=512, ge=8)
    """Most tokens of a conversation, without those of the medium: turns at the end go first, then
    a part of the only answer."""
    reading: Reading = "instruction"
    """What the queries read while they look."""
    max_reading: int = Field(default=512, ge=3)
    """Most tokens of it; its beginning goes first."""
    system: str = ""
    """What stands before every conversation."""


class Given(NamedTuple):
    """The texts of a batch, and what became of its conversations."""

    before: Text
    after: Text
    reading: Text | None
    """None where no row has anything to read."""
    dropped: Tensor
    """float32 (B,), 1 where nothing of a conversation can be learned within the limit."""
    cut: Tensor
    """float32 (B,), 1 where turns or a part of the answer went."""


@dataclass(frozen=True)
class Dialogue:
    """Writes and cuts conversations.

    Args:
        config: how.
        tokenizer: of the language model.
        reader: gives the tokenizer of the Q-Former, which need not be there where nothing is read.
    """

    config: DialogueConfig
    tokenizer: Any
    reader: Any

    @cached_property
    def form(self) -> Form:
        """How a conversation becomes text."""
        return form_of(self.config.form, self.tokenizer)

    def learned(self, conversations: Sequence[Conversation], device: torch.device) -> Given:
        """Return conversations to learn from."""
        config = self.config
        tokenization = Tokenization(self.form, self.tokenizer, config.targets, config.limit)
        fitted = [tokenization.fit(conversation) for conversation in conversations]
        tokens = [found.tokens for found in fitted]
        before = _text([found.before if found else [] for found in tokens], device)
        after = _text([found.after if found else [] for found in tokens], device)
        targets, _ = padded([list(map(int, t.targets)) if t else [] for t in tokens], device)
        return Given(
            before,
            after._replace(targets=targets.bool()),
            self._reading(conversations, device),
            torch.tensor([float(found is None) for found in tokens], device=device),
            torch.tensor([float(f.outcome in ("shortened", "cut")) for f in fitted], device=device),
        )

    def asked(self, conversations: Sequence[Conversation], device: torch.device) -> Given:
        """Return conversations whose last answer is to be written; it may be begun."""
        written = [self.form.write(opened(conversation)) for conversation in conversations]
        texts = [(found.before, found.after.rpartition(ANSWER)[0]) for found in written]
        ids = [[self._ids(text.removesuffix(" ")) for text in pair] for pair in texts]
        none = torch.zeros(len(texts), device=device)
        return Given(
            _text([before for before, _ in ids], device),
            _text([after for _, after in ids], device),
            self._reading(conversations, device),
            none, none,
        )  # fmt: skip

    def _ids(self, text: str) -> list[int]:
        return list(self.tokenizer(text, add_special_tokens=False)["input_ids"])

    def _reading(self, conversations: Sequence[Conversation], device: torch.device) -> Text | None:
        texts = [conversation.reading(self.config.reading) for conversation in conversations]
        if not any(texts):
            return None
        reader = self.reader()
        # Nothing to read is no text, and not one of two marks.
        rows = [encode(reader, t, self.config.max_reading, "left") if t else [] for t in texts]
        return _text(rows, device)


def opened(conversation: Conversation) -> Conversation:
    """Return a conversation whose last answer goes on."""
    *earlier, last = conversation.turns
    turns = (*earlier, Turn(last.question, f"{last.answer}{ANSWER}", last.instruction))
    return Conversation(conversation.kind, turns, conversation.system, conversation.message)


def encode(tokenizer: Any, text: str, limit: int, side: str = "right") -> list[int]:
    """Return a text as ids, with what begins and ends one, cut on a side."""
    tokenizer.truncation_side = side
    return list(tokenizer(text, truncation=True, max_length=limit)["input_ids"])


def padded(rows: Sequence[Sequence[int]], device: torch.device) -> tuple[Tensor, Tensor]:
    """Return ids int64 (B, L), padded on the right, and which are there, bool (B, L)."""
    longest = max(map(len, rows), default=0)
    ids = torch.tensor([[*row, *[0] * (longest - len(row))] for row in rows], dtype=torch.long)
    counts = torch.tensor([len(row) for row in rows])
    mask = torch.arange(longest) < counts[:, None]
    return ids.view(len(rows), longest).to(device), mask.to(device)


def _text(rows: Sequence[Sequence[int]], device: torch.device) -> Text:
    return Text(*padded(rows, device))
