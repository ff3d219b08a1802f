"""Prepared folders: what `prepare` makes of a data set, and all that training reads of it.

    media.arrow     N media, those of a split together: `media.COLUMNS`, whether the file is present
    examples.arrow  n examples, those of a split together: the columns of their kind; `media` counts
                    from the first medium of the split
    vocabulary.json, answers.json, ...   the lexicon of the kind
    word_vectors.npy                     where the data section names a file of them
    prepare.json    counts, settings, notes; written last

The tables are mapped into memory, so a million examples cost a worker what it reads of them.
"""

import hashlib
import json
from copy import copy
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa

from msvqa.cache import fetch
from msvqa.data.examples import EXAMPLES
from msvqa.data.examples.examples import Examples
from msvqa.data.lexicon import Lexicon
from msvqa.data.media import COLUMNS, Media
from msvqa.data.root import open_root
from msvqa.data.split import Split
from msvqa.errors import DataError, IncompleteError, did_you_mean, one_of
from msvqa.recipe import DataConfig
from msvqa.sections import resolve
from msvqa.storage import absolute

PREPARED_FORMAT = 2
INFO = "prepare.json"
"""The file that makes a prepared folder whole."""
MEDIA, TABLE, WORD_VECTORS = "media.arrow", "examples.arrow", "word_vectors.npy"
MEDIA_COLUMNS = [*COLUMNS.names, "present"]
MAX_INFO_BYTES = 50_000_000


class Prepared:
    """A folder that `prepare` has completed: media, examples, word lists and counts."""

    def __init__(self, location: str, path: Path, info: dict[str, Any]) -> None:
        self.location = location
        self.path = path
        """Where its files are on this machine."""
        self.info = info
        """Content of prepare.json: counts of every split, settings, notes."""
        self.copies: list[list[str]] = []
        """Ids of videos that a store has found to be the same byte for byte."""
        self._other_words: Lexicon | None = None

    @classmethod
    def open(cls, location: str | Path) -> "Prepared":
        """Open a prepared folder.

        Raises:
            DataError: the folder is absent, incomplete or of another format.
        """
        location = absolute(location)
        try:
            path = fetch(location, INFO)
        except IncompleteError as error:
            raise DataError(f"{error}; run `msvqa prepare` first") from None
        file = path / INFO
        if file.stat().st_size > MAX_INFO_BYTES:
            raise DataError(f"{file} is larger than {MAX_INFO_BYTES} bytes")
        try:
            info = json.loads(file.read_text(encoding="utf-8"))
        except ValueError as error:
            raise DataError(f"{file} is damaged ({error}); run `msvqa prepare` again") from None
        found = info.get("format") if isinstance(info, dict) else None
        if found != PREPARED_FORMAT:
            raise DataError(
                f"{file}: format {found!r}, this version reads {PREPARED_FORMAT}; "
                "run `msvqa prepare` again"
            )
        splits = info.get("splits")
        if not isinstance(splits, dict) or not all(map(_counts_videos, splits.values())):
            # Conversations were once counted in the place of videos.
            raise DataError(f"{file} does not count the videos; run `msvqa prepare` again")
        return cls(location, path, info)

    def __repr__(self) -> str:
        return f"Prepared({self.location!r}, splits {', '.join(self.splits)})"

    def knowing(self, copies: list[list[str]]) -> "Prepared":
        """Return the same folder with what the store of its videos knows of their content."""
        prepared = copy(self)
        prepared.copies = copies
        return prepared

    def reading(self, lexicon: Lexicon, *, adds: bool = False) -> "Prepared":
        """Return the same folder, whose texts become numbers by another lexicon.

        Args:
            lexicon: that of a model.
            adds: whether lists that it lacks are taken from the folder, for parts of the model
                that begin with them.

        Raises:
            DataError: the lexicon lacks a list that its examples are read with.
        """
        if adds:
            lexicon = lexicon.with_lacking(self.lexicon)
        lacking = [name for name in self.lexicon.names if name not in lexicon.names]
        if lacking:
            raise DataError(
                f"{self.location}: its {self.kind.name} cannot be read with {lexicon}, the words "
                f"that the model was trained with: it has no {one_of(lacking)}"
            )
        if not self.lexicon.differing(lexicon):
            return self
        prepared = copy(self)
        prepared._other_words = prepared.lexicon = lexicon
        return prepared

    @property
    def same_videos(self) -> list[list[str]]:
        """Ids of videos that are one file, or as far as is known equal ones."""
        return [*self.info.get("same_file", []), *self.copies]

    @property
    def kind(self) -> type[Examples]:
        """The kind of its examples."""
        found: type[Examples] = resolve(self.info["examples"], EXAMPLES, "kind of example")
        return found

    @cached_property
    def lexicon(self) -> Lexicon:
        """The word lists that its texts became numbers by."""
        return Lexicon.load(self.path, [w for w in self.kind.lists if w.name in self.info])

    @property
    def root(self) -> str:
        """Data root that the paths of the manifest start at."""
        return str(self.info["root"])

    @property
    def splits(self) -> list[str]:
        """Names of the splits."""
        return list(self.info["splits"])

    def word_vectors(self) -> np.ndarray | None:
        """Return float32 (words, width) in vocabulary order, None where none were given."""
        file = self.path / WORD_VECTORS
        if self._other_words is not None or not file.is_file():
            return None
        return np.load(file, allow_pickle=False)

    def split(self, name: str, present_only: bool = True) -> Split:
        """Return the examples of a split; `present_only=False` keeps those of absent media.

        Raises:
            DataError: no such split.
        """
        if name not in self.splits:
            known = one_of(self.splits)
            raise DataError(
                f"no split {name!r}{did_you_mean(name, self.splits)}; there are {known}"
            )
        counts = self.info["splits"][name]
        media, examples = (
            _mapped(self.path / file).slice(first, length)
            for file, (first, length) in zip((MEDIA, TABLE), counts["rows"], strict=True)
        )
        split: Split = Split(
            name=name,
            media=Media(media, self.root),
            examples=self._examples(name, examples),
            expected=int(counts[self.kind.name]["expected"]),
        )
        if not present_only:
            return split
        return split.keeping(np.asarray(media["present"].to_numpy(), dtype=bool))

    def _examples(self, split: str, table: pa.Table) -> Examples:
        examples = self.kind(table)
        if self._other_words is None:
            return examples
        return examples.read_with(self._other_words, trains=split == "train")


def prepared_location(config: DataConfig) -> str:
    """Return the folder that a data set is prepared in."""
    if config.prepared is not None:
        return config.prepared
    named = config.model_dump(mode="json", include={*config.names_part}, exclude_defaults=True)
    part = json.dumps(named, sort_keys=True) if named else ""
    identity = hashlib.sha256(f"{open_root(config.root).location}{part}".encode()).hexdigest()[:8]
    return absolute(f"prepared/{config.name}-{identity}")


def write_table(table: pa.Table, path: Path) -> None:
    """Write a table so that it can be mapped into memory."""
    with pa.OSFile(str(path), "wb") as file, pa.ipc.new_file(file, table.schema) as writer:
        # In one piece: a column of one piece is read without a copy.
        writer.write_table(table.combine_chunks())


def _mapped(path: Path) -> pa.Table:
    with pa.memory_map(str(path)) as file:
        return pa.ipc.open_file(file).read_all()


def _counts_videos(split: Any) -> bool:
    return isinstance(split, dict) and isinstance(split.get("videos"), dict)
