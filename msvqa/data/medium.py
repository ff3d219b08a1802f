"""One medium: a video, a span of one, an image, a folder of frames or a record of a file."""

from dataclasses import dataclass
from pathlib import Path

IMAGE_SUFFIXES = (".jpg", ".jpeg", ".png", ".webp", ".bmp")


@dataclass(frozen=True)
class Medium:
    """One medium, as it travels to whatever reads it."""

    id: str
    path: str = ""
    """Full location; empty where it is not needed, or absent."""
    kind: str = "video"
    start: float | None = None
    end: float | None = None

    @property
    def has_span(self) -> bool:
        """Whether it is a part of its file."""
        return self.start is not None or self.end is not None

    @classmethod
    def of_file(cls, path: str | Path) -> "Medium":
        """Return the whole of a file, or of a folder of frames, by its name on this machine."""
        return cls(str(path), str(path), "frames" if Path(path).is_dir() else kind_of(path))


def kind_of(path: str | Path) -> str:
    """Return the kind of a file by its ending: `video`, or `image`."""
    return "image" if str(path).lower().endswith(IMAGE_SUFFIXES) else "video"
