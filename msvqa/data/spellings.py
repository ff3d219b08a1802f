"""The video that a cell of a table means: one id for each file, however it is spelled."""

from collections import defaultdict
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from functools import cache
from pathlib import PurePosixPath

from msvqa.data.annotations import Row
from msvqa.data.video_files import VideoFile, VideoFolders, is_video, same_form


@dataclass(frozen=True)
class Spelled:
    """A video as it is spelled: what a table calls it, and its file."""

    video_id: str
    file: VideoFile


class Spellings:
    """Leads every spelling of a video to its file.

    A video may be spelled with or without its ending and its folder, as a full path, with `\\` as
    on Windows, with spaces around it, in either normal form of Unicode, through a link.
    """

    def __init__(self, videos: VideoFolders, folders: Sequence[str], tops: Sequence[str]) -> None:
        """Prepare to look for videos.

        Args:
            videos: the folders of the data root.
            folders: those that are looked into for a relative name, the first one first.
            tops: spellings of the data root that full paths may begin with.
        """
        self._videos, self._root = videos, videos.root
        self._folders, self._tops = folders, tops
        self.resolve = cache(self._resolve)
        self._names: dict[str, str] = {}

    def _resolve(self, text: str) -> Spelled:
        """Return the video that a text means, tried as it is before it is tried otherwise."""
        as_usual = Spelled(self._id(text.strip()), self._find(self._id(text.strip())))
        spellings = (text, text.strip(), text.replace("\\", "/"), text.strip().replace("\\", "/"))
        for video_id in dict.fromkeys(map(self._id, spellings)):
            file = self._find(video_id)
            if file.path or file.leaves_root:
                return Spelled(video_id, file)
        if "\\" in text:
            slashed = as_usual.video_id.replace("\\", "/")
            hint = f"it has a backslash, as paths of Windows have, and there is no {slashed} either"
            return replace(as_usual, file=replace(as_usual.file, hint=hint))
        return as_usual

    def name(self, text: str) -> str:
        """Return one name for all spellings of a video: the path of its file where that is there.

        Of links to one file the name is the path that was asked for first.
        """
        found = self.resolve(text)
        named = found.file.path or found.video_id
        return self._names.setdefault(self._identity(found.video_id), named)

    def merge(self, rows: Sequence[Row]) -> tuple[list[Row], list[str]]:
        """Give all rows about one file the same video id; return them, and what to say of it."""
        spellings: dict[str, list[str]] = defaultdict(list)
        for video_id in dict.fromkeys(row.video_id for row in rows):
            spellings[self._identity(video_id)].append(video_id)
        several = [ids for ids in spellings.values() if len(ids) > 1]
        if not several:
            return list(rows), []
        id_of = {video_id: self._chosen(ids) for ids in several for video_id in ids}
        note = (
            f"{len(several)} x a video that is spelled in several ways and counts as one, first: "
            f"{', '.join(several[0])}"
        )
        return [replace(row, video_id=id_of.get(row.video_id, row.video_id)) for row in rows], [
            note
        ]

    def _identity(self, video_id: str) -> str:
        path = self.resolve(video_id).file.path
        # Of a file that is absent nothing but its name is known.
        return f"file {self._root.identify(path)}" if path else f"name {same_form(video_id)}"

    def _chosen(self, video_ids: Iterable[str]) -> str:
        """Return the fullest spelling, whatever the order of the rows."""
        return max(video_ids, key=lambda i: (i == self.resolve(i).file.path, len(i), i))

    def _id(self, text: str) -> str:
        """Give spellings of a path the same id: `./a.mp4` and `ROOT/a.mp4` are `a.mp4`."""
        if not text:
            return ""
        path = PurePosixPath(text)
        for top in self._tops:
            if path.is_relative_to(top):
                return str(path.relative_to(top))
        inside = self._root.name_of(text) if path.is_absolute() else None
        return inside or str(path)

    def _find(self, video_id: str) -> VideoFile:
        if self._root.inside(video_id) is None:
            return VideoFile("", video_id, leaves_root=True)
        tried = (self._root.inside(f"{folder or '.'}/{video_id}") for folder in self._folders)
        places = [place for place in tried if place]
        for place in places:
            if self._root.size(place) is not None:
                return self._videos.check(place)
        name = PurePosixPath(video_id).name
        parents = [str(PurePosixPath(place).parent) for place in places]
        folders = ["" if parent == "." else parent for parent in parents]
        if files := self._videos.find_in(folders, name):
            return self._videos.check(files[0], tuple(files[1:]))
        hint = self._videos.hint(folders, name)
        return VideoFile("", video_id, any_suffix=not is_video(video_id), hint=hint)
