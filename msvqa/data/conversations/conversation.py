"""What is said about a medium, and the text that it becomes: strings with spans of targets.

Paper: Li et al., "MVBench: A Comprehensive Multi-modal Video Understanding Benchmark", CVPR 2024,
https://arxiv.org/abs/2311.17005, section 4.
"""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Literal, NamedTuple

Kind = Literal["video", "image", "text"]
Targets = Literal["answers_only", "reference_headers"]
Role = Literal["context", "header", "answer"]
Reading = Literal["instruction", "instruction+question", "none"]
TAGS: dict[Kind, str] = {"video": "Video", "image": "Image"}
LEARNED: dict[Targets, tuple[Role, ...]] = {
    "answers_only": ("answer",),
    "reference_headers": ("header", "answer"),
}


class Turn(NamedTuple):
    """A question, which may be empty as for captions, and its answer."""

    question: str
    answer: str
    instruction: str = ""


@dataclass(frozen=True)
class Conversation:
    """Turns about one medium, or about none; the instruction is that of the first turn."""

    kind: Kind
    turns: tuple[Turn, ...]
    system: str = ""
    message: str = ""
    """What is said of the frames, with the space before it; only of videos."""

    @property
    def instruction(self) -> str:
        """The instruction of the first turn, which the turns may be shuffled to."""
        return self.turns[0].instruction if self.turns else ""

    def first(self, count: int) -> "Conversation":
        """Return the conversation without what follows so many turns."""
        return Conversation(self.kind, self.turns[:count], self.system, self.message)

    def reading(self, what: Reading) -> str:
        """Return what the Q-Former reads; nothing is fed to it where this is empty."""
        if what == "none" or not self.turns:
            return ""
        # The reference leaves out the question too where there is no instruction.
        asked = self.turns[0].question if what == "instruction+question" else ""
        return " ".join(text for text in (self.instruction, asked) if text).strip()


class Piece(NamedTuple):
    """A part of a text, and what it is; spans come from these, never from searching in a text."""

    text: str
    role: Role = "context"


class Written(NamedTuple):
    """A conversation as text, in front of the visual tokens and behind them."""

    before: str
    after: str
    pieces: tuple[tuple[int, int, Role], ...]
    """Start, end and role of every piece of `after`, in characters."""

    def spans(self, targets: Targets) -> list[tuple[int, int]]:
        """Return which characters of `after` are learned: start and end, neighbours joined."""
        found: list[tuple[int, int]] = []
        for start, end, role in self.pieces:
            if role not in LEARNED[targets] or start == end:
                continue
            if found and found[-1][1] == start:
                start = found.pop()[0]
            found.append((start, end))
        return found

    @property
    def answer_end(self) -> int:
        """Where the last answer ends and its end symbol begins, in characters of `after`."""
        return self.pieces[-1][0]


def write(before: str, pieces: Iterable[Piece]) -> Written:
    """Return the text of pieces with where each of them lies."""
    texts: list[str] = []
    places: list[tuple[int, int, Role]] = []
    end = 0
    for text, role in pieces:
        places.append((end, end + len(text), role))
        texts.append(text)
        end += len(text)
    return Written(before, "".join(texts), tuple(places))


def without_first_space(pieces: Sequence[Piece]) -> list[Piece]:
    """Return pieces whose text does not begin with the space that would part it from another."""
    first = pieces[0]
    return [Piece(first.text.removeprefix(" "), first.role), *pieces[1:]]
