"""What a folder holds, by the hashes of its files."""

import hashlib
from pathlib import Path

TOOK = "speed.json"


def content(folder: Path) -> dict[str, str]:
    """Return the hash of every file of a folder by its name.

    What is hidden is left out: locks, and shards that workers have begun whose driver was killed;
    and how long it took, on which nothing depends.
    """
    names = {file.relative_to(folder): file for file in sorted(folder.rglob("*"))}
    return {
        str(name): hashlib.sha256(file.read_bytes()).hexdigest()
        for name, file in names.items()
        if file.is_file()
        and file.name != TOOK
        and not any(part.startswith(".") for part in name.parts)
    }
