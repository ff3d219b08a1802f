"""What every kind of example has in common: rows about media that become tensors.

Legend: n examples, m media per example.
"""

from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from typing import TYPE_CHECKING, Any, ClassVar, Literal, TypeVar

import numpy as np
import pyarrow as pa

from msvqa.data.chance import Chance
from msvqa.data.lexicon import Lexicon
from msvqa.data.text import WordList
from msvqa.errors import DataError
from msvqa.recipe import DataConfig

if TYPE_CHECKING:
    from msvqa.data.annotated import Annotated
    from msvqa.data.batch import Batch

Kind = TypeVar("Kind", bound="Examples")

NO_MEDIUM = -1
"""In place of a row of the media, where an example has no such medium."""


@dataclass(frozen=True, kw_only=True)
class Fitted:
    """What a kind of example makes of annotations."""

    table: pa.Table
    """All examples, in the order of the annotations, with the columns of the kind."""
    lexicon: Lexicon = field(default_factory=Lexicon)
    counts: Mapping[str, Mapping[str, int]] = field(default_factory=dict)
    """What is worth knowing of each split, by name."""
    facts: Mapping[str, Any] = field(default_factory=dict)
    cautions: Sequence[str] = ()
    """What people should know before they train."""


class Examples(ABC):
    """n examples of one kind, as rows of an Arrow table that may be mapped into memory.

    The column `media` names rows of the split's media; the other columns are a matter of the kind.
    """

    name: ClassVar[str]
    """The kind, as the table `EXAMPLES` lists it; a plural noun."""
    columns: ClassVar[pa.Schema]
    """Columns besides `media`."""
    media_per_example: ClassVar[int] = 1
    lists: ClassVar[tuple[type[WordList], ...]] = ()
    """Word lists of the lexicon that the texts are read with."""
    said_of_media: ClassVar[tuple[str, ...]] = ()
    """Which of the tensors are about the media alone, see `of_media`."""
    planned: ClassVar[Literal["by_medium", "plainly"]] = "plainly"
    """How an epoch is ordered: examples of one medium together, or a permutation of all."""
    has_lengths: ClassVar[bool] = False
    """Whether their texts have lengths that batches may be made by, see `lengths`."""

    def __init__(self, table: pa.Table) -> None:
        self.table = table

    def __len__(self) -> int:
        return int(self.table.num_rows)

    def __repr__(self) -> str:
        return f"{type(self).__name__}({len(self)})"

    @classmethod
    def schema(cls) -> pa.Schema:
        """Return all columns of the table."""
        return pa.schema([("media", pa.list_(pa.int64(), cls.media_per_example)), *cls.columns])

    @cached_property
    def media(self) -> np.ndarray:
        """(n, m) int64, rows of the split's media; -1 for none."""
        flat = _combined(self.table["media"]).flatten().to_numpy()
        return np.asarray(flat).reshape(-1, self.media_per_example)

    def stream_of(self, is_image: np.ndarray) -> np.ndarray:
        """Return (n,) which examples make batches of their own where streams are kept apart.

        Here those about an image are one stream, and all others one.

        Args:
            is_image: (N,) of the split's media.
        """
        first = self.media[:, 0]
        return np.append(is_image, False)[first].astype(np.int8)

    @property
    def lengths(self) -> np.ndarray:
        """(n,) float64, how long the texts of each are, in any unit; where the kind has any."""
        raise ValueError(f"{self.name} have no lengths")

    @property
    def medium(self) -> np.ndarray:
        """(n,) int64, row of the only medium of each example."""
        if self.media_per_example != 1:
            raise ValueError(f"each of the {self.name} has {self.media_per_example} media")
        return self.media[:, 0]

    @cached_property
    def asked_by_medium(self) -> bool:
        """Whether each is about exactly one medium: then all of a medium are asked together."""
        return self.media_per_example == 1 and not (self.media == NO_MEDIUM).any()

    def take(self: Kind, rows: np.ndarray) -> Kind:
        """Return some of the examples."""
        return type(self)(self.table.take(pa.array(rows, type=pa.int64())))

    def about(self: Kind, media: np.ndarray) -> Kind:
        """Return the same examples about other rows (n, m) of media."""
        flat = pa.array(media.reshape(-1), type=pa.int64())
        column = pa.FixedSizeListArray.from_arrays(flat, self.media_per_example)
        return type(self)(self.table.set_column(0, "media", column))

    @classmethod
    def joined(cls: type[Kind], parts: Sequence[Kind]) -> Kind:
        """Return the examples of several tables, one after another."""
        return cls(pa.concat_tables([part.table for part in parts]))

    @classmethod
    @abstractmethod
    def fit(cls, annotated: "Annotated", config: DataConfig) -> Fitted:
        """Return examples and lexicon of annotations; words are learned from the training split."""

    def read_with(self: Kind, lexicon: Lexicon, *, trains: bool) -> Kind:
        """Return the same examples, with the numbers that another lexicon gives to their texts.

        Args:
            lexicon: word lists of the same names.
            trains: whether these are the training examples of the annotations.
        """
        if self.lists:
            raise NotImplementedError(f"{type(self).__name__} cannot be read with other words")
        return self

    @classmethod
    @abstractmethod
    def cautions(cls, annotated: "Annotated") -> list[str]:
        """Return what people should know of annotations that can be used, before they train."""

    @abstractmethod
    def tensors(self, rows: np.ndarray, chance: Chance | None = None) -> "Batch":
        """Return tensors of some examples, first axis the rows.

        Args:
            rows: (b,) which examples.
            chance: random numbers of a training epoch; None: nothing is random.
        """

    def of_media(self, media: np.ndarray) -> "Batch":
        """Return tensors of what examples say of some media alone, such as their titles.

        A model that is asked about media gets them beside the media's arrays; nothing is random. Of
        a medium that no example names there is nothing but zeros.

        Args:
            media: (V,) rows of the split's media.
        """
        import torch  # which extraction does without

        if not self.said_of_media or not len(self):
            return {}
        first = self._first_of(media)  # (V,), places in the flattened (n, m)
        named = torch.from_numpy(first >= 0)
        row, side = np.divmod(first.clip(min=0), self.media_per_example)
        said = self.tensors(row)
        found: Batch = {}
        for key in self.said_of_media:
            rows = said[key]  # (V, ...) or (V, m, ...)
            if self.media_per_example > 1:
                rows = rows[torch.arange(len(rows)), torch.from_numpy(side)]
            found[key] = rows * named.view(-1, *(1,) * (rows.ndim - 1))
        return found

    def _first_of(self, media: np.ndarray) -> np.ndarray:
        """Return where in the flattened media of all examples each is named first; -1: nowhere."""
        names, places = self._first_places
        found = np.searchsorted(names, media).clip(max=len(names) - 1)
        return np.where(names[found] == media, places[found], -1)

    @cached_property
    def _first_places(self) -> tuple[np.ndarray, np.ndarray]:
        names, places = np.unique(self.media, return_index=True)
        return names, places

    @abstractmethod
    def shown(self, rows: np.ndarray) -> Mapping[str, Sequence[Any]]:
        """Return readable columns of some examples, for tables of predictions."""


def nested(values: pa.Array, lengths: np.ndarray, advice: str) -> pa.ListArray:
    """Return lists of neighbouring values, as many in each as `lengths` says.

    Args:
        values: what the lists hold, one list after another.
        lengths: (n,) of the lists.
        advice: what makes fewer values, for the message.

    Raises:
        DataError: there are more values than an Arrow table of lists counts.
    """
    offsets = np.concatenate([[0], np.cumsum(lengths)])
    if offsets[-1] >= 2**31:
        raise DataError(f"{offsets[-1]} ids do not fit into one table; {advice}")
    return pa.ListArray.from_arrays(pa.array(offsets.astype(np.int32)), values)


def _combined(column: pa.ChunkedArray) -> pa.Array:
    return column.chunk(0) if column.num_chunks == 1 else column.combine_chunks()
