"""A store that may be there already: is it the one that a recipe wants, and is it whole."""

from pathlib import Path

from msvqa.data.store import INDEX, Store, StoreSpec
from msvqa.errors import DataError, StoreError
from msvqa.storage import open_folder

NAMES_SHOWN = 20


def find_store(location: str | Path, spec: StoreSpec) -> Store | None:
    """Open a store that was made as `spec` says; None where there is none yet.

    Raises:
        StoreError: damaged, or made in another way.
    """
    folder = open_folder(location)
    if not folder.get(INDEX).is_file():
        return None
    try:
        return Store.open(folder.location, spec)
    except StoreError:
        # Another process may be about to write it anew.
        if folder.get(INDEX).is_file():
            raise
    return None


def refuse_rejected(store: Store) -> None:
    """Refuse a store that lacks videos because they yield nothing.

    Raises:
        DataError: names them, and says what to do.
    """
    if not store.rejected:
        return
    lines = [f"  {video}: {what}: {error}" for video, (what, error) in store.rejected.items()]
    kind = {"clips": "frames"}.get(store.spec.kind, store.spec.kind)
    more = [f"  and {len(lines) - NAMES_SHOWN} more"] if len(lines) > NAMES_SHOWN else []
    raise DataError(
        "\n".join(
            [
                f"{len(lines)} of {len(lines) + len(store)} videos yield no {kind}:",
                *lines[:NAMES_SHOWN],
                *more,
                f"the other videos are in {store.location}; replace these files and extract again, "
                "or go on without them: data.allow_missing=true",
            ]
        )
    )
