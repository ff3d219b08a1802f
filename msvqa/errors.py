"""Errors that a user can act on: each says what is wrong, where, and what to do."""

from collections.abc import Iterable, Sequence
from difflib import get_close_matches
from typing import Any


class MSVQAError(Exception):
    """Base of every error that the command line prints without a traceback."""

    def __reduce__(self) -> tuple[Any, ...]:
        # Errors come from other processes. The default would call the constructor with the message
        # alone, and a subclass may take other arguments.
        return _rebuilt, (type(self), self.args, self.__dict__)


def _rebuilt(
    kind: type[MSVQAError], arguments: tuple[Any, ...], state: dict[str, Any]
) -> MSVQAError:
    error = kind.__new__(kind, *arguments)
    error.__dict__.update(state)
    return error


class RecipeError(MSVQAError):
    """A recipe or an override that cannot be used; lists every problem found."""

    def __init__(self, problems: Sequence[str], source: str = "recipe") -> None:
        self.problems = list(problems)
        count = f"{len(self.problems)} problem{'s' if len(self.problems) != 1 else ''}"
        super().__init__("\n".join([f"{source}: {count}", *(f"  - {p}" for p in self.problems)]))


class DataError(MSVQAError):
    """Annotations, manifests or data folders that cannot be used."""


class VideoError(DataError):
    """A video that yields no frames or features; `outcome` says why in one word.

    Those of decoding are listed in `msvqa.data.readers.OUTCOMES`.
    """

    def __init__(self, outcome: str, message: str) -> None:
        self.outcome = outcome
        super().__init__(message)


class StoreError(DataError):
    """A clip or feature store that is incomplete or does not match the recipe."""


class WeightsError(MSVQAError):
    """A weights file whose names or shapes do not fit the model."""


class CheckpointError(MSVQAError):
    """A checkpoint that is damaged, incomplete or belongs to another model."""


class ClusterError(MSVQAError):
    """Resources that were asked for and do not exist."""


class StorageError(MSVQAError):
    """A folder that cannot be read or written now."""


class OutOfMemoryError(MSVQAError):
    """More memory was asked for than a machine or a GPU has."""


class PackageError(MSVQAError):
    """A module that cannot be imported, or an object that cannot be sent to another process."""


class ServerError(MSVQAError):
    """A server that a model is asked through, and that does not answer as it should."""


class CacheError(MSVQAError):
    """A machine that may not keep as much as has to be fetched from an object store."""


class IncompleteError(StorageError):
    """A folder that is absent, or not whole because it has no marker."""


class RunError(MSVQAError):
    """A run directory that cannot be used for what was asked."""


class NonFiniteLossError(MSVQAError):
    """The loss became infinite or not a number."""


class StoppedError(MSVQAError):
    """A run that was asked to stop has written a checkpoint and ended."""

    signal_number: int | None = None
    """The signal that asked, where it was one."""


def is_lasting(error: MSVQAError) -> bool:
    """Whether the same would happen again: only storage and machines may come back."""
    return not isinstance(error, (StorageError, ClusterError, CacheError))


def did_you_mean(word: str, options: Iterable[str]) -> str:
    """Return `" (did you mean 'x'?)"` for the nearest option, or an empty string."""
    nearest = get_close_matches(word, list(options), n=1, cutoff=0.6)
    return f" (did you mean {nearest[0]!r}?)" if nearest else ""


def one_of(options: Iterable[str]) -> str:
    """Return the options as a readable list for a message."""
    return ", ".join(sorted(options))
