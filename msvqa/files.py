"""Files on a disk: written whole or not at all, and known by their hashes."""

import hashlib
import json
import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import IO, Any


def hash_file(path: Path) -> str:
    """Return the SHA-256 of a file's bytes."""
    with path.open("rb") as file:
        digest = hashlib.sha256()
        while block := file.read(1 << 20):
            digest.update(block)
    return digest.hexdigest()


@contextmanager
def written_aside(path: Path) -> Iterator[Path]:
    """Give a temporary path beside `path`; rename it to `path` only when the block ends well."""
    path.parent.mkdir(parents=True, exist_ok=True)
    aside = path.with_name(f".{path.name}.{os.getpid()}.tmp")
    try:
        yield aside
        aside.replace(path)
    finally:
        aside.unlink(missing_ok=True)


def write_json(path: Path, content: Any) -> None:
    """Write JSON so that no reader ever sees half a file, not even after a power cut."""
    with written_aside(path) as aside, aside.open("w", encoding="utf-8") as file:
        file.write(json.dumps(content, indent=2) + "\n")
        flush(file)


def flush(file: IO[Any]) -> None:
    """Bring what was written to an open file onto the disk."""
    file.flush()
    os.fsync(file.fileno())
