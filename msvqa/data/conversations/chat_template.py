"""Conversations in the form of a tokenizer's own chat template."""

from typing import Any

from msvqa.data.conversations.conversation import TAGS, Conversation, Piece, Written, write
from msvqa.errors import DataError


class ChatTemplate:
    """What the template of a tokenizer makes of the turns; the medium is in the first question."""

    def __init__(self, tokenizer: Any) -> None:
        if not getattr(tokenizer, "chat_template", None):
            raise DataError(
                f"tokenizer {tokenizer.name_or_path!r} has no chat template: take form vicuna or "
                "mistral"
            )
        self._tokenizer = tokenizer
        self.end = self._end()

    def write(self, conversation: Conversation) -> Written:
        """Return the text of a conversation with its pieces.

        An answer is learned with all that the template puts behind it before the next question.

        Raises:
            DataError: the template refuses the turns, or does not write them one after another.
        """
        slot = _unlike_any(conversation)
        messages = self._messages(conversation, slot)
        pieces: list[Piece] = []
        text = ""
        for number, message in enumerate(messages, 1):
            is_answer = message["role"] == "assistant"
            so_far = self._render(messages[:number], prompting=not is_answer)
            if message["role"] == "system":
                continue
            if not so_far.startswith(text):
                raise DataError(
                    f"the chat template writes turn {number} otherwise when others follow: take "
                    "form vicuna or mistral"
                )
            new, text = so_far[len(text) :], so_far
            pieces += _answer(new, message["content"]) if is_answer else [Piece(new)]
        return self._split(pieces, slot if conversation.kind != "text" else "")

    def _end(self) -> str:
        """Return what the template puts behind an answer, which need not end a text."""
        answer = "\ue000"
        turns = [{"role": "user", "content": "a"}, {"role": "assistant", "content": answer}]
        behind = self._render(turns, prompting=False).rpartition(answer)[2].split()
        end: str = behind[0] if behind else self._tokenizer.eos_token
        return end

    def _messages(self, conversation: Conversation, slot: str) -> list[dict[str, str]]:
        start = f"{conversation.system}{conversation.instruction}".strip()
        messages = [{"role": "system", "content": start}] if start else []
        shown = ""
        if conversation.kind != "text":
            tag = TAGS[conversation.kind]
            shown = f"<{tag}>{slot}</{tag}>{conversation.message}"
        for turn in conversation.turns:
            question = "\n".join(text for text in (shown, turn.question) if text)
            shown = ""
            if question:
                messages.append({"role": "user", "content": question})
            messages.append({"role": "assistant", "content": turn.answer})
        return messages

    def _render(self, messages: list[dict[str, str]], prompting: bool) -> str:
        try:
            text: str = self._tokenizer.apply_chat_template(
                messages, tokenize=False, add_generation_prompt=prompting
            )
        except Exception as error:  # whatever a template of somebody raises
            roles = ", ".join(message["role"] for message in messages)
            raise DataError(f"the chat template refuses turns of {roles}: {error}") from None
        # The model puts this token before everything itself, once.
        return text.removeprefix(self._tokenizer.bos_token or "")

    @staticmethod
    def _split(pieces: list[Piece], slot: str) -> Written:
        if not slot:
            return write("", pieces)
        before, found, after = pieces[0].text.partition(slot)
        if not found:
            raise DataError("the chat template leaves out the first question")
        return write(before, [Piece(after), *pieces[1:]])


def _answer(text: str, answer: str) -> list[Piece]:
    """Return an answer and what ends it, which is the last piece."""
    start = text.find(answer.strip())
    if start < 0:
        raise DataError(f"the chat template changes the answer {answer.strip()[:40]!r}")
    length = start + len(answer.strip())
    return [Piece(text[:length], "answer"), Piece(text[length:], "answer")]


def _unlike_any(conversation: Conversation) -> str:
    """Return a text for the place of the visual tokens that occurs nowhere in a conversation."""
    texts = [conversation.system, conversation.message, *(t for r in conversation.turns for t in r)]
    slot = "\ue000"
    while any(slot in text for text in texts):
        slot += "\ue001"
    return slot
