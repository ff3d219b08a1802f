"""A split: media, and examples about them."""

from collections.abc import Collection, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from typing import TypeVar

import numpy as np

from msvqa.data.examples.examples import NO_MEDIUM, Examples
from msvqa.data.media import Media
from msvqa.errors import DataError

Kind = TypeVar("Kind", bound=Examples)


@dataclass(frozen=True, eq=False)
class Split:
    """The examples of one split, n of them, about its N media."""

    name: str
    media: Media
    examples: Examples
    expected: int
    """Examples that the annotations hold for this split, with those of absent media"""

    def __len__(self) -> int:
        return len(self.examples)

    def __repr__(self) -> str:
        counts = f"{len(self)} of {self.expected} {self.examples.name}, {len(self.media)} media"
        return f"Split({self.name!r}: {counts})"

    @cached_property
    def stream(self) -> np.ndarray:
        """(n,) which examples make batches of their own where the recipe keeps streams apart."""
        return self.examples.stream_of(self.media.is_image)

    def of(self, kind: type[Kind]) -> Kind:
        """Return the examples, which must be of a kind.

        Raises:
            DataError: they are others.
        """
        if not isinstance(self.examples, kind):
            raise DataError(f"{kind.name} are needed, and the data has {self.examples.name}")
        return self.examples

    def without(self, media_ids: Collection[str]) -> "Split":
        """Return the split without some media and their examples; `expected` stays."""
        return self.keeping(~self.media.is_in(media_ids))

    def keeping(self, kept: np.ndarray) -> "Split":
        """Return the split with the media that a mask (N,) keeps, and the examples about them."""
        if kept.all():
            return self
        media = self.examples.media
        whole = (kept[media] | (media == NO_MEDIUM)).all(axis=1)
        new_row = np.where(media == NO_MEDIUM, NO_MEDIUM, (np.cumsum(kept) - 1)[media])
        examples = self.examples.take(np.flatnonzero(whole))
        return replace(
            self,
            media=self.media.take(np.flatnonzero(kept)),
            examples=examples.about(new_row[whole]),
        )

    def taking(self, rows: np.ndarray) -> "Split":
        """Return the split with some of its examples; the media stay."""
        return replace(self, examples=self.examples.take(rows), expected=len(rows))

    def crossed(self, media: np.ndarray, rows: np.ndarray) -> "Split":
        """Return chosen pairs of a medium and what an example says, for one medium per example.

        Args:
            media: (p,) rows of the media.
            rows: (p,) rows of the examples.
        """
        examples = self.examples.take(rows).about(media[:, None])
        return replace(self, examples=examples, expected=len(rows))

    @classmethod
    def joined(cls, name: str, parts: Sequence["Split"]) -> "Split":
        """Return the media and examples of several splits, one after another."""
        starts = np.cumsum([0, *(len(part.media) for part in parts)])
        examples = [
            part.examples.about(
                np.where(part.examples.media == NO_MEDIUM, NO_MEDIUM, part.examples.media + start)
            )
            for part, start in zip(parts, starts[:-1], strict=True)
        ]
        return cls(
            name=name,
            media=Media.joined([part.media for part in parts]),
            examples=type(examples[0]).joined(examples),
            expected=sum(part.expected for part in parts),
        )
