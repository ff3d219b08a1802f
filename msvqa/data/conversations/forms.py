"""Forms of conversations that language models without a chat template were trained with."""

from typing import Any, ClassVar, Protocol

from msvqa.data.conversations import FORMS
from msvqa.data.conversations.conversation import (
    TAGS,
    Conversation,
    Piece,
    Written,
    without_first_space,
    write,
)
from msvqa.sections import resolve


class Form(Protocol):
    """How a conversation becomes text."""

    end: str
    """What ends an answer; generation stops at it."""

    def write(self, conversation: Conversation) -> Written:
        """Return the text of a conversation with its pieces."""
        ...


class Vicuna:
    """`###Human:` and `###Assistant:`, with a space before each `###`, so that it is one token."""

    end: ClassVar[str] = "###"

    def write(self, conversation: Conversation) -> Written:
        """Return the text of a conversation with its pieces.

        The `###` behind an answer ends it, and is learned also where it begins the next header.
        """
        pieces: list[Piece] = []
        for number, turn in enumerate(conversation.turns):
            pieces.append(Piece(" ###", "answer" if number else "header"))
            if turn.question:
                pieces += [Piece("Human:", "header"), Piece(f" {turn.question}")]
                pieces.append(Piece(" ###", "header"))
            pieces += [Piece("Assistant:", "header"), Piece(f" {turn.answer}", "answer")]
        pieces.append(Piece(" ###", "answer"))
        start = f"{conversation.system}{conversation.instruction}"
        if conversation.kind == "text":
            return write("", [Piece(start), *pieces] if start else without_first_space(pieces))
        tag = TAGS[conversation.kind]
        before = f"{start} ###Human: <{tag}>" if start else f"###Human: <{tag}>"
        return write(before, [Piece(f"</{tag}>{conversation.message}"), *pieces])


class Mistral:
    """`[INST]` and `[/INST]`; an answer ends with `</s>`."""

    end: ClassVar[str] = "</s>"

    def write(self, conversation: Conversation) -> Written:
        """Return the text of a conversation with its pieces."""
        pieces: list[Piece] = []
        for turn in conversation.turns:
            if turn.question:
                pieces.append(Piece(f" [INST] {turn.question} [/INST]"))
            pieces += [Piece(f" {turn.answer}", "answer"), Piece(" </s>", "answer")]
        start = f"{conversation.system}{conversation.instruction}"
        if conversation.kind == "text":
            own = [Piece(f"{start} "), *pieces] if start else without_first_space(pieces)
            return write("", own)
        tag = TAGS[conversation.kind]
        before = f"{start} [INST] <{tag}>" if start else f"[INST] <{tag}>"
        return write(before, [Piece(f"</{tag}>{conversation.message} [/INST]"), *pieces])


def form_of(name: str, tokenizer: Any) -> Form:
    """Return one of `FORMS` by its name.

    Raises:
        DataError: it is that of the tokenizer, which has none.
    """
    kind = resolve(FORMS[name], {}, "form")
    found: Form = kind(tokenizer) if name == "chat_template" else kind()
    return found
