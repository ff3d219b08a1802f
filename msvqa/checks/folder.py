"""The videos of a folder without annotations, and what lies between them that is none."""

import os
from collections import defaultdict
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

from msvqa.data.video_files import UNFINISHED, is_companion, is_video

COMPANION_FOLDERS = (
    *("__MACOSX", ".AppleDouble", ".Trashes", ".Spotlight-V100", ".fseventsd", "@eaDir"),
    *("$RECYCLE.BIN", "System Volume Information", "lost+found"),
)
"""Folders of other systems: thumbnails, waste, and in archives of macOS a file for each file."""
COMPANIONS, UNFINISHED_VIDEOS = "companion files of other systems", "unfinished downloads"
LINKS = "links that lead outside, which data.follow_links=true follows"
UNREADABLE = "folders that cannot be read"
UNNAMEABLE = "videos whose name is no Unicode text, which no table can name"


@dataclass
class VideosOfFolder:
    """What was found below a folder; names are relative to it."""

    files: list[str] = field(default_factory=list)
    left_out: dict[str, list[str]] = field(default_factory=lambda: defaultdict(list))
    """What was passed over, by the reason."""

    def said(self) -> str:
        """Return how many were left out for which reason, with the first of each; or nothing."""
        reasons = [
            f"{len(names)} {reason} ({_shown(min(names))}{', …' if len(names) > 1 else ''})"
            for reason, names in self.left_out.items()
        ]
        return f"; left out: {', '.join(reasons)}" if reasons else ""


def find_videos(folder: Path, *, follow_links: bool = False) -> VideosOfFolder:
    """Return the videos in a folder and below it, each folder once.

    Links to folders are followed where they lead into `folder`, and elsewhere on demand.
    """
    found = VideosOfFolder()
    for place in _folders(folder, follow_links, found):
        for path in sorted(place.iterdir()):
            name, relative = path.name, str(path.relative_to(folder))
            if reason := _reason(name):
                found.left_out[reason].append(relative)
            elif is_video(name) and _is_file(path):
                inside = follow_links or path.resolve().is_relative_to(folder.resolve())
                (found.files if inside else found.left_out[LINKS]).append(relative)
    found.files.sort()
    return found


def _is_file(path: Path) -> bool:
    try:
        return path.is_file()
    except OSError:
        return False


def _folders(top: Path, follow_links: bool, found: VideosOfFolder) -> Iterator[Path]:
    inside, seen = os.path.realpath(top), set()
    waiting = [top]
    while waiting:
        place = waiting.pop()
        real, relative = os.path.realpath(place), str(place.relative_to(top))
        if real in seen:
            continue  # a link that leads back, or a second one to the same folder
        seen.add(real)
        if not (follow_links or Path(real).is_relative_to(inside)):
            found.left_out[LINKS].append(relative)
            continue
        try:
            with os.scandir(place) as entries:
                below = [entry.name for entry in entries if _is_folder(entry)]
        except PermissionError:
            found.left_out[UNREADABLE].append(relative)
            continue
        waiting += [place / name for name in below if name not in COMPANION_FOLDERS]
        for name in sorted(set(below).intersection(COMPANION_FOLDERS)):
            found.left_out[COMPANIONS].append(str((place / name).relative_to(top)))
        yield place


def _is_folder(entry: "os.DirEntry[str]") -> bool:
    try:
        return entry.is_dir()
    except OSError:  # a link in a circle, or to what nobody may see
        return False


def _reason(name: str) -> str:
    """Say why a file that looks like a video is passed over."""
    if is_companion(name):
        return COMPANIONS if is_video(name) else ""
    if name.lower().endswith(UNFINISHED):
        return UNFINISHED_VIDEOS if is_video(Path(name).stem) else ""
    return UNNAMEABLE if is_video(name) and _shown(name) != name else ""


def _shown(name: str) -> str:
    return os.fsencode(name).decode("utf-8", "backslashreplace")
