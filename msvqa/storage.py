"""Storage: folders that all machines of a cluster reach, on a disk or in an object store.

A location is a path, or `s3://BUCKET/FOLDER` or `gs://BUCKET/FOLDER`. Object stores cannot append,
rename or lock. So each process works on files of its own disk and sends them whole, and a folder of
files is whole when it has its marker, the file that is sent last. Credentials, region and endpoint
come from the environment or the files that the vendors' own tools read, for example
AWS_ACCESS_KEY_ID, AWS_REGION and AWS_ENDPOINT_URL.
"""

import os
import re
import shutil
import tempfile
import threading
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import AbstractContextManager, contextmanager, nullcontext, suppress
from dataclasses import dataclass
from functools import cache, lru_cache
from pathlib import Path, PurePosixPath
from typing import TYPE_CHECKING, Annotated, Any, Literal

from pydantic import AfterValidator

from msvqa.errors import StorageError
from msvqa.machine import machine_folder, working_folder

if TYPE_CHECKING:
    from pyarrow.fs import FileSystem

SCHEMES = ("s3", "gs")
HALF_REMOTE = re.compile(rf"({'|'.join(SCHEMES)}):(?!//)")
REMOTE = re.compile(rf"({'|'.join(SCHEMES)})://[A-Za-z0-9._-]+(/[A-Za-z0-9._=+,-]+)*/*")
RETRIES_S = 60
"""How long Google's client tries again by itself; S3's has a limit of its own."""
DOWNLOADS = 8
"""Small files that are got at the same time."""
TRIED, TRIED_BYTES = ".tried", 1 << 16
"""More than what a full disk may still have room for in blocks that are begun."""
BLOCK_BYTES = 16 * 1024**2
"""How much of a file one request asks for."""


def is_remote(location: str | Path) -> bool:
    """Whether a location is in an object store."""
    return "://" in str(location)


def join(location: str | Path, *names: str) -> str:
    """Return the location of something inside a folder."""
    if is_remote(location):
        return "/".join([str(location).rstrip("/"), *names])
    return str(Path(location, *names))


def absolute(location: str | Path) -> str:
    """Return a location that holds in any working directory.

    Raises:
        StorageError: an object store that cannot be used.
    """
    text = str(location)
    if HALF_REMOTE.match(text):
        raise StorageError(f"{text} is a path; an object store is written s3://BUCKET/FOLDER")
    if not is_remote(text):
        try:
            return str(Path(text).expanduser().absolute())
        except RuntimeError as error:
            raise StorageError(f"{text}: {error}") from None
    if "@" in text or "?" in text:
        # Not repeated here: it may hold a password.
        raise StorageError(
            "a location in an object store takes no user and no options: credentials, region and "
            "endpoint come from the environment"
        )
    if not REMOTE.fullmatch(text):
        known = " and ".join(f"{name}://BUCKET/FOLDER" for name in SCHEMES)
        raise StorageError(
            f"{text} is not a path, and not one of {known} (letters, digits and . _ - = + ,)"
        )
    return text.rstrip("/")


def _checked(location: str) -> str:
    try:
        return absolute(location)
    except StorageError as error:
        raise ValueError(str(error)) from None


def _on_disk(location: str) -> str:
    if is_remote(location):
        # Not repeated here: it may hold a password.
        raise ValueError("must be on a disk that all machines reach, not in an object store")
    return _checked(location)


Location = Annotated[str, AfterValidator(_checked)]
"""A folder on a disk or in an object store. Relative paths start at the working directory and are
stored absolute."""


@dataclass(frozen=True)
class Reads:
    """Marks the field of a section that names something which is there already, and what it is."""

    what: Literal["weights", "word vectors", "features", "a file or folder"] = "a file or folder"


DiskPath = Annotated[str, AfterValidator(_on_disk), Reads()]
"""A file or folder on a disk, stored absolute."""
WeightsFile = Annotated[str, AfterValidator(_on_disk), Reads("weights")]
WordVectorsFile = Annotated[str, AfterValidator(_on_disk), Reads("word vectors")]
FeaturesFile = Annotated[str, AfterValidator(_on_disk), Reads("features")]


class Kept:
    """Something that is kept in a folder: a run, a search."""

    folder: "Folder"

    @property
    def location(self) -> str:
        """Where it is, for every machine."""
        return self.folder.location

    @property
    def path(self) -> Path:
        """Where its files are on this machine."""
        return self.folder.path


def open_folder(location: str | Path) -> "Folder":
    """Return a folder; of one in an object store, each process has one set of working files."""
    return _remote_folder(str(location).rstrip("/")) if is_remote(location) else Folder(location)


class Folder:
    """A folder on a disk, local or shared: its files are used where they are."""

    look_every_s = 0.2
    """How often to look for news."""

    def __init__(self, location: str | Path) -> None:
        self.location = str(location)
        self.path = Path(location)
        """Where its files are on this machine, those that were got and those to be put."""

    def __repr__(self) -> str:
        return f"Folder({self.location!r})"

    def sizes(self, under: str = "") -> dict[str, int]:
        """Return the bytes of all files below a subfolder, by their names in this folder.

        What is hidden is left out: it is not whole yet.
        """
        found: dict[str, int] = {}
        for folder, subfolders, files in os.walk(self.path / under, followlinks=True):
            subfolders[:] = [name for name in subfolders if not name.startswith(".")]
            for path in (Path(folder, name) for name in files if not name.startswith(".")):
                # A file may be removed meanwhile by the process that trains.
                with suppress(FileNotFoundError):
                    found[path.relative_to(self.path).as_posix()] = path.stat().st_size
        return found

    def get(self, *names: str) -> Path:
        """Bring files here as they are now; return the path of the first, which may not exist."""
        return self.path / names[0]

    def read_start(self, name: str, nbytes: int) -> bytes:
        """Return the first bytes of a file as it is now; fewer where it is shorter."""
        with (self.path / name).open("rb") as file:
            return file.read(nbytes)

    def put(self, *names: str, last: str = "") -> None:
        """Send files, and all files of folders, that this process has written at `path`.

        Args:
            names: of files and folders inside this one; those that are absent are passed over.
            last: the marker of a single folder.
        """

    def try_writing(self) -> None:
        """Write a small file and remove it.

        Raises:
            OSError, StorageError: the folder cannot be written now.
        """
        name = f"{TRIED}-{os.getpid()}"
        (self.path / name).write_bytes(bytes(TRIED_BYTES))
        self.put(name)
        self.remove(name)

    def create(self) -> None:
        """Create the folder where it is absent, and see that it can be written.

        Raises:
            StorageError: it cannot.
        """
        try:
            self.path.mkdir(parents=True, exist_ok=True)
            self.try_writing()
        except OSError as error:
            raise StorageError(f"{self.location} cannot be written: {error}") from None

    def forget(self, name: str) -> None:
        """Remove the working files of a folder that was put."""

    def remove(self, name: str) -> None:
        """Remove a file or a folder; nothing happens where there is none."""
        path = self.path / name
        if path.is_dir() and not path.is_symlink():
            # Hidden first: what is half removed must not look damaged.
            hidden = path.with_name(f".{path.name}.removed")
            shutil.rmtree(hidden, ignore_errors=True)
            path.rename(hidden)
            shutil.rmtree(hidden)
        else:
            path.unlink(missing_ok=True)

    def rename(self, name: str, new: str) -> None:
        """Give a subfolder another name, in place of one that has it."""
        self.remove(new)
        (self.path / name).rename(self.path / new)

    def copy(self, name: str, source: "Folder", last: str = "") -> None:
        """Copy a subfolder of another folder under the same name, in place of one that is there.

        Args:
            name: of the subfolder.
            source: the other folder, on the same storage.
            last: the marker, of the subfolder or of folders inside it.
        """
        path = self.path / name
        aside = path.with_name(f".{path.name}.copied")
        shutil.rmtree(aside, ignore_errors=True)
        try:
            shutil.copytree(source.path / name, aside)
        except OSError:
            shutil.rmtree(aside, ignore_errors=True)
            raise
        self.remove(name)
        aside.rename(path)


_local_path = lru_cache(maxsize=64)(Path)
"""Media come file by file, and a file of records holds many of them."""


def on_this_disk(location: str | Path) -> AbstractContextManager[Path]:
    """Give a file's path on this machine; one in an object store is brought here for the block.

    Args:
        location: of a file whose name may hold any characters. Where there is no such file, neither
            is there one at the path.

    Raises:
        StorageError: the object store cannot be read; that says nothing about the file.
    """
    if not is_remote(location):
        return nullcontext(_local_path(location))
    scheme, _, rest = str(location).partition("://")
    bucket, _, name = rest.partition("/")
    return _remote_folder(f"{scheme}://{bucket}").lent(name)


Signature = tuple[int, int]
"""Bytes and time of a file: another one of the same name differs in them."""


class RemoteFolder(Folder):
    """A folder of an object store, with working files that belong to this process alone."""

    look_every_s = 2.0

    def __init__(self, location: str) -> None:
        super().__init__(location)
        self._filesystem, self._root = filesystem(location)
        self.path = working_folder()
        self._got: dict[str, Signature] = {}
        """What the store had of a file when it was got."""
        self._same: dict[str, Signature] = {}
        """What a working file was like when the store had the same."""
        self._put: set[str] = set()
        self._lock = threading.RLock()

    def __reduce__(self) -> tuple[Any, ...]:
        # Another process has working files of its own.
        return open_folder, (self.location,)

    def sizes(self, under: str = "") -> dict[str, int]:
        """Return the bytes of all files below a subfolder, by their names in this folder."""
        return {
            name: size
            for name, size in self.all_sizes(under).items()
            if not any(part.startswith(".") for part in PurePosixPath(name).parts)
        }

    def all_sizes(self, under: str = "") -> dict[str, int]:
        """Return the same with what is hidden: of files that are not ours."""
        from pyarrow.fs import FileSelector, FileType

        where = self._at(under) if under else self._root
        with self._explained("listed"):
            selector = FileSelector(where, recursive=True, allow_not_found=True)
            infos = self._filesystem.get_file_info(selector)
        files = [info for info in infos if info.type == FileType.File]
        return {info.path.removeprefix(f"{self._root}/"): info.size for info in files}

    def get(self, *names: str) -> Path:
        """Bring files here that others have written; what this process has put is the newest."""
        from pyarrow.fs import FileType

        with self._lock, self._explained("read"):
            wanted = [name for name in names if name not in self._put]
            infos = self._filesystem.get_file_info([self._at(name) for name in wanted])
            changed = []
            for name, info in zip(wanted, infos, strict=True):
                version = (info.size, info.mtime_ns)
                if info.type != FileType.File:
                    (self.path / name).unlink(missing_ok=True)
                    self._got.pop(name, None)
                elif self._got.get(name) != version:
                    changed.append((name, info.path, version))
            with ThreadPoolExecutor(DOWNLOADS) as pool:
                list(pool.map(self._bring, changed))
        return self.path / names[0]

    def read_start(self, name: str, nbytes: int) -> bytes:
        """Return the first bytes of a file; the others are not kept here."""
        with (
            self._explained("read"),
            self._filesystem.open_input_stream(self._at(name), compression=None) as file,
        ):
            start: bytes = file.read(nbytes)
            return start

    def _bring(self, changed: "tuple[str, str, Signature]") -> None:
        name, source, version = changed
        try:
            download(self._filesystem, source, self.path / name)
        except FileNotFoundError:  # removed since it was looked for
            (self.path / name).unlink(missing_ok=True)
            self._got.pop(name, None)
            return
        self._got[name], self._same[name] = version, _signature(self.path / name)

    @contextmanager
    def lent(self, name: str) -> Iterator[Path]:
        """Bring one file here for the block; the path does not exist where the store has none."""
        with tempfile.TemporaryDirectory(dir=self.path) as folder:
            # Not under its own name, which a disk may not be able to hold.
            path = Path(folder, f"file{PurePosixPath(name).suffix[:20]}")
            with explained(join(self.location, name), "read"):
                self._copy_here(name, path)
            yield path

    def _copy_here(self, name: str, path: Path) -> None:
        from pyarrow.fs import FileType

        try:
            # As it is: by default names such as x.gz are unpacked.
            source = self._filesystem.open_input_stream(self._at(name), compression=None)
        except FileNotFoundError:
            (info,) = self._filesystem.get_file_info([self._root])
            if info.type == FileType.NotFound:
                # Else all files of a bucket that is gone would count as absent, one by one.
                raise
            return
        with source, path.open("wb") as file:
            shutil.copyfileobj(source, file, BLOCK_BYTES)

    def put(self, *names: str, last: str = "") -> None:
        """Send what has changed since it was sent."""
        files = [file for name in names for file in self._files(name)]
        marker = self.path / names[0] / last if last else None
        with self._lock, self._explained("written"):
            if marker is not None:
                # While files are replaced the folder must not look whole.
                self._delete(f"{names[0]}/{last}")
                files = [file for file in files if file != marker] + [marker]
            for file in files:
                name, now = file.relative_to(self.path).as_posix(), _signature(file)
                if self._same.get(name) != now or marker is not None:
                    _upload(file, self._filesystem, self._at(name))
                    self._same[name] = now
                    self._put.add(name)

    def forget(self, name: str) -> None:
        """Remove the working files of a folder; they are got again when they are asked for."""
        shutil.rmtree(self.path / name, ignore_errors=True)
        self._unlearn(name)

    def remove(self, name: str) -> None:
        """Remove a file or a folder, here and there."""
        super().remove(name)
        self._unlearn(name)
        with self._lock, self._explained("removed"):
            self._delete(name)

    def rename(self, name: str, new: str) -> None:
        """Give a subfolder another name: object stores copy."""
        with self._explained("renamed"):
            self._delete(new)
            self._copy(self._at(name), self._at(new))
        self.remove(name)

    def copy(self, name: str, source: Folder, last: str = "") -> None:
        """Copy a subfolder inside the object store, the marker last."""
        assert isinstance(source, RemoteFolder)
        self.remove(name)
        with self._explained("copied"):
            self._copy(source._at(name), self._at(name), last)

    def _unlearn(self, name: str) -> None:
        with self._lock:
            for key in [k for k in self._same if k == name or k.startswith(f"{name}/")]:
                del self._same[key]
                self._got.pop(key, None)
                self._put.discard(key)

    def _at(self, name: str) -> str:
        return f"{self._root}/{name}"

    def _files(self, name: str) -> Iterator[Path]:
        path = self.path / name
        if path.is_file():
            yield path
        yield from sorted(
            file
            for file in path.rglob("*")
            if file.is_file()
            and not any(p.startswith(".") for p in file.relative_to(self.path).parts)
        )

    def _delete(self, name: str) -> None:
        from pyarrow.fs import FileType

        (info,) = self._filesystem.get_file_info([self._at(name)])
        if info.type == FileType.File:
            self._filesystem.delete_file(info.path)
        elif info.type == FileType.Directory:
            # In Google's store a folder is its files: it is not found when they are gone.
            with suppress(FileNotFoundError):
                self._filesystem.delete_dir(info.path)

    def _copy(self, source: str, destination: str, last: str = "") -> None:
        from pyarrow.fs import FileSelector, FileType

        infos = self._filesystem.get_file_info(FileSelector(source, recursive=True))
        files = [info.path for info in infos if info.type == FileType.File]
        for path in sorted(files, key=lambda path: PurePosixPath(path).name == last):
            self._filesystem.copy_file(path, destination + path.removeprefix(source))

    @contextmanager
    def _explained(self, what: str) -> Iterator[None]:
        with explained(self.location, what):
            yield


def filesystem(location: str) -> "tuple[FileSystem, str]":
    """Return the file system of a location in an object store, and the path in it.

    Raises:
        StorageError: not a location that can be used.
    """
    from pyarrow import fs

    uri = absolute(location)
    if uri.startswith("gs:"):
        # Without credentials Google's client would try for 15 minutes and say nothing.
        uri += f"?retry_limit_seconds={RETRIES_S}"
    with explained(location, "used"):
        found: tuple[FileSystem, str] = fs.FileSystem.from_uri(uri)
    return found[0], found[1].rstrip("/")


@contextmanager
def explained(location: str, what: str) -> Iterator[None]:
    """Turn the errors of an object store into one that says what to do."""
    try:
        yield
    except (OSError, ValueError) as error:
        said = " ".join(str(error).split())
        if "No space left on device" in said:
            raise StorageError(
                f"{location} cannot be {what}, {machine_folder()} is full"
            ) from error
        raise StorageError(
            f"{location} cannot be {what}: {said[:500]}\nIs the bucket there, and may these "
            "credentials use it? See AWS_ACCESS_KEY_ID, AWS_SECRET_ACCESS_KEY, AWS_REGION and "
            "AWS_ENDPOINT_URL, or GOOGLE_APPLICATION_CREDENTIALS"
        ) from error


@cache
def _remote_folder(location: str) -> RemoteFolder:
    return RemoteFolder(location)


def _signature(file: Path) -> Signature:
    stat = file.stat()
    return stat.st_size, stat.st_mtime_ns


def download(store: "FileSystem", source: str, target: Path) -> None:
    """Bring one file here, aside and then renamed."""
    from pyarrow import fs

    target.parent.mkdir(parents=True, exist_ok=True)
    aside = target.with_name(f".{target.name}.{os.getpid()}.tmp")
    try:
        fs.copy_files(source, str(aside), source_filesystem=store)
        aside.replace(target)
    finally:
        aside.unlink(missing_ok=True)


def _upload(source: Path, store: "FileSystem", target: str) -> None:
    from pyarrow import fs

    options: dict[str, Any] = {"destination_filesystem": store}
    fs.copy_files(str(source), target, **options)
