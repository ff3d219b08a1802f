"""Captions and questions as pieces of words, for models that begin as a published BERT.

UMT, section 4.1 and its program: texts are lower-cased and lose their punctuation before they are
cut into pieces; each is then `[CLS] pieces [SEP]`, cut to a length.

Legend: n texts, A answers, L pieces of the longest.
"""

import re
from collections.abc import Sequence

import numpy as np
import pyarrow as pa
from pydantic import Field

from msvqa.data.examples.examples import nested
from msvqa.data.lexicon import Lexicon
from msvqa.data.root import SourceFile
from msvqa.data.subwords import Subwords, read_vocabulary, vocabulary_files
from msvqa.data.text import AnswerList
from msvqa.data_config import DataConfig
from msvqa.errors import DataError
from msvqa.storage import Location

FEWER = "lower data.text_length, or give the texts to several data sets"
"""Advice where there are more ids than a table counts."""
LENGTH = b"text_length"
"""Of the metadata of a table: the longest that a text of its may be."""
NO_PIECE = -1
MAX_ANSWER = 64
"""Pieces of an answer at most, with what begins and ends it."""
_DROPPED = re.compile(r"[,.'!?\"()*#:;~]")
_BLANK = re.compile(r"[-/\s]+")
_FIELDS = frozenset({"tokenizer", "text_length"})


class PiecesConfig(DataConfig):
    """Fields of data sets whose texts may become pieces of words."""

    tokenizer: Location | None = None
    """Folder with the `vocab.txt` and `config.json` of a BERT model: texts become pieces of its
    words. null: they become the words of the training texts."""
    text_length: int = Field(default=32, ge=3, le=512)
    """`tokenizer`: pieces of a text, with what begins and ends it; longer ones are cut."""


def subwords_of(config: DataConfig) -> Subwords | None:
    """Return the vocabulary that a section names; None where texts become words.

    Raises:
        DataError: it is absent or damaged, or of a kind that is not known.
    """
    folder = config.tokenizer if isinstance(config, PiecesConfig) else None
    return read_vocabulary(folder) if folder else None


def tokenizer_files(config: DataConfig) -> list[SourceFile]:
    """Return the files that say how texts become pieces; none where they become words."""
    folder = config.tokenizer if isinstance(config, PiecesConfig) else None
    return vocabulary_files(folder) if folder else []


def unused_fields(config: DataConfig) -> frozenset[str]:
    """Return the fields that leave what is prepared as it is: all of these without a tokenizer."""
    without = not isinstance(config, PiecesConfig) or config.tokenizer is None
    return _FIELDS if without else frozenset()


def clean(text: str) -> str:
    """Return a text as the weights of UMT know texts: lower case, without punctuation."""
    plain = _DROPPED.sub("", text.lower().replace("<person>", "person"))
    return _BLANK.sub(" ", plain).strip()


def encoded(subwords: Subwords, texts: Sequence[str], length: int) -> pa.ListArray:
    """Return the ids of texts, list<int32> (n,), each of `length` at most."""
    found = subwords.encode(texts, length)
    ids = found.ids[np.arange(length) < found.count[:, None]]
    return nested(pa.array(ids), found.count.astype(np.int64), FEWER)


def with_length(table: pa.Table, length: int) -> pa.Table:
    """Return a table that says how long its texts may be, so that they can be read anew."""
    return table.replace_schema_metadata({LENGTH: str(length).encode()})


def length_of(table: pa.Table) -> int:
    """Return what `with_length` has said.

    Raises:
        DataError: the texts of the table are words, and were to be read as pieces.
    """
    said = (table.schema.metadata or {}).get(LENGTH)
    if said is None:
        raise DataError(
            "the model was trained with pieces of words, and these texts are words: give the data "
            "the same folder, data.tokenizer=DIR"
        )
    return int(said)


def answer_pieces(lexicon: Lexicon) -> np.ndarray | None:
    """Return the pieces of all answers, int64 (A, L), -1 after their ends.

    Classes that stand for answers outside the list have none. None where the lexicon has no
    answers, or no pieces.
    """
    if not {AnswerList.name, Subwords.name} <= {*lexicon.names}:
        return None
    answers, subwords = lexicon.of(AnswerList), lexicon.of(Subwords)
    listed = answers.answers[len(AnswerList.reserved) :]
    # As they are: unlike captions and questions, the published program does not clean answers.
    found = encoded(subwords, listed, MAX_ANSWER)
    inner = [ids[1:-1] for ids in found.to_pylist()]
    table = np.full((len(answers), max(map(len, inner), default=0)), NO_PIECE, dtype=np.int64)
    for row, ids in enumerate(inner, start=len(AnswerList.reserved)):
        table[row, : len(ids)] = ids
    return table
