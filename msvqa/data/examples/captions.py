"""Captions of a medium: a video, a span of one, an image.

Legend: n rows, b of them in a batch, L words.
"""

from array import array
from collections.abc import Iterable, Mapping, Sequence
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
from msvqa.data.examples.examples import Examples, Fitted
from msvqa.data.lexicon import Lexicon
from msvqa.data.text import Vocabulary, WordList, pieces, tokenize, words_of
from msvqa.recipe import DataConfig

if TYPE_CHECKING:
    from msvqa.data.annotated import Annotated

HELD_TOGETHER = "train"
"""The split whose rows hold all captions of a medium, of which each epoch draws one. In the others
each caption is a row of its own, since each is asked about."""
OFTEN = 0.05
"""Share of the rows that have one and the same caption, from which on it is said."""
SHOWN = 3


class Captions(Examples):
    """n media with their captions; in held-out splits n captions with their medium."""

    name = "captions"
    columns = pa.schema(
        [
            ("captions", pa.list_(pa.string())),
            ("tokens", pa.list_(pa.list_(pa.int32()))),
        ]
    )
    lists: ClassVar[tuple[type[WordList], ...]] = (Vocabulary,)

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

        `text` int64 (b, L), word ids, padded on the right with 0; `text_length` (b,), at least 1;
        `text_id` (b,), the same number for captions of the same words.
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
        }

    def shown(self, rows: np.ndarray) -> Mapping[str, Sequence[Any]]:
        """Return the captions of some rows, the first of each."""
        part = self.table["captions"].take(pa.array(rows, type=pa.int64()))
        return {"caption": [captions[0] for captions in part.to_pylist()]}

    @classmethod
    def fit(cls, annotated: "Annotated", config: DataConfig) -> Fitted:
        """Return the captions with word ids; the words are those of the training captions."""
        table = annotated.examples
        texts, ids, lengths, words = _words(table["captions"])
        per_row = np.asarray(pc.list_value_length(table["captions"]).to_numpy(), dtype=np.int64)
        splits = table["split"].to_pylist()
        row_is_train = np.array([split == "train" for split in splits], dtype=bool)
        word_is_train = np.repeat(np.repeat(row_is_train, per_row), lengths)
        vocabulary = Vocabulary.build([[words[i] for i in _in_order(ids[word_is_train])]])
        encoded = np.array(vocabulary.encode(words), dtype=np.int32)[ids]
        tokens = _nested(_nested(pa.array(encoded), lengths), per_row)
        columns = {"media": table["media"], "captions": _nested(texts, per_row), "tokens": tokens}
        text_split = np.repeat(np.array(splits, dtype=object), per_row)
        word_split = np.repeat(text_split, lengths)
        return Fitted(
            table=pa.table(columns, schema=cls.schema()),
            lexicon=Lexicon([vocabulary]),
            counts={
                name: {
                    "texts": int((text_split == name).sum()),
                    "unknown_words": int((encoded[word_split == name] == 1).sum()),
                }
                for name in annotated.splits
            },
            facts=annotated.facts,
            cautions=cls.cautions(annotated),
        )

    def read_with(self, lexicon: Lexicon, *, trains: bool) -> "Captions":
        """Return the captions with word ids of another lexicon."""
        vocabulary = lexicon.of(Vocabulary)
        encoded = [
            [vocabulary.encode(tokenize(text)) for text in captions]
            for captions in self.table["captions"].to_pylist()
        ]
        place = self.table.schema.get_field_index("tokens")
        tokens = pa.array(encoded, self.columns.field("tokens").type)
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
        counts = pc.value_counts(pc.list_flatten(table["captions"]))
        often = sorted(
            ((entry["counts"], entry["values"]) for entry in counts.to_pylist()), reverse=True
        )[:SHOWN]
        if often and often[0][0] > max(2, OFTEN * len(table)):
            examples = ", ".join(f"{text[:40]!r} {count} times" for count, text in often)
            said.append(
                f"captions that are the same for many media ({examples}): no model can tell these "
                "apart"
            )
        return said


def unrolled(
    captions: Iterable[tuple[str, int, Sequence[str]]],
) -> list[tuple[str, int, list[str]]]:
    """Return rows of split, medium and captions as the splits hold them, see `HELD_TOGETHER`."""
    rows: list[tuple[str, int, list[str]]] = []
    for split, medium, texts in captions:
        if split == HELD_TOGETHER:
            rows.append((split, medium, list(texts)))
        else:
            rows += [(split, medium, [text]) for text in texts]
    return rows


def _words(captions: pa.ChunkedArray) -> tuple[pa.Array, np.ndarray, np.ndarray, list[str]]:
    """Return all texts, the numbers of their words, the words of each, and what the numbers mean.

    Numbers are given in order of appearance; a table of them takes a tenth of what lists take.
    """
    texts = pc.list_flatten(captions).combine_chunks()
    numbered = _Numbers()
    ids, lengths = array("i"), array("i")
    for text in texts.to_pylist():
        before = len(ids)
        ids.extend(chain.from_iterable([numbered[piece] for piece in pieces(text)]))
        lengths.append(len(ids) - before)
    return (
        texts,
        np.asarray(ids, dtype=np.int32),
        np.asarray(lengths, dtype=np.int64),
        list(numbered.words),
    )


class _Numbers(dict[str, tuple[int, ...]]):
    """The numbers of a piece's words; new words get the next ones."""

    def __init__(self) -> None:
        super().__init__()
        self.words: dict[str, int] = {}

    def __missing__(self, piece: str) -> tuple[int, ...]:
        words = self.words
        self[piece] = found = tuple(words.setdefault(w, len(words)) for w in words_of(piece))
        return found


def _in_order(ids: np.ndarray) -> np.ndarray:
    """Return the different numbers in order of first appearance."""
    _, first = np.unique(ids, return_index=True)
    ordered: np.ndarray = ids[np.sort(first)]
    return ordered


def _nested(values: pa.Array, lengths: np.ndarray) -> pa.ListArray:
    offsets = np.concatenate([[0], np.cumsum(lengths)]).astype(np.int32)
    return pa.ListArray.from_arrays(pa.array(offsets), values)


def _number(text: str) -> int:
    digest = blake2b(" ".join(tokenize(text)).encode(), digest_size=8).digest()
    return int.from_bytes(digest, "little", signed=True)
