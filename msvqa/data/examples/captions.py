"""Captions of a medium: a video, a span of one, an image.

Legend: n rows, b of them in a batch, L words.
"""

from array import array
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from hashlib import blake2b
from itertools import chain
from typing import TYPE_CHECKING, Any, ClassVar

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import torch

from msvqa.data.batch import Batch
from msvqa.data.chance import Chance
from msvqa.data.examples.examples import Examples, Fitted, nested
from msvqa.data.lexicon import Lexicon
from msvqa.data.pieces import PiecesConfig, clean, encoded, length_of, subwords_of, with_length
from msvqa.data.subwords import Subwords
from msvqa.data.text import Vocabulary, WordList, pieces, tokenize, words_of
from msvqa.data.texts import as_tensor
from msvqa.recipe import DataConfig

if TYPE_CHECKING:
    from msvqa.data.annotated import Annotated

HELD_TOGETHER = "train"
"""The split whose rows hold all captions of a medium, of which each epoch draws one. In the others
each caption is a row of its own, since each is asked about."""
OFTEN = 0.05
"""Share of the rows that have one and the same caption, from which on it is said."""
SHOWN = 3
UNKNOWN_WORD = 1
FEWER = "give the captions to several data sets"
"""Advice where there are more words than a table counts."""
KINDS = pa.map_(pa.string(), pa.string())
"""Type of the column `kinds`, which is there where annotations name any: what the first caption of
a row says by kinds of words."""
AT_ONCE = 100_000
"""Texts or words that are held as objects at a time."""


class Captions(Examples):
    """n media with their captions; in held-out splits n captions with their medium."""

    name = "captions"
    columns = pa.schema(
        [
            ("captions", pa.list_(pa.string())),
            ("tokens", pa.list_(pa.list_(pa.int32()))),
        ]
    )
    lists: ClassVar[tuple[type[WordList], ...]] = (Vocabulary, Subwords)

    @cached_property
    def count(self) -> np.ndarray:
        """(n,) int64, captions of each row."""
        return np.asarray(pc.list_value_length(self.table["captions"]).to_numpy(), dtype=np.int64)

    def chosen(self, rows: np.ndarray, chance: Chance | None) -> list[int]:
        """Return which caption of each row is taken: a random one, or without chance the first."""
        if chance is None:
            return [0] * len(rows)
        counts = self.count[rows].tolist()
        return [
            int(chance.of_example(row).integers(count)) if count > 1 else 0
            for row, count in zip(rows.tolist(), counts, strict=True)
        ]

    def tensors(self, rows: np.ndarray, chance: Chance | None = None) -> Batch:
        """Return one caption of each row.

        `text` int64 (b, L), ids of words or pieces, padded on the right with 0; `text_length` (b,),
        at least 1; `text_id` (b,), the same number for captions of the same words; `text_utf8`, the
        captions as they are, see `data/texts.py`. Pieces stand between what begins and what ends a
        text.
        """
        part = self.table.take(pa.array(rows, type=pa.int64()))
        taken = self.chosen(rows, chance)
        words = [row[n] for row, n in zip(part["tokens"].to_pylist(), taken, strict=True)]
        texts = [row[n] for row, n in zip(part["captions"].to_pylist(), taken, strict=True)]
        padded = np.zeros((len(words), max(map(len, words), default=0)), dtype=np.int64)
        for number, ids in enumerate(words):
            padded[number, : len(ids)] = ids
        return {
            "text": torch.from_numpy(padded),
            "text_length": torch.tensor([len(ids) for ids in words]),
            "text_id": torch.tensor([_number(text) for text in texts]),
            "text_utf8": as_tensor(texts),
        }

    def shown(self, rows: np.ndarray) -> Mapping[str, Sequence[Any]]:
        """Return the captions of some rows, the first of each, and what it says by kinds."""
        places = pa.array(rows, type=pa.int64())
        captions = self.table["captions"].take(places).to_pylist()
        found = {"caption": [of_row[0] for of_row in captions]}
        if not self._names_kinds:
            return found
        kinds = self.table["kinds"].take(places).to_pylist()
        return found | {"kinds": [dict(pairs) if pairs else None for pairs in kinds]}

    @cached_property
    def _names_kinds(self) -> bool:
        return "kinds" in self.table.column_names and self.table["kinds"].null_count < len(self)

    @classmethod
    def fit(cls, annotated: "Annotated", config: DataConfig) -> Fitted:
        """Return the captions with ids: of pieces, or of the words of the training captions."""
        if (subwords := subwords_of(config)) is not None:
            assert isinstance(config, PiecesConfig)
            return cls._fit_pieces(annotated, subwords, config.text_length)
        table = annotated.examples
        read = _Words.of(table["captions"])
        rows = {name: slice(*annotated.span(table, name)) for name in annotated.splits}
        words = {name: read.of_rows(of_split) for name, of_split in rows.items()}
        of_training = read.ids[words["train"]] if "train" in words else read.ids[:0]
        order = _in_order(of_training, len(read.words))
        vocabulary = Vocabulary.build([[read.words[i] for i in order]])
        tokens = read.encoded(vocabulary)
        counts = {
            name: {
                "texts": int(read.texts_of_rows[rows[name]].sum()),
                "unknown_words": int((read.ids[words[name]] == UNKNOWN_WORD).sum()),
            }
            for name in annotated.splits
        }
        return Fitted(
            table=_whole(table, tokens),
            lexicon=Lexicon([vocabulary]),
            counts=counts,
            facts=annotated.facts,
            cautions=cls.cautions(annotated),
        )

    @classmethod
    def _fit_pieces(cls, annotated: "Annotated", subwords: Subwords, length: int) -> Fitted:
        table = annotated.examples
        tokens = _pieces(table["captions"], subwords, length)
        per_row = pc.list_value_length(table["captions"]).to_numpy()
        rows = {name: slice(*annotated.span(table, name)) for name in annotated.splits}
        return Fitted(
            table=with_length(_whole(table, tokens), length),
            lexicon=Lexicon([subwords]),
            counts={name: {"texts": int(per_row[of].sum())} for name, of in rows.items()},
            facts=annotated.facts,
            cautions=cls.cautions(annotated),
        )

    def read_with(self, lexicon: Lexicon, *, trains: bool) -> "Captions":
        """Return the captions with ids of another lexicon."""
        if Subwords.name in lexicon.names:
            length = length_of(self.table)
            tokens = _pieces(self.table["captions"], lexicon.of(Subwords), length)
        else:
            tokens = _Words.of(self.table["captions"]).encoded(lexicon.of(Vocabulary))
        place = self.table.schema.get_field_index("tokens")
        return Captions(self.table.set_column(place, "tokens", tokens))

    @classmethod
    def cautions(cls, annotated: "Annotated") -> list[str]:
        """Say where nothing validates, and which captions stand for many media."""
        table, said = annotated.examples, []
        if not annotated.rows_of(table, "val")[1]:
            said.append(
                "no caption is for validation: nothing validates, and the last checkpoint counts "
                "as the best"
            )
        often = _most_frequent(pc.list_flatten(table["captions"]))
        if often and often[0][0] > max(2, OFTEN * len(table)):
            examples = ", ".join(f"{text[:40]!r} {count} times" for count, text in often)
            said.append(
                f"captions that are the same for many media ({examples}): no model can tell these "
                "apart"
            )
        return said


def _whole(annotated: pa.Table, tokens: pa.ListArray) -> pa.Table:
    """Return the columns of `Captions`, and `kinds` where the annotations have it."""
    columns = {"media": annotated["media"], "captions": annotated["captions"], "tokens": tokens}
    table = pa.table(columns, schema=Captions.schema())
    if "kinds" in annotated.column_names:
        table = table.append_column("kinds", annotated["kinds"])
    return table


def _pieces(captions: pa.ChunkedArray, subwords: Subwords, length: int) -> pa.ListArray:
    """Return the ids of the texts of each row."""
    texts = pc.list_flatten(captions)
    parts = (texts.slice(start, AT_ONCE) for start in range(0, len(texts), AT_ONCE))
    cleaned = ([clean(text) for text in part.to_pylist()] for part in parts)
    found = [encoded(subwords, part, length) for part in cleaned]
    whole = pa.concat_arrays(found) if found else encoded(subwords, [], length)
    per_row = np.asarray(pc.list_value_length(captions).to_numpy(), dtype=np.int64)
    return nested(whole, per_row, FEWER)


def _most_frequent(texts: pa.ChunkedArray) -> list[tuple[int, str]]:
    """Return the most frequent texts that are there twice or more, with how often."""
    # By the hashes of texts: a table of millions of texts takes as much memory again.
    hashes = np.empty(len(texts), dtype=np.int64)
    for start in range(0, len(texts), AT_ONCE):
        part = texts.slice(start, AT_ONCE).to_pylist()
        hashes[start : start + len(part)] = [hash(text) for text in part]
    _, first, counts = np.unique(hashes, return_index=True, return_counts=True)
    repeated = np.flatnonzero(counts > 1)
    top = repeated[np.argsort(-counts[repeated], kind="stable")[:SHOWN]]
    return [(int(counts[n]), texts[int(first[n])].as_py()) for n in top]


@dataclass
class _Words:
    """The words of captions by number; numbers are given in order of appearance.

    A table of numbers takes a tenth of what lists of words take.
    """

    ids: np.ndarray
    """(W,) int32, the words of all texts."""
    words_of_texts: np.ndarray
    """(T,) how many each text has."""
    texts_of_rows: np.ndarray
    """(n,) how many texts each row has."""
    words: list[str]
    """What the numbers mean."""

    @classmethod
    def of(cls, captions: pa.ChunkedArray) -> "_Words":
        texts = pc.list_flatten(captions)
        numbered = _Numbers()
        ids, lengths = array("i"), array("i")
        for start in range(0, len(texts), AT_ONCE):
            for text in texts.slice(start, AT_ONCE).to_pylist():
                before = len(ids)
                ids.extend(chain.from_iterable([numbered[piece] for piece in pieces(text)]))
                lengths.append(len(ids) - before)
        per_row = pc.list_value_length(captions).to_numpy()
        return cls(
            np.asarray(ids, dtype=np.int32),
            np.asarray(lengths, dtype=np.int64),
            np.asarray(per_row, dtype=np.int64),
            list(numbered.words),
        )

    def of_rows(self, rows: slice) -> slice:
        """Return where the words of neighbouring rows are."""
        texts = [int(self.texts_of_rows[:n].sum()) for n in (rows.start, rows.stop)]
        return slice(*(int(self.words_of_texts[:n].sum()) for n in texts))

    def encoded(self, vocabulary: Vocabulary) -> pa.ListArray:
        """Return the ids of a vocabulary for the texts of each row; `ids` then are these."""
        table = np.array(vocabulary.encode(self.words), dtype=np.int32)
        # In place: of tens of millions of words there are not two arrays.
        for start in range(0, len(self.ids), AT_ONCE):
            part = self.ids[start : start + AT_ONCE]
            part[:] = table[part] if len(table) else part
        texts = nested(pa.array(self.ids), self.words_of_texts, FEWER)
        return nested(texts, self.texts_of_rows, FEWER)


class _Numbers(dict[str, tuple[int, ...]]):
    """The numbers of a piece's words; new words get the next ones."""

    def __init__(self) -> None:
        super().__init__()
        self.words: dict[str, int] = {}

    def __missing__(self, piece: str) -> tuple[int, ...]:
        words = self.words
        self[piece] = found = tuple(words.setdefault(w, len(words)) for w in words_of(piece))
        return found


def _in_order(ids: np.ndarray, count: int) -> np.ndarray:
    """Return the different numbers, all below `count`, in order of first appearance."""
    first = np.full(count, len(ids))
    for start in range(len(ids) - len(ids) % AT_ONCE, -1, -AT_ONCE):
        part = ids[start : start + AT_ONCE][::-1]
        # Of several values for one place the last is kept: the first, in what is reversed.
        first[part] = np.arange(start + len(part) - 1, start - 1, -1)
    ordered: np.ndarray = ids[np.sort(first[first < len(ids)])]
    return ordered


def _number(text: str) -> int:
    digest = blake2b(" ".join(tokenize(text)).encode(), digest_size=8).digest()
    return int.from_bytes(digest, "little", signed=True)
