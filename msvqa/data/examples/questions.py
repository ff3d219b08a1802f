"""Questions about a video, each with one answer that is a class.

Legend: n questions, b of them in a batch, L words.
"""

from collections import Counter
from collections.abc import Mapping, Sequence
from functools import cached_property
from typing import TYPE_CHECKING, Any, ClassVar, Literal

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import torch

from msvqa.data.batch import Batch
from msvqa.data.cautions import cautions
from msvqa.data.chance import Chance
from msvqa.data.examples.examples import Examples, Fitted
from msvqa.data.lexicon import Lexicon
from msvqa.data.pieces import PiecesConfig, clean, encoded, length_of, subwords_of, with_length
from msvqa.data.subwords import Subwords
from msvqa.data.text import AnswerList, Vocabulary, WordList, tokenize
from msvqa.recipe import DataConfig

if TYPE_CHECKING:
    from msvqa.data.annotated import Annotated

ANNOTATED = pa.schema(
    [
        ("split", pa.string()),
        ("source", pa.string()),  # name of the annotation file
        ("number", pa.int64()),  # of the row in that file
        ("question_id", pa.int64()),
        ("question", pa.string()),
        ("answer", pa.string()),
        ("type", pa.string()),
    ]
)
"""What annotations say of a question."""


class Questions(Examples):
    """n questions, grouped by video."""

    name = "questions"
    columns = pa.schema(
        [
            ("question_id", pa.int64()),  # as the annotations number them
            ("question", pa.string()),
            ("answer", pa.string()),
            ("type", pa.string()),
            ("tokens", pa.list_(pa.int32())),
            ("answer_id", pa.int64()),
        ]
    )
    lists: ClassVar[tuple[type[WordList], ...]] = (Vocabulary, AnswerList, Subwords)
    planned: ClassVar[Literal["by_medium", "plainly"]] = "by_medium"

    @cached_property
    def question_id(self) -> np.ndarray:
        """(n,) int64, as the annotations number them."""
        return np.asarray(self.table["question_id"].to_numpy())

    @cached_property
    def question(self) -> list[str]:
        """(n,) texts."""
        return list(self.table["question"].to_pylist())

    @cached_property
    def answer(self) -> list[str]:
        """(n,) texts."""
        return list(self.table["answer"].to_pylist())

    @cached_property
    def question_type(self) -> list[str]:
        """(n,) kinds of questions, such as "what"."""
        return list(self.table["type"].to_pylist())

    @cached_property
    def tokens(self) -> np.ndarray:
        """(sum of `length`,) int64, ids of one question after another, see `words`."""
        return np.asarray(pc.list_flatten(self.table["tokens"]).to_numpy(), dtype=np.int64)

    @cached_property
    def length(self) -> np.ndarray:
        """(n,) int64, number of words, or of pieces with what begins and ends a text."""
        found = pc.list_value_length(self.table["tokens"]).to_numpy()
        return np.asarray(found, dtype=np.int64)

    @cached_property
    def answer_id(self) -> np.ndarray:
        """(n,) int64, class of the answer."""
        return np.asarray(self.table["answer_id"].to_numpy())

    @cached_property
    def _start(self) -> np.ndarray:
        """(n,) int64, where in `tokens` a question begins."""
        return np.cumsum(self.length) - self.length

    def words(self, rows: np.ndarray) -> np.ndarray:
        """Return int64 (b, L), ids of words or pieces of some questions, 0 after their ends.

        L is the longest of these. All questions padded alike would take as much memory as the
        longest one of the split, and one long text among short ones is enough for gigabytes.
        """
        position = np.arange(int(self.length[rows].max(initial=0)))
        is_word = position < self.length[rows][:, None]
        padded = np.zeros(is_word.shape, dtype=np.int64)
        padded[is_word] = self.tokens[(self._start[rows][:, None] + position)[is_word]]
        return padded

    @classmethod
    def fit(cls, annotated: "Annotated", config: DataConfig) -> Fitted:
        """Return the questions with ids of words or pieces, and answer classes."""
        rows = annotated.examples.select(ANNOTATED.names).to_pylist()
        tokens = _tokens(rows)
        # In the order of the file, not of the videos: it decides the ids of words and of equally
        # frequent answers.
        train = [row for row in rows if row["split"] == "train"]
        train.sort(key=lambda row: row["number"])
        answers = AnswerList.build((row["answer"] for row in train), config.answer_top)
        subwords = subwords_of(config)
        length = config.text_length if isinstance(config, PiecesConfig) and subwords else None
        texts: Vocabulary | Subwords = subwords or Vocabulary.build(
            tokens[row["question"]] for row in train
        )
        words = _ids([*tokens], texts, length)
        is_train = [row["split"] == "train" for row in rows]
        classes = [answers.encode(r["answer"], t) for r, t in zip(rows, is_train, strict=True)]
        of_rows = [words[row["question"]] for row in rows]
        own = {"tokens": of_rows, "answer_id": classes}
        table: pa.Table = pa.table(
            {
                name: pa.array(own[name], cls.columns.field(name).type)
                if name in own
                else annotated.examples[name]
                for name in cls.schema().names
            },
            schema=cls.schema(),
        )
        unknown_answers = Counter(
            row["split"] for row, answer in zip(rows, classes, strict=True) if answer < 2
        )
        unknown_words = Counter[str]()
        for row, ids in zip(rows, of_rows, strict=True):
            unknown_words[row["split"]] += ids.count(texts.unknown_id)
        return Fitted(
            table=table if length is None else with_length(table, length),
            lexicon=Lexicon([texts, answers]),
            counts={
                name: {
                    "unknown_answers": unknown_answers[name],
                    "unknown_words": unknown_words[name],
                }
                for name in annotated.splits
            },
            facts=annotated.facts,
            cautions=cautions(rows, tokens),
        )

    def read_with(self, lexicon: Lexicon, *, trains: bool) -> "Questions":
        """Return the questions with ids and answer classes of another lexicon."""
        answers, distinct = lexicon.of(AnswerList), [*dict.fromkeys(self.question)]
        if Subwords.name in lexicon.names:
            words = _ids(distinct, lexicon.of(Subwords), length_of(self.table))
        else:
            words = _ids(distinct, lexicon.of(Vocabulary), None)
        columns = {
            "tokens": [words[text] for text in self.question],
            "answer_id": [answers.encode(text, trains) for text in self.answer],
        }
        table = self.table
        for name, values in columns.items():
            place = table.schema.get_field_index(name)
            table = table.set_column(place, name, pa.array(values, self.columns.field(name).type))
        return Questions(table)

    @classmethod
    def cautions(cls, annotated: "Annotated") -> list[str]:
        """Return what is odd about questions that can be used."""
        rows = annotated.examples.select(ANNOTATED.names).to_pylist()
        return cautions(rows, _tokens(rows)) if rows else []

    def tensors(self, rows: np.ndarray, chance: Chance | None = None) -> Batch:
        """Return `question` (b, L), `question_length` (b,) and `answer` (b,); nothing is random."""
        return {
            "question": torch.from_numpy(self.words(rows)),
            "question_length": torch.from_numpy(self.length[rows]),
            "answer": torch.from_numpy(self.answer_id[rows]),
        }

    def shown(self, rows: np.ndarray) -> Mapping[str, Sequence[Any]]:
        """Return number, text, kind and answer of some questions."""
        return {
            "question_id": self.question_id[rows],
            "question": [self.question[row] for row in rows],
            "type": [self.question_type[row] for row in rows],
            "answer": [self.answer[row] for row in rows],
        }


def _ids(
    texts: Sequence[str], listed: Vocabulary | Subwords, length: int | None
) -> dict[str, list[int]]:
    """Return the ids of each text: of words, or of as many pieces at most as `length` says."""
    if isinstance(listed, Vocabulary):
        return {text: listed.encode(tokenize(text)) for text in texts}
    assert length is not None
    found = encoded(listed, [clean(text) for text in texts], length)
    return dict(zip(texts, found.to_pylist(), strict=True))


def _tokens(rows: Sequence[Mapping[str, Any]]) -> dict[str, list[str]]:
    return {text: tokenize(text) for text in dict.fromkeys(row["question"] for row in rows)}
