"""One medium: a video, a span of one, an image, a folder of frames or a record of a file."""

from dataclasses import dataclass


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
