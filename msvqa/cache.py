"""The cache of a machine: what its processes have fetched from object stores, up to a limit."""

import hashlib
import os
import shutil
from collections.abc import Mapping
from contextlib import suppress
from pathlib import Path

from msvqa.errors import CacheError, IncompleteError, StorageError
from msvqa.machine import CACHE_FOLDER, IN_USE, alone, hold, is_unused, machine_folder, release
from msvqa.storage import download, explained, filesystem, is_remote

CACHE_GB = "MSVQA_CACHE_GB"
DEFAULT_CACHE_GB = 100.0
NEEDED = ".needed-bytes"


def fetch(location: str | Path, marker: str, *, marker_alone: bool = False) -> Path:
    """Return a folder's files on this machine; from an object store they are fetched once.

    All processes of a machine share the files. What none of them uses is removed when there is no
    room for more.

    Args:
        location: a folder that is not changed any more; subfolders are not fetched.
        marker: the file that makes the folder whole.
        marker_alone: the others are not fetched, and may change.

    Raises:
        IncompleteError: it has no marker.
        StorageError: it cannot be read.
        CacheError: the cache has no room for it.
    """
    if not is_remote(location):
        if not Path(location, marker).is_file():
            raise IncompleteError(f"{location} is absent or incomplete: it has no {marker}")
        return Path(location)
    from pyarrow.fs import FileSelector, FileType

    store, root = filesystem(str(location))
    with explained(str(location), "read"):
        infos = store.get_file_info(FileSelector(root, allow_not_found=True))
    files = {info.base_name: info for info in infos if info.type == FileType.File}
    if marker not in files:
        raise IncompleteError(f"{location} is absent or incomplete: it has no {marker}")
    if marker_alone:
        files = {marker: files[marker]}
    version = sorted((name, info.size, info.mtime_ns) for name, info in files.items())
    # A folder that was replaced is another entry: its files have other times.
    entry = _cache_folder() / hashlib.sha256(f"{location} {version}".encode()).hexdigest()[:24]
    sizes = {name: info.size for name, info in files.items()}
    with alone(_cache_folder()):
        hold(entry)
        if not _is_whole(entry, sizes):
            _make_room(entry, sum(sizes.values()), str(location))
            (entry / NEEDED).write_text(str(sum(sizes.values())), encoding="utf-8")
    with alone(entry), explained(str(location), "fetched"):
        for name in sizes if not _is_whole(entry, sizes) else ():
            download(store, files[name].path, entry / name)
    if not _is_whole(entry, sizes):
        raise StorageError(f"{location} was changed while it was fetched: try again")
    os.utime(entry)
    return entry


def _is_whole(entry: Path, sizes: Mapping[str, int]) -> bool:
    files = [entry / name for name in sizes]
    return all(f.is_file() and f.stat().st_size == sizes[f.name] for f in files)


def check_cache(location: str, nbytes: int) -> None:
    """Refuse what is read again and again and does not fit into the cache of a machine.

    Raises:
        CacheError: says how much it is and how much may be kept.
    """
    if is_remote(location) and nbytes > cache_limit_bytes():
        raise CacheError(
            f"{location} has {nbytes / 1e9:.3g} GB, but a machine keeps at most "
            f"{cache_limit_bytes() / 1e9:.3g} GB of what it fetches: raise {CACHE_GB} on every "
            "machine, or put it on a disk that all machines reach"
        )


def cache_limit_bytes() -> float:
    """Return how much a machine may keep of what it has fetched.

    Raises:
        CacheError: MSVQA_CACHE_GB is not a number.
    """
    text = os.environ.get(CACHE_GB, str(DEFAULT_CACHE_GB))
    try:
        return float(text) * 1e9
    except ValueError:
        raise CacheError(f"{CACHE_GB}={text} is not a number of gigabytes") from None


def _make_room(entry: Path, needed: int, location: str) -> None:
    """Remove what no process uses, the longest unused first, until `needed` bytes fit."""
    others = [path.parent for path in _cache_folder().glob(f"*/{IN_USE}") if path.parent != entry]
    sizes = {other: _bytes_of(other) for other in others}
    limit = cache_limit_bytes()
    for other in sorted(others, key=lambda path: path.stat().st_mtime):
        if sum(sizes.values()) + needed <= limit:
            return
        if is_unused(other):
            shutil.rmtree(other)
            del sizes[other]
    used = sum(sizes.values())
    if used + needed > limit:
        release(entry)
        raise CacheError(
            f"{location} needs {needed / 1e9:.3g} GB in {_cache_folder()}, which may hold "
            f"{limit / 1e9:.3g} GB and has {used / 1e9:.3g} GB in use: raise {CACHE_GB}, or set "
            f"{CACHE_FOLDER} to a larger disk, on every machine"
        )


def _bytes_of(entry: Path) -> int:
    """Return what an entry has, or will have when it is whole."""
    present = 0
    for file in entry.iterdir():
        # A download is renamed when it is whole.
        with suppress(FileNotFoundError):
            present += file.stat().st_size
    try:
        return max(present, int((entry / NEEDED).read_text(encoding="utf-8")))
    except (FileNotFoundError, ValueError):
        return present


def _cache_folder() -> Path:
    return machine_folder() / "fetched"
