"""Questions as word ids, answers as classes and word vectors, by the rules of the DualVGR program.

Paper: https://arxiv.org/abs/2107.04768
"""

import json
import re
from collections import Counter
from collections.abc import Iterable, Sequence
from functools import lru_cache
from pathlib import Path
from typing import ClassVar, TypeVar

from msvqa.data.word_vectors import read_word_vectors
from msvqa.errors import DataError

__all__ = [
    "AnswerList", "Vocabulary", "WordList", "question_text", "read_word_vectors", "tokenize",
]  # fmt: skip

NULL, UNKNOWN = "<NULL>", "<UNK>"
UNKNOWN_IN_TRAIN, UNKNOWN_IN_EVALUATION = "<UNK0>", "<UNK1>"
MAX_LIST_BYTES = 500_000_000
_PLAIN = re.compile(r"[a-z0-9 ]*")

Listed = TypeVar("Listed", bound="WordList")


def question_text(question: str) -> str:
    """Return the part of a question that is tokenised: lower case, without its closing mark.

    The published program drops the last character whatever it is. All its questions end in `?`;
    ours keeps a letter or digit, so that a question typed without its mark loses nothing.
    """
    text = question.strip().lower()
    return text if text[-1:].isalnum() else text[:-1]


def tokenize(question: str) -> list[str]:
    """Return the words of a question, by the Treebank rules."""
    return [token for piece in pieces(question) for token in words_of(piece)]


def pieces(question: str) -> list[str]:
    """Return the parts of a question that are tokenised each by itself.

    Without punctuation the rules see single words ("cannot" becomes two). Asking for each distinct
    word once is what lets tens of thousands of questions through in a second.
    """
    text = question_text(question)
    return [text] if _PLAIN.fullmatch(text) is None else text.split()


@lru_cache(maxsize=1 << 16)
def words_of(text: str) -> tuple[str, ...]:
    """Return the words of a piece of text, by the Treebank rules."""
    # Imported here: nltk is slow to import, and most of what imports this module never tokenises.
    from nltk.tokenize import word_tokenize

    # `preserve_line` leaves out the sentence splitter, whose model would have to be downloaded; one
    # question is one sentence.
    return tuple(word_tokenize(text, preserve_line=True))


class WordList:
    """Words in the order of their ids; the first ones may be reserved."""

    name: ClassVar[str]
    """How a lexicon calls it; its file is `NAME.json`."""
    noun: ClassVar[str]
    """What its entries are, for messages"""
    reserved: ClassVar[tuple[str, ...]]

    def __init__(self, words: Sequence[str]) -> None:
        first = tuple(words[: len(self.reserved)])
        if first != self.reserved or not all(isinstance(word, str) for word in words):
            raise DataError(
                f"a list of texts that starts with {', '.join(self.reserved) or 'any'} is needed"
            )
        self._words = list(words)
        self._ids = {word: number for number, word in enumerate(words)}
        if len(self._ids) < len(self._words):
            twice = [word for word, n in Counter(words).items() if n > 1]
            raise DataError(f"{len(twice)} words are listed twice, for example {twice[0]!r}")

    def __len__(self) -> int:
        return len(self._words)

    def __repr__(self) -> str:
        return f"{type(self).__name__}({len(self)} entries)"

    def sizes(self) -> dict[str, int]:
        """Return what the layers of a model must know: under the list's name how long it is."""
        return {self.name: len(self)}

    def __eq__(self, other: object) -> bool:
        return (
            isinstance(other, WordList) and self.name == other.name and self._words == other._words
        )

    __hash__ = None  # type: ignore[assignment]

    def to_json(self) -> str:
        """Return the words as a JSON list in the order of their ids."""
        return json.dumps(self._words, ensure_ascii=False, indent=0)

    @classmethod
    def from_json(cls: type[Listed], text: str) -> Listed:
        """Read what `to_json` wrote.

        Raises:
            DataError: not such a list.
        """
        try:
            words = json.loads(text)
        except (ValueError, RecursionError) as error:
            raise DataError(f"not a JSON list: {error}") from None
        if not isinstance(words, list):
            raise DataError("not a JSON list")
        return cls(words)

    def save(self, path: str | Path) -> None:
        """Write the words as a JSON list."""
        Path(path).write_text(self.to_json(), encoding="utf-8")

    @classmethod
    def load(cls: type[Listed], path: str | Path) -> Listed:
        """Read what `save` wrote.

        Raises:
            DataError: the file is absent or damaged.
        """
        path = Path(path)
        if not path.is_file():
            raise DataError(f"{path}: no such file")
        if path.stat().st_size > MAX_LIST_BYTES:
            raise DataError(f"{path} is larger than {MAX_LIST_BYTES} bytes")
        try:
            return cls.from_json(path.read_text(encoding="utf-8"))
        except (DataError, UnicodeDecodeError) as error:
            raise DataError(f"{path}: {error}") from None


class Vocabulary(WordList):
    """Words of questions. Id 0 is padding, 1 any word that is not in training."""

    name, noun = "vocabulary", "words"
    reserved = (NULL, UNKNOWN)
    unknown_id: ClassVar[int] = 1

    @classmethod
    def build(cls, questions: Iterable[Sequence[str]]) -> "Vocabulary":
        """Number every word of the training questions, in order of first appearance."""
        seen = dict.fromkeys(word for words in questions for word in words)
        return cls([*cls.reserved, *(word for word in seen if word not in cls.reserved)])

    @property
    def tokens(self) -> list[str]:
        """Words in the order of their ids."""
        return list(self._words)

    def unknown(self, tokens: Sequence[str]) -> list[str]:
        """Return the words that are not in training, each once; punctuation is none."""
        words = (token for token in dict.fromkeys(tokens) if any(map(str.isalnum, token)))
        return [word for word in words if word not in self._ids]

    def encode(self, tokens: Sequence[str]) -> list[int]:
        """Return the ids of words."""
        return [self._ids.get(token, 1) for token in tokens]


class AnswerList(WordList):
    """Answers that are classes; 0 is any other answer in training, 1 in evaluation."""

    name, noun = "answers", "answers"
    reserved = (UNKNOWN_IN_TRAIN, UNKNOWN_IN_EVALUATION)

    @classmethod
    def build(cls, answers: Iterable[str], top: int) -> "AnswerList":
        """Keep the most frequent training answers; of equals those that come first."""
        ranked = (answer for answer, _ in Counter(answers).most_common())
        kept = [answer for answer in ranked if answer not in cls.reserved][:top]
        return cls([*cls.reserved, *kept])

    @property
    def answers(self) -> list[str]:
        """Answers in the order of their classes."""
        return list(self._words)

    def encode(self, answer: str, train: bool) -> int:
        """Return the class of an answer; `train` says which of the two unknown classes is meant."""
        return self._ids.get(answer, 0 if train else 1)

    def decode(self, answer_id: int) -> str:
        """Return the answer of a class."""
        return self._words[answer_id]
