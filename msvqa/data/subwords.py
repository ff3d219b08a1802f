"""Pieces of words: the vocabularies of BERT and RoFormer, and how their text becomes ids.

The vocabulary comes from a folder of the user, as published models have it:

    vocab.txt                one piece a line, in the order of the ids
    config.json              `model_type`: bert (the default) or roformer
    tokenizer_config.json    `do_lower_case`, true by default; need not be there

BERT: Devlin et al., 2019 (arXiv 1810.04805). RoFormer: Su et al., 2021 (arXiv 2104.09864); the
Chinese one cuts a text into words first, and keeps those whole that are in the vocabulary.
"""

import json
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any, Literal, cast

import numpy as np

from msvqa.data.root import SourceFile, open_root
from msvqa.data.text import WordList
from msvqa.errors import DataError, one_of
from msvqa.text_files import parse_json

# Legend: n texts, S places of a text.

Kind = Literal["bert", "roformer"]
KINDS: tuple[Kind, ...] = ("bert", "roformer")
VOCABULARY, CONFIG, SETTINGS = "vocab.txt", "config.json", "tokenizer_config.json"
MAX_VOCABULARY_BYTES = 50_000_000
TEXTS_AT_ONCE = 10_000
PAD, UNKNOWN, START, END, MASK = "[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]"


@dataclass(frozen=True)
class Encoded:
    """Texts as ids."""

    ids: np.ndarray
    """int32 (n, S), padded on the right"""
    count: np.ndarray
    """int32 (n,), ids that are no padding"""


class Subwords(WordList):
    """Pieces in the order of their ids, with the way of cutting texts into them."""

    name, noun = "text", "pieces of words"
    reserved = ()

    def __init__(
        self, words: Sequence[str], kind: Kind = "bert", *, lower_case: bool = True
    ) -> None:
        # Not that of the base: published vocabularies may list a piece twice.
        if not all(isinstance(word, str) for word in words):
            raise DataError("a list of texts is needed")
        self._words = list(words)
        self._ids = {word: number for number, word in enumerate(words)}
        self.kind, self.lower_case = kind, lower_case
        lacking = [word for word in (PAD, UNKNOWN, START, END, MASK) if word not in self._ids]
        if lacking:
            raise DataError(f"no {one_of(lacking)} in a vocabulary of {len(self)} pieces")

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Subwords) and self.__reduce__() == other.__reduce__()

    __hash__ = None

    def __reduce__(self) -> tuple[Any, ...]:
        # Without what cuts the texts: that of RoFormer cannot travel.
        return _made, (self._words, self.kind, self.lower_case)

    def sizes(self) -> dict[str, int]:
        """Return the number of pieces, and which ids begin, end and hide."""
        special = {"start": START, "end": END, "mask": MASK}
        return super().sizes() | {f"{self.name}_{k}": self._ids[p] for k, p in special.items()}

    @property
    def unknown_id(self) -> int:
        """What stands for what cannot be cut into pieces."""
        return self._ids[UNKNOWN]

    @property
    def mask_id(self) -> int:
        """What masked pieces are replaced by."""
        return self._ids[MASK]

    @property
    def pieces(self) -> list[str]:
        """Pieces in the order of their ids."""
        return list(self._words)

    def encode(self, texts: Sequence[str], length: int) -> Encoded:
        """Return texts as ids, cut to S = `length` with what begins and ends a text."""
        ids = np.full((len(texts), length), self._ids[PAD], dtype=np.int32)
        count = np.zeros(len(texts), dtype=np.int32)
        for first in range(0, len(texts), TEXTS_AT_ONCE):
            found = self._cut(list(texts[first : first + TEXTS_AT_ONCE]), length)
            for row, pieces in enumerate(found, start=first):
                ids[row, : len(pieces)], count[row] = pieces, len(pieces)
        return Encoded(ids, count)

    def _cut(self, texts: list[str], length: int) -> list[list[int]]:
        if self.kind == "roformer":
            cut = self._tokenizer(texts, truncation=True, max_length=length)["input_ids"]
            return cast(list[list[int]], cut)
        self._tokenizer.enable_truncation(length)
        return [found.ids for found in self._tokenizer.encode_batch(texts)]

    @cached_property
    def _tokenizer(self) -> Any:
        if self.kind == "roformer":
            from transformers import RoFormerTokenizer

            # The vocabulary itself: `from_pretrained` gives the cutter of words the name of the
            # file, and it then knows no word of several characters (transformers 5.23).
            return RoFormerTokenizer(vocab=self._ids, do_lower_case=self.lower_case)
        from tokenizers import BertWordPieceTokenizer

        return BertWordPieceTokenizer(vocab=self._ids, lowercase=self.lower_case)

    def to_json(self) -> str:
        """Return everything as a JSON object."""
        whole = {"kind": self.kind, "lower_case": self.lower_case, "pieces": self._words}
        return json.dumps(whole, ensure_ascii=False, indent=0)

    @classmethod
    def from_json(cls, text: str) -> "Subwords":
        """Read what `to_json` wrote.

        Raises:
            DataError: not such an object.
        """
        try:
            read = json.loads(text)
            kind, lower_case, pieces = read["kind"], read["lower_case"], read["pieces"]
        except (ValueError, KeyError, TypeError, RecursionError) as error:
            raise DataError(f"not a JSON object of a vocabulary: {error!r}") from None
        if kind not in KINDS or not isinstance(pieces, list):
            raise DataError(f"kind {kind!r} is not one of {one_of(KINDS)}, or there are no pieces")
        return cls(pieces, kind, lower_case=bool(lower_case))


def _made(words: Sequence[str], kind: Kind, lower_case: bool) -> Subwords:
    return Subwords(words, kind, lower_case=lower_case)


def vocabulary_files(folder: str) -> list[SourceFile]:
    """Return the files of a folder that say how text becomes ids.

    Raises:
        DataError: there is no vocabulary.
    """
    root = open_root(folder, follow_links=True)
    if root.size(VOCABULARY) is None:
        raise DataError(
            f"no {VOCABULARY} in {folder}: data.tokenizer is the folder of a BERT or RoFormer "
            f"model, with {VOCABULARY} and {CONFIG}"
        )
    names = [name for name in (VOCABULARY, CONFIG, SETTINGS) if root.size(name) is not None]
    return [root.source(name) for name in names]


def read_vocabulary(folder: str) -> Subwords:
    """Return the vocabulary of a folder, see above.

    Raises:
        DataError: it is absent or damaged, or of a kind that is not known.
    """
    files = {file.name: file for file in vocabulary_files(folder)}
    file = files[VOCABULARY]
    if file.path.stat().st_size > MAX_VOCABULARY_BYTES:
        raise DataError(f"{file} is larger than {MAX_VOCABULARY_BYTES} bytes")
    try:
        # Not by `splitlines`: pieces may be characters that it takes for ends of lines.
        lines = file.path.read_bytes().decode().removesuffix("\n").split("\n")
    except UnicodeDecodeError as error:
        raise DataError(f"{file} is not UTF-8: {error}") from None
    kind = _settings(files.get(CONFIG)).get("model_type", "bert")
    if kind not in KINDS:
        raise DataError(f"{files[CONFIG]}: model_type {kind!r} is not one of {one_of(KINDS)}")
    lower_case = bool(_settings(files.get(SETTINGS)).get("do_lower_case", True))
    try:
        return Subwords([line.rstrip("\r") for line in lines], kind, lower_case=lower_case)
    except DataError as error:
        raise DataError(f"{file}: {error}") from None


def _settings(file: SourceFile | None) -> dict[str, Any]:
    if file is None:
        return {}
    try:
        read = parse_json(file.path.read_text(encoding="utf-8"))
    except ValueError as error:
        raise DataError(f"{file} is not valid JSON: {error}") from None
    return read if isinstance(read, dict) else {}
