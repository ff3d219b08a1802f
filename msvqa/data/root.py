"""The folder of a data set, on a disk or in an object store; nothing outside it is ever opened."""

import errno
import os
import stat
import unicodedata
from abc import ABC, abstractmethod
from collections import defaultdict
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path, PurePosixPath

from msvqa.errors import DataError, StorageError, did_you_mean
from msvqa.storage import SCHEMES, RemoteFolder, is_remote, join, open_folder

MAX_FILE_BYTES = 2_000_000_000
NAMES_SHOWN = 20
_ELSEWHERE = ("/", *(f"{scheme}:/" for scheme in SCHEMES))
"""How names begin that are full locations; of two slashes paths keep one."""
_ABSENT = (
    *(errno.ENOENT, errno.ENOTDIR, errno.EBADF, errno.ELOOP),
    *(errno.ENAMETOOLONG, errno.EILSEQ, errno.EINVAL),
)
"""What says that there is no such file, or that there can be none."""


@dataclass(frozen=True)
class SourceFile:
    """A file of annotations."""

    location: str
    """Where it is, for messages."""
    path: Path
    """Where its bytes are on this machine."""

    def __str__(self) -> str:
        return self.location

    @property
    def name(self) -> str:
        """Its name without folders."""
        return PurePosixPath(self.location).name

    @property
    def suffix(self) -> str:
        """The ending of its name, in lower case."""
        return PurePosixPath(self.location).suffix.lower()


class Root(ABC):
    """A folder whose files are asked for by names relative to it."""

    location: str
    _top: str
    """The location as a path, without the scheme."""

    def __str__(self) -> str:
        return self.location

    @abstractmethod
    def check(self) -> None:
        """Refuse a folder that is not there.

        Raises:
            DataError, StorageError: says which, and why.
        """

    @abstractmethod
    def size(self, name: str) -> int | None:
        """Return the bytes of a file, None where there is none."""

    @abstractmethod
    def names(self, folder: str) -> list[str]:
        """Return the names of the files directly in a subfolder, none where it is absent."""

    @abstractmethod
    def folders(self, folder: str) -> list[str]:
        """Return the names of the subfolders directly in a subfolder, none where it is absent."""

    @abstractmethod
    def leads_out(self, name: str) -> str | None:
        """Return where a file lies outside the root, by a link that is not followed, else None."""

    @abstractmethod
    def identify(self, name: str) -> str:
        """Return what all names of one file have in common: links, hard links, upper case."""

    def has_folder(self, folder: str) -> bool:
        """Whether there is such a subfolder."""
        parent, _, name = folder.rpartition("/")
        return name in self.folders(parent)

    def broken_link(self, name: str) -> str:
        """Say of an absent file which link on its way leads to nothing; empty where none does."""
        return ""

    @abstractmethod
    def writable(self) -> Path | None:
        """Return where a data set may be written; None where it cannot."""

    def inside(self, name: str) -> str | None:
        """Return a name without `.` and `..`, None where it leaves the root."""
        if name.startswith(_ELSEWHERE):
            return None
        return _below(os.path.normpath(f"{self._top.rstrip('/')}/{name}"), self._top)

    def name_of(self, location: str) -> str | None:
        """Return the name of a full location, None where it is not inside."""
        return _below(location, self.location)

    def source(self, name: str) -> SourceFile:
        """Return a file of annotations, brought here.

        Raises:
            DataError, StorageError: it is absent, too large or cannot be read.
        """
        location, size = join(self.location, name), self.size(name)
        if size is None:
            suffix = PurePosixPath(name).suffix
            there = sorted(n for n in self.names("") if n.endswith(suffix))[:NAMES_SHOWN]
            hint = did_you_mean(name, there) or (f"; there are {', '.join(there)}" if there else "")
            raise DataError(f"no file {location}{hint}")
        if (target := self.leads_out(name)) is not None:
            raise DataError(
                f"{location} leaves the data root by a link, to {target}; data.follow_links=true "
                "follows such links"
            )
        if size > MAX_FILE_BYTES:
            raise DataError(f"{location} is larger than {MAX_FILE_BYTES} bytes")
        return SourceFile(location, self._bring(name))

    def local(self, name: str) -> Path:
        """Return a file that is there, of any size, brought here."""
        return self._bring(name)

    @abstractmethod
    def _bring(self, name: str) -> Path:
        """Return where a file is on this machine."""


class DiskRoot(Root):
    """A folder on a disk."""

    def __init__(self, location: str | Path, follow_links: bool = False) -> None:
        self._path = Path(location).resolve()
        self.location = self._top = str(self._path)
        self._inside = self.location.rstrip(os.sep) + os.sep
        self._follow_links = follow_links
        self._identities: dict[str, str] = {}
        self._real_folders: dict[str, str] = {}

    def check(self) -> None:
        """Refuse a folder that is not there."""
        if not self._path.is_dir():
            raise DataError(f"no folder {self}; data.root is the folder of the data set")

    def size(self, name: str) -> int | None:
        """Return the bytes of a file, None where there is none."""
        with self._reading(name):
            # As text, here and below: building path objects is what takes the time for thousands.
            found = os.stat(f"{self._inside}{name}")  # noqa: PTH116
            return found.st_size if stat.S_ISREG(found.st_mode) else None
        return None

    def names(self, folder: str) -> list[str]:
        """Return the names of the files directly in a subfolder."""
        return self._entries(folder, os.DirEntry.is_file)

    def folders(self, folder: str) -> list[str]:
        """Return the names of the subfolders directly in a subfolder."""
        return self._entries(folder, os.DirEntry.is_dir)

    def leads_out(self, name: str) -> str | None:
        """Return where a file lies outside the root, by a link that is not followed."""
        if self._follow_links:
            return None
        real = self._real(name)
        return None if real.startswith(self._inside) else real

    def identify(self, name: str) -> str:
        """Return what all names of one file have in common."""
        real = self._real(name)
        if real not in self._identities:
            found = os.stat(real)  # noqa: PTH116
            # Hard links have a number in common, and so have two spellings that a file system does
            # not tell apart. Elsewhere the path decides: on some network file systems the numbers
            # mean nothing.
            place = "" if found.st_nlink > 1 else unicodedata.normalize("NFC", real).casefold()
            self._identities[real] = f"{found.st_dev}:{found.st_ino}:{place}"
        return self._identities[real]

    def _real(self, name: str) -> str:
        """Return the real path of a name; that of its folder is looked up once."""
        folder, _, file = name.rpartition("/")
        if file in ("", ".", ".."):
            return os.path.realpath(f"{self._inside}{name}")
        if folder not in self._real_folders:
            self._real_folders[folder] = os.path.realpath(f"{self._inside}{folder}")
        path = f"{self._real_folders[folder]}/{file}"
        return os.path.realpath(path) if os.path.islink(path) else path  # noqa: PTH114

    def broken_link(self, name: str) -> str:
        """Say of an absent file which link on its way leads to nothing."""
        path = self._path / name
        with self._reading(name):
            for place in (path, *path.parents):
                if place == self._path:
                    break
                if place.is_symlink() and not place.exists():
                    link = place.relative_to(self._path)
                    return f"{link} is a link to {place.readlink()}, where nothing is"
        return ""

    def name_of(self, location: str) -> str | None:
        """Return the name of a full location, also of one that is spelled through links."""
        return super().name_of(location) or _below(os.path.realpath(location), self.location)

    def writable(self) -> Path | None:
        """Return where a data set may be written."""
        return self._path

    def _entries(self, folder: str, wanted: Callable[["os.DirEntry[str]"], bool]) -> list[str]:
        with self._reading(folder), os.scandir(self._path / folder) as entries:
            return [entry.name for entry in entries if _is(entry, wanted)]
        return []

    @contextmanager
    def _reading(self, name: str) -> Iterator[None]:
        """Pass over what is not there, and name what cannot be looked at.

        Raises:
            DataError: the file system refuses, or does not answer.
        """
        try:
            yield
        except ValueError:
            pass  # a NUL character, which no name has
        except OSError as error:
            if error.errno not in _ABSENT:
                raise DataError(f"{self._path / name} cannot be read: {error.strerror}") from None

    def _bring(self, name: str) -> Path:
        return self._path / name


class RemoteRoot(Root):
    """A folder in an object store: listed once, as a whole."""

    def __init__(self, location: str) -> None:
        self.location = location
        self._top = "/" + location.partition("://")[2]

    def check(self) -> None:
        """Refuse a folder that is not there."""
        if not self._sizes:
            raise StorageError(
                f"{self} is absent or empty: is the bucket there? data.root is the folder of the "
                "data set"
            )

    def size(self, name: str) -> int | None:
        """Return the bytes of a file, None where there is none."""
        return self._sizes.get(name)

    def names(self, folder: str) -> list[str]:
        """Return the names of the files directly in a subfolder."""
        return self._folders.get(folder, [])

    def folders(self, folder: str) -> list[str]:
        """Return the names of the subfolders directly in a subfolder."""
        start = f"{folder}/" if folder else ""
        below = (name.removeprefix(start) for name in self._folders if name.startswith(start))
        return sorted({name.split("/")[0] for name in below if name})

    def leads_out(self, name: str) -> str | None:
        """There are no links in an object store."""
        return None

    def identify(self, name: str) -> str:
        """A file has one name."""
        return name

    def writable(self) -> Path | None:
        """Nothing is written there file by file."""
        return None

    @property
    def _folder(self) -> RemoteFolder:
        folder = open_folder(self.location)
        assert isinstance(folder, RemoteFolder)
        return folder

    @cached_property
    def _sizes(self) -> dict[str, int]:
        return self._folder.all_sizes()

    @cached_property
    def _folders(self) -> dict[str, list[str]]:
        folders: dict[str, list[str]] = defaultdict(list)
        for name in self._sizes:
            folder, _, file = name.rpartition("/")
            folders[folder].append(file)
        return dict(folders)

    def _bring(self, name: str) -> Path:
        path = self._folder.get(name)
        if not path.is_file():
            raise StorageError(f"{join(self.location, name)} has gone since {self} was listed")
        return path


def _is(entry: "os.DirEntry[str]", wanted: Callable[["os.DirEntry[str]"], bool]) -> bool:
    """Whether an entry is wanted; a link in a circle, or to what nobody may see, is nothing."""
    try:
        return wanted(entry)
    except OSError:
        return False


def _below(path: str, top: str) -> str | None:
    top = top.rstrip("/") + "/"
    return f"{path}/".removeprefix(top).rstrip("/") if f"{path}/".startswith(top) else None


def open_root(location: str | Path, *, follow_links: bool = False) -> Root:
    """Return the folder of a data set; nothing is looked at yet.

    Args:
        location: on a disk or in an object store.
        follow_links: whether links on a disk may lead out of it.
    """
    if is_remote(location):
        return RemoteRoot(str(location))
    return DiskRoot(location, follow_links)
