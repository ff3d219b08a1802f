"""Where the weights of each part of a model came from, and which stage trained it last.

A checkpoint keeps this in checkpoint.json. Parts that a model declares `external` and that no stage
has trained are not in the checkpoint: their files are named there by hash, and are read again.
"""

from collections.abc import Collection, Iterable, Mapping
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Any, Literal

from msvqa.errors import CheckpointError
from msvqa.files import hash_file
from msvqa.models.model import Model
from msvqa.models.parts import parts_of_weights


@dataclass(frozen=True, kw_only=True)
class Origin:
    """The origin of one part."""

    source: Literal["chance", "files", "checkpoint"]
    """Where the stage that wrote the checkpoint took it from."""
    checkpoint: str | None = None
    """The checkpoint that it was taken from."""
    files: Mapping[str, str] = field(default_factory=dict)
    """SHA-256 of the weight files that it began as, by their paths."""
    trained_by: str | None = None
    """The stage that trained it last."""
    stored: bool = True
    """Whether its weights are in the checkpoint."""


Origins = Mapping[str, Origin]
"""Origins by part."""


def read_origins(info: Mapping[str, Any]) -> dict[str, Origin]:
    """Return the origins in the description of a checkpoint; older ones have none."""
    return {part: Origin(**fields) for part, fields in info.get("parts", {}).items()}


def plain_origins(origins: Origins) -> dict[str, Any]:
    """Return origins as plain data."""
    return {part: asdict(origin) for part, origin in origins.items()}


def born(model: Model) -> dict[str, Origin]:
    """Return the origins of a model that has no checkpoint to start from."""
    files = model.weight_files()
    return {
        part: Origin(
            source="files" if files.get(part) else "chance",
            files={path: hash_file(Path(path)) for path in files.get(part, ())},
        )
        for part in model.parts()
    }


def inherited(parts: Iterable[str], origins: Origins, checkpoint: str) -> dict[str, Origin]:
    """Return the origins of parts that are taken from a checkpoint, which may know of them."""
    taken: dict[str, Any] = {"source": "checkpoint", "checkpoint": checkpoint, "stored": True}
    return {
        part: replace(origins[part], **taken) if part in origins else Origin(**taken)
        for part in parts
    }


def trained(origins: Origins, parts: Collection[str], stage: str) -> dict[str, Origin]:
    """Return the origins after a stage has trained some of the parts."""
    return {
        part: replace(origin, trained_by=stage) if part in parts else origin
        for part, origin in origins.items()
    }


def with_stored(model: Model, origins: Origins) -> dict[str, Origin]:
    """Return the origins with what a checkpoint of the model leaves out."""
    return {
        part: replace(origin, stored=not _is_in_files(model, part, origin))
        for part, origin in origins.items()
    }


def names_not_stored(model: Model, origins: Origins) -> set[str]:
    """Return the names of the weights that a checkpoint of the model leaves out."""
    parts = {part for part, origin in with_stored(model, origins).items() if not origin.stored}
    if not parts:
        return set()
    part_of = parts_of_weights(model, model.parts())
    return {name for name, part in part_of.items() if part in parts}


def _is_in_files(model: Model, part: str, origin: Origin) -> bool:
    return part in model.external and bool(origin.files) and origin.trained_by is None


def load_external_parts(model: Model, origins: Origins, source: str) -> list[str]:
    """Load the parts that a checkpoint has left out from the user's files; return their names.

    Raises:
        CheckpointError: a file is absent or another one than the checkpoint was made with.
    """
    parts = [part for part in model.parts() if part in origins and not origins[part].stored]
    for part in parts:
        for path, digest in origins[part].files.items():
            if not Path(path).is_file():
                raise CheckpointError(
                    f"{source} was made with {path} as its part {part!r}, which is not there: put "
                    "the file back"
                )
            if hash_file(Path(path)) != digest:
                raise CheckpointError(
                    f"{source} was made with another {path} as its part {part!r} (SHA-256 "
                    f"{digest[:12]}...): put that file back"
                )
        model.load_external(part)
    return parts
