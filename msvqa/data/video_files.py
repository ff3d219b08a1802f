"""Video files in the folders of a data set: their endings, and how a name leads to one of them."""

import unicodedata
from collections import defaultdict
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from pathlib import PurePosixPath

from msvqa.data.root import Root

VIDEO_SUFFIXES = (
    *(".avi", ".mp4", ".mkv", ".webm", ".mov", ".m4v", ".mpg", ".mpeg"),
    *(".wmv", ".flv", ".ogv", ".3gp", ".ts", ".gif"),
    *(".3g2", ".asf", ".divx", ".f4v", ".m1v", ".m2ts", ".m2v", ".mpe", ".mts", ".mxf"),
    *(".ogm", ".rm", ".rmvb", ".vob", ".y4m"),
)
"""Endings of video files, in any case; of two files for one video the ending that comes first here
is taken."""
UNFINISHED = (".part", ".partial", ".crdownload", ".download", ".tmp", ".temp", ".aria2", ".!ut")
"""What programs append to the name of a video that they have not finished."""


def is_video(name: str) -> bool:
    """Whether a name has the ending of a video."""
    return PurePosixPath(name).suffix.lower() in VIDEO_SUFFIXES


def same_form(text: str) -> str:
    """Return the composed normal form: `é` as one character, as most systems write it."""
    return unicodedata.normalize("NFC", text)


def _ending_alike(name: str) -> str:
    """Return a name with its ending in lower case, where it is one of a video."""
    suffix = PurePosixPath(name).suffix
    return f"{name.removesuffix(suffix)}{suffix.lower()}" if is_video(name) else name


def _form_alike(name: str) -> str:
    return same_form(_ending_alike(name))


def _alike(name: str) -> str:
    return " ".join(unicodedata.normalize("NFKC", name).casefold().split())


Likeness = Callable[[str], str]
LIKENESS: tuple[Likeness, ...] = (str, _ending_alike, _form_alike)
"""What must be equal for two names to be one, the strictest first."""


@dataclass(frozen=True)
class VideoFile:
    """Where a video is, relative to the data root."""

    path: str
    """Empty where the file is absent."""
    expected: str
    """Where it should be, for messages."""
    others: tuple[str, ...] = ()
    """Further files of the same video."""
    is_known: bool = True
    """False for a video id that the data set cannot give a file name."""
    leaves_root: bool = False
    """The name or a symbolic link points out of the data root; such a file is never opened."""
    link: str = ""
    """Where the link leads that leaves the data root; empty where the name itself leaves it."""
    any_suffix: bool = False
    """Whether its name has no ending, so that all endings of videos were tried."""
    hint: str = ""
    """What is there in its place, for messages."""


class VideoFolders:
    """Video files by name, with or without ending.

    Each folder is listed once and names are looked up in the list, so no annotation makes a path.
    """

    def __init__(self, root: Root) -> None:
        self.root = root
        self._listed: dict[str, Listing] = {}

    def find(self, name: str, folders: Sequence[str], usual_suffix: str = ".avi") -> VideoFile:
        """Return the file of a video in the first folder that has it, whatever its ending."""
        any_suffix = not is_video(name)
        expected = str(PurePosixPath(folders[0], f"{name}{usual_suffix if any_suffix else ''}"))
        if name in ("", ".", "..") or any(mark in name for mark in "/\\\0"):
            return VideoFile("", expected, leaves_root=True)
        files = self.find_in(folders, name)
        if not files:
            return VideoFile("", expected, any_suffix=any_suffix, hint=self.hint(folders, name))
        return self.check(files[0], tuple(files[1:]))

    def find_in(self, folders: Sequence[str], name: str) -> list[str]:
        """Return the files of a name, those of the first folder first.

        Where a folder has the name as it is, files of names that are only alike are none.
        """
        for key in LIKENESS:
            files = [file for folder in folders for file in self._listing(folder).find(name, key)]
            if files:
                return files
        return []

    def check(self, path: str, others: tuple[str, ...] = ()) -> VideoFile:
        """Return a file that exists, unless it lies outside the root."""
        if (target := self.root.leads_out(path)) is not None:
            return VideoFile("", path, others, leaves_root=True, link=target)
        return VideoFile(path, path, others)

    def hint(self, folders: Sequence[str], name: str) -> str:
        """Say what is there that a person would take for an absent file."""
        for folder in folders:
            if broken := self.root.broken_link(str(PurePosixPath(folder, name))):
                return broken
        similar = [file for folder in folders for file in self._listing(folder).resembling(name)]
        return f"there is {similar[0]!r}" if similar else ""

    def _listing(self, folder: str) -> "Listing":
        if folder not in self._listed:
            there = _same_form(self.root, folder)
            self._listed[folder] = Listing(there, self.root.names(there))
        return self._listed[folder]


class Listing:
    """The videos of one folder, by the ways in which they are named."""

    def __init__(self, folder: str, names: Iterable[str]) -> None:
        files = [PurePosixPath(name) for name in names if is_video(name) and not is_companion(name)]
        files.sort(key=_rank)
        self._by: dict[Likeness, dict[str, list[str]]] = {}
        for key in (*LIKENESS, _alike):
            found = self._by[key] = defaultdict(list)
            for name, file in [(f.name, f) for f in files] + [(f.stem, f) for f in files]:
                found[key(name)].append(str(PurePosixPath(folder, file)))

    def find(self, name: str, key: Likeness) -> list[str]:
        """Return the files whose name, with or without ending, is the same by a key."""
        return self._by[key].get(key(name), [])

    def resembling(self, name: str) -> list[str]:
        """Return the files of names that a person takes for this one."""
        return self.find(name, _alike)


def is_companion(name: str) -> bool:
    """Whether another system has left a file beside a video, with the video's name in its own.

    `._clip.mp4` is what macOS writes for `clip.mp4` on disks and in archives of other systems.
    """
    return name.startswith("._")


def endings_tried(files: Iterable[VideoFile]) -> str:
    """Return a line that lists the endings, where the name of one of these files has none."""
    if not any(file.any_suffix for file in files):
        return ""
    return f"names without ending were tried with {', '.join(VIDEO_SUFFIXES)} in any case\n"


def _same_form(root: Root, folder: str) -> str:
    """Return a folder as it is spelled there, where only the normal form is another."""
    if folder.isascii() or root.has_folder(folder):
        return folder
    found = PurePosixPath()
    for part in PurePosixPath(folder).parts:
        there = [name for name in root.folders(str(found)) if same_form(name) == same_form(part)]
        found /= part if part in there or not there else min(there)
    return str(found)


def _rank(file: PurePosixPath) -> tuple[int, str]:
    return VIDEO_SUFFIXES.index(file.suffix.lower()), file.name
