"""Conversations as tokens: each text tokenised once, targets by spans, cut to a limit."""

from dataclasses import dataclass
from typing import Any, Literal, NamedTuple

from msvqa.data.conversations.conversation import Conversation, Targets, Written
from msvqa.data.conversations.forms import Form
from msvqa.errors import DataError

# Legend: L tokens of the text behind the visual tokens.

Outcome = Literal["whole", "shortened", "cut", "too_long", "no_target"]
"""`shortened` lost trailing turns, `cut` a part of its only answer; the last two are dropped."""


class Tokens(NamedTuple):
    """Both texts of a conversation as tokens."""

    before: list[int]
    after: list[int]
    """L ids."""
    targets: list[bool]
    """L, which ids of `after` are learned."""

    def __len__(self) -> int:
        return len(self.before) + len(self.after)


class Fitted(NamedTuple):
    """What is left of a conversation within a limit."""

    tokens: Tokens | None
    """None where it is dropped."""
    turns: int
    outcome: Outcome


@dataclass(frozen=True)
class Tokenization:
    """How conversations become tokens.

    Args:
        form: how they are written.
        tokenizer: a fast one of `transformers`, which says where its tokens lie.
        targets: what is learned; `reference_headers` has the headers of the roles too.
        limit: most tokens of both texts, without the first one (BOS) and without visual tokens.
    """

    form: Form
    tokenizer: Any
    targets: Targets = "answers_only"
    limit: int = 512

    def __post_init__(self) -> None:
        if not self.tokenizer.is_fast:
            raise DataError(
                f"tokenizer {self.tokenizer.name_or_path!r} does not say where its tokens lie: it "
                "must have a file tokenizer.json"
            )

    def tokenize(self, written: Written) -> Tokens:
        """Return the tokens of a text.

        A token is a target if its characters, without white space around them, lie in a span that
        is one; of white space alone, all of it. What stands before the visual tokens is none.
        """
        before, _ = self._encode(written.before)
        after, places = self._encode(written.after)
        spans = written.spans(self.targets)
        return Tokens(before, after, [_lies_in(p, spans, written.after) for p in places])

    def fit(self, conversation: Conversation) -> Fitted:
        """Return the tokens of as many turns as the limit allows.

        Whole turns at the end go first. Of one turn alone the answer is cut, which then has no end
        symbol. The reference cuts anywhere, and learns from rows without targets, whose loss is not
        a number.
        """
        count = len(conversation.turns)
        if not count:
            return Fitted(None, 0, "no_target")
        for turns in range(count, 0, -1):
            tokens = self.tokenize(self.form.write(conversation.first(turns)))
            if len(tokens) <= self.limit:
                if not any(tokens.targets):
                    return Fitted(None, 0, "no_target")
                return Fitted(tokens, turns, "whole" if turns == count else "shortened")
        return self._cut(conversation.first(1))

    def _cut(self, conversation: Conversation) -> Fitted:
        written = self.form.write(conversation)
        before, after, targets = self.tokenize(written)
        _, places = self._encode(written.after)
        answer = [span for span in written.spans("answers_only") if span[0] < written.answer_end]
        inside = [end for _, end in places if end <= written.answer_end]
        keep = min(max(0, self.limit - len(before)), len(inside))
        if not any(_lies_in(place, answer, written.after) for place in places[:keep]):
            return Fitted(None, 0, "too_long")
        return Fitted(Tokens(before, after[:keep], targets[:keep]), 1, "cut")

    def _encode(self, text: str) -> tuple[list[int], list[tuple[int, int]]]:
        found = self.tokenizer(text, add_special_tokens=False, return_offsets_mapping=True)
        return list(found["input_ids"]), [tuple(place) for place in found["offset_mapping"]]


def _lies_in(place: tuple[int, int], spans: list[tuple[int, int]], text: str) -> bool:
    start, end = place
    token = text[start:end]
    if token.strip():
        start += len(token) - len(token.lstrip())
        end -= len(token) - len(token.rstrip())
    return any(first <= start and end <= last for first, last in spans)
