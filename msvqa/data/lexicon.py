"""The lexicon: the word lists that texts become numbers by, each under its name.

It is made from the training examples, and every checkpoint keeps it: a model can only be asked in
the words that it was trained with.
"""

from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import TypeVar, cast

from msvqa.data.text import WordList

Listed = TypeVar("Listed", bound=WordList)


class Lexicon:
    """Word lists by name; which ones there are is a matter of the kind of example."""

    def __init__(self, lists: Iterable[WordList] = ()) -> None:
        self._lists = {words.name: words for words in lists}

    def __repr__(self) -> str:
        return f"Lexicon({', '.join(f'{name}: {len(words)}' for name, words in self.items())})"

    def items(self) -> list[tuple[str, WordList]]:
        """Return names with word lists."""
        return list(self._lists.items())

    def of(self, kind: type[Listed]) -> Listed:
        """Return the word list of a class.

        Raises:
            KeyError: examples of this kind have none.
        """
        return cast(Listed, self._lists[kind.name])

    @property
    def names(self) -> list[str]:
        """Names of the lists that there are."""
        return [*self._lists]

    def sizes(self) -> dict[str, int]:
        """Return how long the lists are, and what else the layers of a model must know of them."""
        return {size: n for words in self._lists.values() for size, n in words.sizes().items()}

    def with_lacking(self, other: "Lexicon") -> "Lexicon":
        """Return these lists, and those of another lexicon that are not among them."""
        return Lexicon((other._lists | self._lists).values())

    def differing(self, other: "Lexicon") -> list[str]:
        """Return the names of the lists that are not the same in both."""
        names = dict.fromkeys([*self._lists, *other._lists])
        return [name for name in names if self._lists.get(name) != other._lists.get(name)]

    def save(self, folder: Path) -> None:
        """Write every list into a file named after it."""
        for name, words in self._lists.items():
            words.save(folder / file_of(name))

    @classmethod
    def load(cls, folder: Path, kinds: Sequence[type[WordList]]) -> "Lexicon":
        """Read what `save` wrote.

        Raises:
            DataError: a file is absent or damaged.
        """
        return cls([kind.load(folder / file_of(kind.name)) for kind in kinds])


def file_of(name: str) -> str:
    """Return the name of a word list's file."""
    return f"{name}.json"
