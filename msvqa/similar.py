"""Similar: the videos that are nearest to one, in a folder or in the data of an evaluation.

Legend: N videos, E width of an embedding.
"""

import hashlib
import json
import logging
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from itertools import islice
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from msvqa.data.medium import Medium
from msvqa.embedder import Embedder, open_embedder, readable
from msvqa.errors import DataError, RunError, VideoError, did_you_mean
from msvqa.files import written_aside
from msvqa.merge import KEPT, Embedded, Wanted, embedded, embedding_table
from msvqa.nearest import nearest

logger = logging.getLogger(__name__)

AT_ONCE = 16
"""Files that are embedded together."""


@dataclass(frozen=True, kw_only=True)
class Sought:
    """Where the nearest are looked for, and how many."""

    folder: str | Path | None = None
    """With the `embeddings.parquet` of `msvqa merge`, or with files that the processor reads."""
    on: str | None = None
    """Evaluation of the recipe whose videos are meant; one of `folder` and `on` is given."""
    split: str | None = None
    """Of the evaluation; None: the one that it names."""
    title: str | None = None
    top: int = 10


@dataclass(frozen=True)
class Similar:
    """The nearest videos, the nearest first."""

    ids: Sequence[str]
    cosines: Sequence[float]
    searched: int
    """Videos that were compared, without the one that was asked about."""
    bad: Mapping[str, str]
    """Files that could not be embedded, and why."""


@dataclass(frozen=True)
class Library:
    """N videos to search."""

    place: str
    ids: Sequence[str]
    vectors: np.ndarray
    """(N, E)"""
    bad: Mapping[str, str]


def similar(run: str | Path, video: str, sought: Sought) -> Similar:
    """Return the videos whose embeddings have the largest cosines with that of one.

    Args:
        run: location of a run whose last stage embeds titled videos.
        video: id of one of the videos that are searched, and then it is not among the found; or a
            file; or an id of the data.
        sought: where, and how many.

    Raises:
        RunError: the run does not embed videos; not one of folder and evaluation is given.
        DataError: no such video; no embeddings, or ones of another width or model.
        PackageError: there are too many for matrix products, and faiss is not installed.
    """
    if (sought.folder is None) == (sought.on is None):
        raise RunError("say where to look: --in FOLDER or --on NAME, and not both")
    embedder = open_embedder(run, on=sought.on)
    library = _library(embedder, sought)
    ids, vectors, query = library.ids, library.vectors, _query(embedder, library, video, sought)
    own = ids.index(video) if video in ids else None
    rows, found = nearest(vectors, query, sought.top + (own is not None))
    kept = [pair for pair in zip(rows.tolist(), found.tolist(), strict=True) if pair[0] != own]
    kept = kept[: sought.top]
    return Similar(
        [ids[row] for row, _ in kept],
        [cosine for _, cosine in kept],
        len(ids) - (own is not None),
        library.bad,
    )


def read_embeddings(file: Path) -> tuple[Embedded, dict[str, str]]:
    """Return embeddings (N, E) of a table with `id` and `embedding`, and what it says of itself.

    Raises:
        DataError: it is no such table, holds an id twice, or numbers that are not finite.
    """
    try:
        table = pq.read_table(file, columns=["id", "embedding"])
        column = table["embedding"].combine_chunks()
        vectors = column.flatten().to_numpy().reshape(len(table), column.type.list_size)
        ids = table["id"].cast(pa.string()).to_pylist()
    except (OSError, pa.ArrowException, AttributeError, ValueError) as error:
        raise DataError(
            f"{file} is no table of embeddings, with `id` and `embedding`: {error}"
        ) from error
    if len(set(ids)) < len(ids):
        raise DataError(f"{file}: {len(ids) - len(set(ids))} ids stand there more than once")
    bad = [ids[row] for row in np.flatnonzero(~np.isfinite(vectors).all(axis=1))]
    if bad:
        raise DataError(f"{file}: {len(bad)} embeddings are not finite, the first of {bad[0]!r}")
    said = {key.decode(): value.decode() for key, value in (table.schema.metadata or {}).items()}
    return Embedded(ids, vectors), said


def _library(embedder: Embedder, sought: Sought) -> Library:
    run = embedder.run
    if sought.folder is None:
        found = embedded(run, Wanted(on=sought.on, split=sought.split))
        return Library(f"evaluation {sought.on!r}", found.ids, found.vectors, {})
    folder = Path(sought.folder)
    if not folder.is_dir():
        raise DataError(f"{folder}: there is no such folder")
    if (folder / KEPT).is_file():
        return _of_table(embedder, folder / KEPT)
    return _of_files(embedder, folder)


def _query(embedder: Embedder, library: Library, video: str, sought: Sought) -> np.ndarray:
    if video in library.ids:
        vector: np.ndarray = library.vectors[library.ids.index(video)]
        return vector
    if Path(video).name == video and not Path(video).is_file() and sought.folder is not None:
        raise DataError(
            f"{video!r} is no file, and no video of {library.place}"
            f"{did_you_mean(video, library.ids)}"
        )
    vector = embedder.embed(video, sought.title)
    if library.vectors.shape[1:] != vector.shape:
        raise DataError(
            f"{library.place} has embeddings of {library.vectors.shape[1]} numbers, and those of "
            f"{embedder.run.location} have {len(vector)}: they are of another model"
        )
    return vector


def _of_table(embedder: Embedder, file: Path) -> Library:
    found, said = read_embeddings(file)
    run, checkpoint = embedder.run, _checkpoint_of(embedder)
    if said.get("checkpoint", checkpoint) != checkpoint:
        raise DataError(
            f"{file} is of the checkpoint {said['checkpoint']}, and {run.location} uses "
            f"{checkpoint}: embed the videos again"
        )
    if "checkpoint" not in said or run.path.resolve() not in file.resolve().parents:
        logger.warning(
            "%s does not say which model it is of: cosines with embeddings of %s mean something "
            "only if it is this one", file, run.location,
        )  # fmt: skip
    return Library(str(file), found.ids, found.vectors, {})


def _of_files(embedder: Embedder, folder: Path) -> Library:
    """Return the embeddings of all files of a folder, those that have changed made anew."""
    run = embedder.run
    made_of = json.dumps(
        [str(folder.resolve()), embedder.loaded.location, repr(embedder.processor)]
    )
    name = f"similar-{hashlib.sha256(made_of.encode()).hexdigest()[:12]}"
    kept = run.folder.get(f"evaluate/{name}/{KEPT}")
    bad: dict[str, str] = {}
    facts = {key: _facts(path) for key, path in _files(folder, bad)}
    known = _known(kept)
    same = {key: known[key][1] for key in facts if key in known and known[key][0] == facts[key]}
    new = [key for key in facts if key not in same]
    if new:
        logger.info("%s: %d of %d files are to be embedded", folder, len(new), len(facts))
        logger.warning("%s: its files have no titles, so they are embedded with empty ones", folder)
    for key, found in _embedded_files(embedder, folder, new):
        if isinstance(found, VideoError):
            bad[key] = str(found)
        else:
            same[key] = found
    if not same:
        raise DataError(
            f"{folder}: none of its {len(bad)} files can be embedded"
            + "".join(f"\n  {key}: {why}" for key, why in islice(bad.items(), 8))
        )
    ids = sorted(same)
    vectors = np.stack([same[key] for key in ids])
    if new or len(known) != len(ids):
        _keep(embedder, kept, Embedded(ids, vectors), [facts[key] for key in ids])
    return Library(str(folder), ids, vectors, bad)


def _files(folder: Path, bad: dict[str, str]) -> Iterator[tuple[str, Path]]:
    """Yield files with their names below a folder; those that lead out of it are bad."""
    inside = folder.resolve()
    for path in sorted(folder.rglob("*")):
        key = path.relative_to(folder).as_posix()
        if any(part.startswith(".") for part in key.split("/")) or not path.is_file():
            continue
        if inside not in path.resolve().parents:
            bad[key] = f"{path} leaves the folder by a link"
            continue
        yield key, path


def _facts(path: Path) -> str:
    """Return what changes with the content of a file."""
    status = path.stat()
    return f"{status.st_size} {status.st_mtime_ns}"


def _embedded_files(
    embedder: Embedder, folder: Path, names: Sequence[str]
) -> Iterator[tuple[str, Any]]:
    """Yield the embedding (E,) of each file, or why there is none."""
    media = (replace(Medium.of_file(folder / name), id=name) for name in names)
    reading = readable(embedder.processor, media)
    while some := list(islice(reading, AT_ONCE)):
        good = [(medium.id, found) for medium, found in some if not isinstance(found, VideoError)]
        yield from ((m.id, found) for m, found in some if isinstance(found, VideoError))
        if good:
            arrays = [found for _, found in good]
            vectors = embedder.embed_arrays(arrays, [""] * len(good))
            yield from zip((name for name, _ in good), vectors, strict=True)


def _known(file: Path) -> dict[str, tuple[str, np.ndarray]]:
    """Return facts and embedding of each file that was embedded before."""
    if not file.is_file():
        return {}
    try:
        found, _ = read_embeddings(file)
        facts = pq.read_table(file, columns=["facts"])["facts"].to_pylist()
    except (DataError, OSError, pa.ArrowException) as error:
        logger.warning("%s cannot be used (%s): it is made again", file, error)
        return {}
    return dict(zip(found.ids, zip(facts, found.vectors, strict=True), strict=True))


def _checkpoint_of(embedder: Embedder) -> str:
    """Return which checkpoint of its run embeds; training may have gone on to another since."""
    return "/".join(embedder.loaded.location.rstrip("/").rsplit("/", 2)[-2:])


def _keep(embedder: Embedder, file: Path, found: Embedded, facts: Sequence[str]) -> None:
    said = {"checkpoint": _checkpoint_of(embedder)}
    table = embedding_table(found.ids, found.vectors)
    table = table.append_column("facts", pa.array(facts, pa.string()))
    with written_aside(file) as aside:
        pq.write_table(table.replace_schema_metadata(said), aside)
    embedder.run.folder.put(f"evaluate/{file.parent.name}", last=KEPT)
