"""The words of a question: what models are shown, to the byte, since scores depend on it.

The released evaluator asks in another way than the paper prints, and the two evaluators that most
models are compared with ask in two others; each is a preset here.
"""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

LETTERS = "ABCDEFGHIJKLMNOPQRSTUVWXYZ"
SYSTEM = (
    "Carefully watch the video and pay attention to the cause and sequence of events, the detail "
    "and movement of objects, and the action and pose of persons. Based on your observations, "
    "select the best option that accurately addresses the question.\n"
)
INSTRUCTION = "Only give the best option."
RELEASED_PREFILL = "Best option:("
PAPER_PREFILL = "Best Option: ("
"""As the paper prints it; one more space and a capital letter change what models answer."""
VIDEO = "<Video><VideoHere></Video>"


@dataclass(frozen=True)
class Prompt:
    """What a model is asked: the media come before the words of the user."""

    system: str
    """Empty where there is none."""
    user: str
    prefill: str
    """How its answer begins; empty where it begins by itself."""
    seconds: float = 0.0
    """How long the clip lasts that the frames are spread over; 0 where nobody knows."""

    def without_prefill(self) -> "Prompt":
        """Return the prompt for a model whose answer cannot be begun: the user's turn ends so."""
        if not self.prefill:
            return self
        return replace(self, user=f"{self.user.rstrip()}\n{self.prefill}", prefill="")


def options_text(candidates: Sequence[str]) -> str:
    """Return a line for each option, with its letter in brackets and a line end.

    Raises:
        ValueError: more options than letters.
    """
    if len(candidates) > len(LETTERS):
        raise ValueError(f"{len(candidates)} options are more than there are letters")
    lettered = zip(LETTERS, candidates, strict=False)
    return "".join(f"({letter}) {text}\n" for letter, text in lettered)


def question_block(question: str, candidates: Sequence[str]) -> str:
    """Return question and options as the released evaluator writes them."""
    return f"Question: {question}\nOptions:\n{options_text(candidates)}".rstrip()


def official(question: str, candidates: Sequence[str]) -> Prompt:
    """Return the prompt of the released evaluator, which says the system's words twice."""
    user = f"{SYSTEM}{question_block(question, candidates)}\n{INSTRUCTION}"
    return Prompt(SYSTEM, user, RELEASED_PREFILL)


def paper(question: str, candidates: Sequence[str]) -> Prompt:
    """Return the released prompt with the beginning of the answer that the paper prints."""
    return replace(official(question, candidates), prefill=PAPER_PREFILL)


def vlmevalkit(question: str, candidates: Sequence[str]) -> Prompt:
    """Return the prompt of VLMEvalKit: the system's words once."""
    user = f"{question_block(question, candidates)}\n{INSTRUCTION}"
    return Prompt(SYSTEM, user, RELEASED_PREFILL)


def lmms_eval(question: str, candidates: Sequence[str]) -> Prompt:
    """Return the prompt of lmms-eval: no system, and the answer begins by itself."""
    user = f"Question:{question}\nOption:\n{options_text(candidates)}{INSTRUCTION}\n"
    return Prompt("", user, "")


PRESETS = {
    "official": official,
    "paper": paper,
    "vlmevalkit": vlmevalkit,
    "lmms_eval": lmms_eval,
}
"""Ways to ask, by name; the first is the default."""


def vicuna_text(prompt: Prompt) -> str:
    """Return a prompt as the released Vicuna model reads it."""
    return (
        f"{prompt.system}###Human: {VIDEO}\n###Human: {prompt.user}\n###Assistant: {prompt.prefill}"
    )


def mistral_text(prompt: Prompt) -> str:
    """Return a prompt as the released Mistral models read it."""
    return f"{prompt.system}[INST] {VIDEO} [/INST] [INST] {prompt.user} [/INST] {prompt.prefill}"


def messages(prompt: Prompt) -> list[dict[str, str]]:
    """Return a prompt as VLMEvalKit's messages; `<media>` stands for the frames."""
    block, _, instruction = prompt.user.rpartition("\n")
    parts = [
        ("system", "text", prompt.system),
        ("user", "video_or_frames", "<media>"),
        ("user", "text", block),
        ("user", "text", f"\n{instruction}"),
        ("assistant", "text", prompt.prefill),
    ]
    return [{"role": role, "type": kind, "value": value} for role, kind, value in parts]


def letter_tokens(tokenizer: Any, letter: str) -> list[int]:
    """Return the tokens that are a letter, with a space before it and without; none may be.

    A vocabulary of SentencePiece writes a letter by itself with a space before it: the one that
    follows a bracket, as in `Best option:(A`, is found by its piece alone.
    """
    encoded = [tokenizer.encode(text, add_special_tokens=False) for text in (letter, f" {letter}")]
    pieces = tokenizer.convert_tokens_to_ids([letter, f"\u2581{letter}", f"\u0120{letter}"])
    found = {ids[0] for ids in encoded if len(ids) == 1} | set(pieces)
    return sorted(found - {tokenizer.unk_token_id, None})
