"""What tagged videos and pairs of videos have in common: titles, and tags out of a list.

Legend: n examples, b of them in a batch, m media per example, S places of a title.
"""

from abc import abstractmethod
from collections.abc import Mapping, Sequence
from functools import cached_property
from typing import TYPE_CHECKING, Any, ClassVar, TypeVar

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import torch
from pydantic import Field

from msvqa.data.batch import Batch
from msvqa.data.chance import Chance
from msvqa.data.examples.examples import Examples, Fitted, nested
from msvqa.data.lexicon import Lexicon
from msvqa.data.masking import Masking
from msvqa.data.subwords import Subwords, read_vocabulary
from msvqa.data.tags import TagList
from msvqa.data.text import WordList
from msvqa.data_config import DataConfig
from msvqa.errors import DataError
from msvqa.storage import Location, join

if TYPE_CHECKING:
    from msvqa.data.annotated import Annotated

Kind = TypeVar("Kind", bound="Titled")

TAG_LIST = "tag_list"
"""Fact of annotations: the tags that there are, as texts, where a file lists them."""
DEFAULT_FOLDER = "text"
FEWER = "lower data.text_length"
"""Advice where there are more ids than a table counts."""


class TitledConfig(DataConfig):
    """Fields of data sets whose media have titles and tags."""

    tokenizer: Location | None = None
    """Folder with the `vocab.txt` and `config.json` of a BERT or RoFormer model; by default the
    folder `text` of the data root."""
    text_length: int = Field(default=32, ge=3, le=512)
    """S: pieces of a title, with what begins and ends it; longer ones are cut."""
    masked_words: float = Field(default=0.15, ge=0, lt=1)
    """Part of the pieces of a title that training with tags hides from models that learn to find
    them; 0: none, and batches have no masked titles."""

    @property
    def tokenizer_folder(self) -> str:
        """Where the vocabulary is."""
        return self.tokenizer or join(self.root, DEFAULT_FOLDER)


class Titled(Examples):
    """n examples whose media have a title and tags each."""

    columns = pa.schema(
        [
            ("titles", pa.list_(pa.string())),  # (m,)
            ("tags", pa.list_(pa.list_(pa.string()))),  # (m, any number), also those of no list
            ("tokens", pa.list_(pa.int32())),  # (m·S,)
            ("token_count", pa.list_(pa.int32())),  # (m,)
            ("tag_indices", pa.list_(pa.list_(pa.int32()))),  # (m, any number), ascending
        ]
    )
    lists: ClassVar[tuple[type[WordList], ...]] = (Subwords, TagList)
    said_of_media = ("tokens", "token_mask")

    @cached_property
    def masking(self) -> Masking:
        """How titles are hidden in training."""
        return Masking.from_metadata(self.table.schema.metadata or {})

    def tensors(self, rows: np.ndarray, chance: Chance | None = None) -> Batch:
        """Return `tokens`, `token_mask` and `tag_indices`, (b, S or most), or (b, m, S or most)."""
        part = self.table.take(pa.array(rows, type=pa.int64()))
        b, m = len(rows), self.media_per_example
        tokens = _flat(part["tokens"]).astype(np.int64).reshape(b * m, -1 if b else 1)
        mask = np.arange(tokens.shape[1]) < _flat(part["token_count"])[:, None]
        found = {"tokens": tokens, "token_mask": mask, "tag_indices": _padded(part["tag_indices"])}
        if m > 1:
            found = {name: array.reshape(b, m, -1) for name, array in found.items()}
        return {name: torch.from_numpy(array) for name, array in found.items()}

    @classmethod
    def fit(cls, annotated: "Annotated", config: DataConfig) -> Fitted:
        """Return titles as ids and tags as columns.

        Tags are those of the list of the data set; where it has none, of the training examples.
        """
        if not isinstance(config, TitledConfig):
            raise DataError(f"data set {config.name!r} says nothing of how titles become ids")
        subwords = read_vocabulary(config.tokenizer_folder)
        table = annotated.examples
        listed = annotated.facts.get(TAG_LIST)
        if listed is None:
            train = table.filter(pc.equal(table["split"], "train"))
            listed = pc.unique(pc.list_flatten(pc.list_flatten(train["tags"]))).to_pylist()
        lexicon = Lexicon([subwords, TagList.ascending(listed)])
        masking = Masking(config.masked_words, subwords.mask_id, len(subwords))
        columns = {name: table[name] for name in cls._annotated_columns()}
        encoded = _encoded(table["titles"], table["tags"], lexicon, config.text_length)
        whole = pa.table(columns | encoded).select(cls.schema().names).cast(cls.schema())
        facts = {name: fact for name, fact in annotated.facts.items() if name != TAG_LIST}
        return Fitted(
            table=whole.replace_schema_metadata(masking.to_metadata()),
            lexicon=lexicon,
            counts={name: _counts(whole, table, name) for name in annotated.splits},
            facts=facts,
            cautions=cls.cautions(annotated),
        )

    def read_with(self: Kind, lexicon: Lexicon, *, trains: bool) -> Kind:
        """Return the examples with the ids and columns of another lexicon."""
        table, width = self.table, self.media_per_example
        length = len(_flat(table["tokens"].slice(0, 1))) // width if len(table) else 0
        encoded = _encoded(table["titles"], table["tags"], lexicon, length)
        for name, column in encoded.items():
            place = table.schema.get_field_index(name)
            field = self.columns.field(name)
            table = table.set_column(place, field, column.cast(field.type))
        subwords = lexicon.of(Subwords)
        masking = Masking(self.masking.probability, subwords.mask_id, len(subwords))
        return type(self)(table.replace_schema_metadata(masking.to_metadata()))

    @classmethod
    def _annotated_columns(cls) -> list[str]:
        """Return the columns that are taken as they are annotated."""
        return [name for name in cls.schema().names if name not in _ENCODED]

    @classmethod
    def cautions(cls, annotated: "Annotated") -> list[str]:
        """Say how many titles are empty, and how many media have no tag."""
        examples = annotated.examples
        titles = pc.list_flatten(examples["titles"].filter(pc.equal(examples["split"], "train")))
        empty = pc.sum(pc.equal(pc.utf8_length(pc.utf8_trim_whitespace(titles)), 0)).as_py() or 0
        of = f"of {len(titles)} titles of training"
        said = f"{empty} {of} are empty: what is known of these videos is their frames"
        return [said] if empty else []

    @abstractmethod
    def shown(self, rows: np.ndarray) -> Mapping[str, Sequence[Any]]:
        """Return the titles of some examples."""


_ENCODED = ("tokens", "token_count", "tag_indices")
"""What a lexicon makes of titles and tags."""


def _encoded(
    titles: pa.ChunkedArray, tags: pa.ChunkedArray, lexicon: Lexicon, length: int
) -> dict[str, pa.Array]:
    """Return the columns of `_ENCODED`."""
    width = pc.list_value_length(titles).to_numpy().astype(np.int64)  # (n,) of m each
    found = lexicon.of(Subwords).encode(pc.list_flatten(titles).to_pylist(), length)
    of_media = pc.list_flatten(tags).combine_chunks()  # (n·m,)
    columns, counts = lexicon.of(TagList).columns(of_media)
    per_media = nested(pa.array(columns, pa.int32()), counts, FEWER)
    return {
        "tokens": nested(pa.array(found.ids.reshape(-1)), width * length, FEWER),
        "token_count": nested(pa.array(found.count), width, FEWER),
        "tag_indices": nested(per_media, width, FEWER),
    }


def _counts(whole: pa.Table, table: pa.Table, split: str) -> dict[str, int]:
    chosen = whole["tag_indices"].filter(pc.equal(table["split"], split))
    lengths = pc.list_value_length(pc.list_flatten(chosen))
    return {
        "tags_given": pc.sum(lengths).as_py() or 0,
        "media_without_tags": pc.sum(pc.equal(lengths, 0)).as_py() or 0,
    }


def _flat(column: pa.ChunkedArray) -> np.ndarray:
    return np.asarray(pc.list_flatten(column).to_numpy())


def _padded(nested: pa.ChunkedArray) -> np.ndarray:
    """Return int64 (b·m, most), the inner lists padded on the right with -1."""
    lists = pc.list_flatten(nested)
    length = pc.list_value_length(lists).to_numpy().astype(np.int64)
    padded = np.full((len(length), int(length.max(initial=0))), -1, dtype=np.int64)
    padded[np.arange(padded.shape[1]) < length[:, None]] = pc.list_flatten(lists).to_numpy()
    return padded
