"""A folder of captions with files that are there and hold nothing."""

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any


def write_captions(
    root: Path, rows: Mapping[str, Sequence[Mapping[str, Any]]], *, absent: Sequence[str] = ()
) -> Path:
    """Write `train.json` and the like, and an empty file for every medium but the absent ones."""
    root.mkdir(parents=True, exist_ok=True)
    for split, of_split in rows.items():
        (root / split).parent.mkdir(parents=True, exist_ok=True)
        (root / f"{split}.json").write_text(json.dumps(of_split), encoding="utf-8")
        for row in of_split:
            name = row.get("video", row.get("image"))
            if isinstance(name, str) and name not in absent and not name.startswith(("/", "..")):
                (root / name).parent.mkdir(parents=True, exist_ok=True)
                (root / name).touch()
    return root
