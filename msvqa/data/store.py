"""Stores of arrays of media: written once in parallel, then read one medium at a time.

A store is a folder. Every shard holds a fixed number of videos as memory-mapped .npy arrays beside
`shard.json`, which says what made them; `store.json`, the index, is written last and means that the
store is complete. Everything is written aside and then renamed, so what has its name is whole.

    clips-8x16-100px/
      store.json
      speed.json        how fast it was extracted; nothing depends on it
      shards/00000/clips.npy  shards/00000/shard.json
      shards/00001/...

Arrays were chosen over HDF5 by measurement (benchmarks/store.py): a video is a view that costs a
microsecond and no copy, and any process writes its shards without a lock.
"""

import hashlib
import json
import shutil
import tempfile
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import asdict, dataclass, field, replace
from functools import cached_property
from pathlib import Path, PurePosixPath
from typing import Any, BinaryIO

import numpy as np

from msvqa.cache import fetch
from msvqa.data.finite import not_finite, to_type
from msvqa.errors import IncompleteError, StorageError, StoreError
from msvqa.files import put_in_place, read_json, sync, write_json
from msvqa.storage import Folder, absolute, is_remote, join, open_folder

STORE_FORMAT = 1
INDEX, SHARD = "store.json", "shard.json"
"""The files that make a store and a shard whole."""
SHARD_BYTES = 128 * 1024**2
SHARD_VIDEOS = {"clips": 16, "features": 16, "frame_features": 64, "vectors": 16_384}
SHARD_MEDIA = 256
"""A shard ends at the limit of bytes or of videos, for each kind of store. Small shards lose little
when a job is stopped, and keep many processes busy to the end; large ones save files."""
WRITTEN_BYTES = 256 * 1024
"""Of small rows so many are written at once."""
SHARDS_STAY = "What is done stays: make room or bring the storage back; the same command goes on"

USUAL_PRECISION, UNSETTLED = "float32", "auto"
"""Number format of encoders where a store names none, and the word for one that the first
extraction into a store chooses."""

Arrays = dict[str, np.ndarray]


@dataclass(frozen=True, kw_only=True)
class ArraySpec:
    """One array per video."""

    shape: tuple[int, ...]
    dtype: str

    @property
    def nbytes(self) -> int:
        """Bytes of one video."""
        return int(np.prod(self.shape)) * np.dtype(self.dtype).itemsize


@dataclass(frozen=True, kw_only=True)
class StoreSpec:
    """Everything that the content of a store depends on, apart from the videos."""

    kind: str
    """Name of the processor"""
    arrays: dict[str, ArraySpec]
    num_clips: int = 0
    frames_per_clip: int = 0
    size_px: dict[str, int] = field(default_factory=dict)
    """Height and width of the frames behind every array"""
    decoder: str = ""
    encoders: dict[str, Any] = field(default_factory=dict)
    """What made the features: configuration and identity of the weights of every encoder"""
    settings: dict[str, Any] = field(default_factory=dict)
    """What else the arrays depend on; nothing for clips and features"""

    @property
    def videos_per_shard(self) -> int:
        """Videos of a shard; depends on nothing but the spec, so shards are always the same."""
        per_video = sum(array.nbytes for array in self.arrays.values())
        most = SHARD_VIDEOS.get(self.kind, SHARD_MEDIA)
        return max(1, min(most, SHARD_BYTES // max(per_video, 1)))

    @property
    def is_always_finite(self) -> bool:
        """Whether the arrays cannot hold what is not finite."""
        return all(np.dtype(array.dtype).kind in "iu" for array in self.arrays.values())

    @property
    def precisions(self) -> dict[str, str]:
        """The number format of every encoder, by its part."""
        return {
            part: made.get("precision", USUAL_PRECISION) for part, made in self.encoders.items()
        }

    @property
    def is_settled(self) -> bool:
        """Whether all number formats are chosen."""
        return UNSETTLED not in self.precisions.values()

    def settled(self, precisions: Mapping[str, str]) -> "StoreSpec":
        """Return the spec with chosen number formats, by part, where it leaves them open."""
        encoders = {
            part: with_precision(made, precisions.get(part, USUAL_PRECISION))
            if made.get("precision") == UNSETTLED
            else made
            for part, made in self.encoders.items()
        }
        return replace(self, encoders=encoders)

    @property
    def digest(self) -> str:
        """Eight letters for what the store depends on, whatever number formats are chosen."""
        identity = json.dumps(self.settled({}).to_dict(), sort_keys=True)
        return hashlib.sha256(identity.encode()).hexdigest()[:8]

    def to_dict(self) -> dict[str, Any]:
        """Return plain data; `from_dict` reads it back."""
        data: dict[str, Any] = json.loads(json.dumps(asdict(self)))
        if not self.settings:
            # Stores of earlier versions have no such entry.
            del data["settings"]
        return data

    @classmethod
    def from_dict(cls, data: Mapping[str, Any]) -> "StoreSpec":
        """Read what `to_dict` wrote."""
        arrays = {
            name: ArraySpec(shape=tuple(array["shape"]), dtype=array["dtype"])
            for name, array in data["arrays"].items()
        }
        return cls(**{**data, "arrays": arrays})


@dataclass(frozen=True, kw_only=True)
class Entry:
    """One video on its way into a shard: its arrays, or why there are none."""

    video_id: str
    outcome: str
    error: str = ""
    facts: dict[str, Any] = field(default_factory=dict)
    """Size and hash of the source file, counts of the decoder"""
    arrays: Arrays | None = None


class Store:
    """A complete store, opened for reading. Cheap to send to others: only the location goes.

    Shards are opened in each process when a video of theirs is first read.
    """

    def __init__(self, location: str, path: Path, index: Mapping[str, Any]) -> None:
        self.location, self.path = location, path
        self.spec = StoreSpec.from_dict(index["spec"])
        self.made_with: dict[str, str] = index["made_with"]
        self.rejected: dict[str, tuple[str, str]] = {
            video: (outcome, error) for video, (outcome, error) in index["rejected"].items()
        }
        """Outcome and error of every video that has no arrays"""
        self._place = {
            video: (shard, row)
            for shard, videos in enumerate(index["shards"])
            for row, video in enumerate(videos)
        }
        self.is_finite = bool(index.get("finite")) or self.spec.is_always_finite
        """Whether all numbers were seen to be finite; earlier versions did not look."""
        self._shards: list[list[str]] = index["shards"]
        self._copies: list[list[str]] | None = index.get("copies")
        self._opened: dict[int, Arrays] = {}
        self._seen: set[str] = set()

    @classmethod
    def open(cls, location: str | Path, spec: StoreSpec | None = None) -> "Store":
        """Open a store; with `spec`, only one that was made as it says.

        Shards of a store in an object store are fetched when a video of theirs is first read.

        Raises:
            StoreError: absent, incomplete, damaged, or made in another way.
        """
        location = absolute(location)
        try:
            path = fetch(location, INDEX, marker_alone=True)
        except IncompleteError as error:
            raise StoreError(f"store {error}; run `msvqa extract` with its recipe") from None
        index = read_json(path / INDEX)
        if index is None or index.get("format") != STORE_FORMAT:
            file = join(location, INDEX)
            raise StoreError(f"{file} is damaged or of another version; remove it, extract again")
        store = cls(location, path, index)
        if spec is not None:
            store.check(spec)
        return store

    def check(self, spec: StoreSpec) -> None:
        """Refuse a store that was not made as `spec` says; what it leaves open may be anything.

        Raises:
            StoreError: names every field that differs, with both values.
        """
        wanted = spec.settled(self.spec.precisions)
        have, want = dict(_flatten(self.spec.to_dict())), dict(_flatten(wanted.to_dict()))
        different = [
            f"  {key}: the store has {have.get(key, 'nothing')}, "
            f"the recipe wants {want.get(key, 'nothing')}"
            for key in sorted({*have, *want})
            if have.get(key) != want.get(key)
        ]
        if different:
            raise StoreError(
                "\n".join([f"store {self.location} does not match the recipe", *different])
                + "\nset the recipe back, name another folder (clips.store or features.store), "
                "or remove this one and run `msvqa extract`"
            )

    @property
    def nbytes(self) -> int:
        """Bytes of all arrays."""
        return len(self) * sum(array.nbytes for array in self.spec.arrays.values())

    @property
    def video_ids(self) -> list[str]:
        """Videos that have arrays."""
        return list(self._place)

    def __len__(self) -> int:
        return len(self._place)

    def __contains__(self, video_id: str) -> bool:
        return video_id in self._place

    def __repr__(self) -> str:
        counts = f"{len(self)} videos, {len(self.rejected)} rejected"
        return f"Store({self.location!r}, {self.spec.kind}: {counts})"

    def __reduce__(self) -> tuple[Any, ...]:
        return Store.open, (self.location,)

    def read(self, video_id: str) -> Arrays:
        """Return read-only views of a video's arrays; the pages are read when they are touched.

        Raises:
            StoreError: no such video, a damaged shard, or numbers that are not finite.
        """
        place = self._place.get(video_id)
        if place is None:
            outcome, error = self.rejected.get(video_id, ("", "it was never extracted"))
            raise StoreError(f"{self.location} has no video {video_id!r}: {outcome} {error}")
        shard, row = place
        if shard not in self._opened:
            self._opened[shard] = self._open_shard(shard)
        arrays = {name: array[row] for name, array in self._opened[shard].items()}
        if not self.is_finite and video_id not in self._seen:
            if bad := not_finite(arrays):
                raise StoreError(
                    f"{self.location}: {' and '.join(bad)} of video {video_id} are not finite; "
                    "`msvqa extract` makes these videos anew"
                )
            self._seen.add(video_id)
        return arrays

    @cached_property
    def facts(self) -> dict[str, dict[str, Any]]:
        """Size and hash of the source file and counts of the decoder, for every video."""
        folder = open_folder(self.location)
        names = _descriptions(folder)
        if names:
            folder.get(*names)
        found = [read_json(folder.path / name) or {} for name in names]
        return {video["video_id"]: video for shard in found for video in shard.get("videos", ())}

    @property
    def copies(self) -> list[list[str]]:
        """Ids of videos whose files are the same byte for byte, as far as files were read."""
        if self._copies is None:
            # The index of an earlier version does not say.
            self._copies = _copies(self.facts.get(video, {}) for video in self.video_ids)
        return self._copies

    def _open_shard(self, shard: int) -> Arrays:
        place = join(self.location, *shard_name(shard).split("/"))
        folder, videos = fetch(place, SHARD), self._shards[shard]
        rows = len(videos)
        if (read_json(folder / SHARD) or {}).get("rows") != videos:
            # Its arrays would be those of other videos.
            raise StoreError(
                f"{place} is damaged, or was extracted again after this store was opened: "
                "run the command again"
            )
        try:
            return {
                name: _open_array(folder / f"{name}.npy", (rows, *array.shape), array.dtype)
                for name, array in self.spec.arrays.items()
            }
        except StoreError as error:
            copy = f"\nIt is a copy: remove {folder}, and it is fetched again"
            raise StoreError(f"{error}{copy if is_remote(self.location) else ''}") from None


def shard_name(shard: int) -> str:
    """Return the folder of a shard inside the store."""
    return f"shards/{shard:05d}"


def write_shard(
    store: str | Path,
    shard: int,
    spec: StoreSpec,
    entries: Iterable[Entry],
    made_with: Mapping[str, str],
) -> dict[str, Any]:
    """Write a shard aside, then give it its name; return its description.

    Args:
        store: folder of the store.
        shard: number of the shard.
        spec: what the arrays must look like.
        entries: the shard's videos, good and rejected, at most `spec.videos_per_shard`.
        made_with: versions of the libraries.
    """
    videos: list[dict[str, Any]] = []
    with _ShardFiles(store, shard, spec) as files:
        for entry in entries:
            facts = {"video_id": entry.video_id, "outcome": entry.outcome, **entry.facts}
            videos.append({**facts, "error": entry.error} if entry.arrays is None else facts)
            if entry.arrays is not None:
                files.add(entry)
        description = {
            "format": STORE_FORMAT, "spec": spec.to_dict(), "made_with": dict(made_with),
            "rows": files.rows, "videos": videos, "finite": True,
        }  # fmt: skip
        files.finish(description)
    return description


class _ShardFiles:
    """The files of a shard while it is made, aside: rows are written as they come."""

    def __init__(self, store: str | Path, shard: int, spec: StoreSpec) -> None:
        self.rows: list[str] = []
        self._store, self._shard, self._arrays = store, shard, spec.arrays
        self._folder, self._files = open_folder(store), dict[str, BinaryIO]()

    def __enter__(self) -> "_ShardFiles":
        final = self._folder.path / shard_name(self._shard)
        with self._naming():
            final.parent.mkdir(parents=True, exist_ok=True)
            self._aside = Path(tempfile.mkdtemp(prefix=f".{self._shard:05d}-", dir=final.parent))
            for name in self._arrays:
                self._files[name] = (self._aside / f"{name}.npy").open("wb", WRITTEN_BYTES)
                self._write_header(name)
        return self

    def __exit__(self, *_: object) -> None:
        for file in self._files.values():
            with suppress(OSError):
                file.close()
        # Where the shard is in its place this is nothing; on a full disk it would take the room
        # that is left.
        shutil.rmtree(self._aside, ignore_errors=True)

    def add(self, entry: Entry) -> None:
        """Write the arrays of a video."""
        given, arrays = entry.arrays or {}, Arrays()
        for name, spec in self._arrays.items():
            if given[name].shape != spec.shape:
                raise StoreError(
                    f"video {entry.video_id}: {name} has shape {given[name].shape}, "
                    f"the store has {spec.shape}"
                )
            arrays[name] = np.asarray(to_type(given[name], spec.dtype), order="C")
        if bad := not_finite(arrays):
            raise StoreError(f"video {entry.video_id}: {' and '.join(bad)} are not finite")
        with self._naming():
            for name, array in arrays.items():
                self._files[name].write(array.data)
        self.rows.append(entry.video_id)

    def finish(self, description: Mapping[str, Any]) -> None:
        """Complete the files and give the shard its name."""
        folder, name = self._folder, shard_name(self._shard)
        with self._naming():
            for array, file in self._files.items():
                file.seek(0)
                self._write_header(array)
                file.close()
                sync(self._aside / f"{array}.npy")
            write_json(self._aside / SHARD, description, indent=None)
            self._aside.chmod(0o755)
            put_in_place(self._aside, folder.path / name)
            folder.put(name, last=SHARD)
        folder.forget(name)

    def _write_header(self, name: str) -> None:
        """Write what numpy writes first; it leaves room for as many digits as rows can have."""
        spec = self._arrays[name]
        header = {
            "descr": np.lib.format.dtype_to_descr(np.dtype(spec.dtype)),
            "fortran_order": False,
            "shape": (len(self.rows), *spec.shape),
        }
        np.lib.format.write_array_header_1_0(self._files[name], header)

    @contextmanager
    def _naming(self) -> Iterator[None]:
        try:
            yield
        except (OSError, StorageError) as error:
            kind = StorageError if isinstance(error, StorageError) else StoreError
            raise kind(
                f"shard {self._shard} of {self._store} cannot be written: {error}\n{SHARDS_STAY}"
            ) from error


def read_shard(
    store: str | Path, shard: int, spec: StoreSpec, videos: Sequence[str]
) -> dict[str, Any] | None:
    """Return the description of a shard that is whole, made as `spec` says and of these videos."""
    return read_shards(store, spec, {shard: videos})[shard]


def read_shards(
    store: str | Path, spec: StoreSpec, shards: Mapping[int, Sequence[str]]
) -> dict[int, dict[str, Any] | None]:
    """Return what `read_shard` does of many, with few requests to an object store."""
    if not shards:
        return {}
    folder = open_folder(store)
    files = [f"{shard_name(shard)}/{SHARD}" for shard in shards]
    folder.get(*files)
    under = shard_name(next(iter(shards))) if len(shards) == 1 else "shards"
    sizes = folder.sizes(under) if is_remote(store) else None
    return {
        shard: _read_whole(folder, file, spec, videos, sizes)
        for file, (shard, videos) in zip(files, shards.items(), strict=True)
    }


def _read_whole(
    folder: Folder,
    file: str,
    spec: StoreSpec,
    videos: Sequence[str],
    sizes: Mapping[str, int] | None,
) -> dict[str, Any] | None:
    found = read_json(folder.path / file)
    if found is None or found.get("format") != STORE_FORMAT:
        return None
    if found["spec"] != spec.to_dict() or [v["video_id"] for v in found["videos"]] != list(videos):
        return None
    place, rows = PurePosixPath(file).parent, len(found["rows"])
    for name, array in spec.arrays.items():
        data = str(place / f"{name}.npy")
        if sizes is None:
            whole = _has_rows(folder.path / data, (rows, *array.shape), array.dtype)
        else:
            # The store has taken whole files, the description last: to read all would cost.
            whole = sizes.get(data, 0) >= rows * array.nbytes
        if not whole:
            return None
    return found


def made_as(store: str | Path, spec: StoreSpec) -> StoreSpec | None:
    """Return a spec as the shards that are there have settled it; None where there are none."""
    folder = open_folder(store)
    for name in (INDEX, *_descriptions(folder)):
        try:
            found = StoreSpec.from_dict((read_json(folder.get(name)) or {})["spec"])
            if found == spec.settled(found.precisions):
                return found
        except (AttributeError, KeyError, TypeError):
            continue  # damaged, or none
    return None


def _descriptions(folder: Folder) -> list[str]:
    """Return the names of the descriptions of all shards, in their order."""
    return sorted(name for name in folder.sizes("shards") if name.endswith(f"/{SHARD}"))


def with_precision(made: Mapping[str, Any], precision: str) -> dict[str, Any]:
    """Return what is said of an encoder with its number format; the usual one is not written."""
    rest = {key: value for key, value in made.items() if key != "precision"}
    # Stores of earlier versions have no such entry.
    return rest if precision == USUAL_PRECISION else {**rest, "precision": precision}


def shard_is_finite(
    store: str | Path, shard: int, spec: StoreSpec, description: Mapping[str, Any]
) -> bool:
    """Return whether all numbers of a whole shard are finite.

    Those of earlier versions are read for that, where they are on a disk.
    """
    if description.get("finite") or spec.is_always_finite:
        return True
    folder, rows = open_folder(store).path / shard_name(shard), len(description["rows"])
    return not rows or not not_finite(
        {
            name: _open_array(folder / f"{name}.npy", (rows, *array.shape), array.dtype)
            for name, array in spec.arrays.items()
        }
    )


def write_index(
    store: str | Path,
    spec: StoreSpec,
    shards: Sequence[Mapping[str, Any]],
    made_with: Mapping[str, str],
) -> Store:
    """Write the index, which makes the store complete."""
    rejected = {
        video["video_id"]: (video["outcome"], video["error"])
        for shard in shards
        for video in shard["videos"]
        if "error" in video
    }
    index = {
        "format": STORE_FORMAT, "spec": spec.to_dict(), "made_with": dict(made_with),
        "rejected": rejected, "shards": [shard["rows"] for shard in shards],
        "copies": _copies(v for shard in shards for v in shard["videos"] if "error" not in v),
        "finite": all(shard.get("finite") for shard in shards),
    }  # fmt: skip
    folder = open_folder(store)
    write_json(folder.path / INDEX, index, indent=None)
    folder.put(INDEX)
    return Store.open(store)


def remove_leftovers(store: str | Path, num_shards: int) -> None:
    """Remove what a stopped job left aside, and shards of a longer list of videos."""
    folder = open_folder(store)
    for leftover in (folder.path / "shards").glob(".*"):
        shutil.rmtree(leftover, ignore_errors=True)
    shards = {PurePosixPath(name).parts[1] for name in folder.sizes("shards")}
    for shard in shards:
        if shard.isdecimal() and int(shard) >= num_shards:
            folder.remove(f"shards/{shard}")


def _copies(videos: Iterable[Mapping[str, Any]]) -> list[list[str]]:
    of_content: dict[str, list[str]] = {}
    for video in videos:
        if "sha256" in video:
            of_content.setdefault(video["sha256"], []).append(video["video_id"])
    return [ids for ids in of_content.values() if len(ids) > 1]


def _open_array(file: Path, shape: tuple[int, ...], dtype: str) -> np.ndarray:
    try:
        array: np.ndarray = np.load(file, mmap_mode="r", allow_pickle=False)
    except (OSError, ValueError) as error:
        raise StoreError(f"{file} is damaged: {error}; remove it, extract again") from None
    if array.shape != shape or array.dtype != np.dtype(dtype):
        raise StoreError(
            f"{file} has {array.dtype} {array.shape}, the index says {dtype} {shape}; "
            "remove it, extract again"
        )
    # A plain array: views of it are made ten times faster than those of a memmap.
    return array.view(np.ndarray)


def _has_rows(file: Path, shape: tuple[int, ...], dtype: str) -> bool:
    if shape[0] == 0:
        return file.is_file()
    try:
        _open_array(file, shape, dtype)
    except StoreError:
        return False
    return True


def _flatten(value: Any, prefix: str = "") -> Iterable[tuple[str, Any]]:
    if isinstance(value, dict):
        for key, inner in value.items():
            yield from _flatten(inner, f"{prefix}.{key}" if prefix else key)
    else:
        yield prefix, value
