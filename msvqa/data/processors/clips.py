"""Clips: frames of a video around equally distant places, at one size."""

from abc import abstractmethod
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np

from msvqa.data.medium import Medium
from msvqa.data.processors.processor import Extractor, Processor, Way, decoding_facts
from msvqa.data.sampling import sample_clips
from msvqa.data.store import Arrays, ArraySpec, StoreSpec
from msvqa.data.video import Decoded, IsolatedDecoder, video_file
from msvqa.errors import VideoError
from msvqa.recipe import ClipsConfig
from msvqa.sections import NamedConfig


class Clips(Processor):
    """Clips as uint8."""

    class Config(ClipsConfig, NamedConfig):
        """The section `clips` with a name."""

        name: str = "clips"

    config: Config

    @property
    def timeout_s(self) -> float:  # type: ignore[override]
        """Longest time for one video."""
        return self.config.timeout_s

    @property
    def way(self) -> Way:  # type: ignore[override]
        """From a store, unless videos are decoded while training runs."""
        return "store" if self.config.cache == "store" else "stream"

    def sizes(self) -> dict[str, int | None]:
        """Return numbers of clips and frames, and height and width of a frame."""
        return clip_sizes(self.config) | {"appearance_width": None, "motion_width": None}

    def spec(self) -> StoreSpec:
        """Return what a clip store holds."""
        clips = self.config
        shape = (clips.num_clips, clips.frames_per_clip, clips.size_px, clips.size_px, 3)
        return StoreSpec(
            kind="clips",
            arrays={"clips": ArraySpec(shape=shape, dtype="uint8")},
            num_clips=clips.num_clips,
            frames_per_clip=clips.frames_per_clip,
            size_px={"clips": clips.size_px},
            decoder=clips.decoder,
        )

    def folder_name(self) -> str:
        """Return a name that says how the clips are made."""
        clips = self.config
        decoder = "" if clips.decoder == "pyav" else f"-{clips.decoder}"
        name = f"{clips.num_clips}x{clips.frames_per_clip}"
        return f"clips-{name}-{clips.size_px}px{decoder}"

    def extractor(self) -> "ClipExtractor":
        """Return a decoder of clips."""
        return ClipExtractor(self.config)

    @property
    def pictures(self) -> Processor:
        """Clips are pixels."""
        return self

    def shown(self, arrays: Arrays) -> np.ndarray:
        """Return the clips."""
        return arrays["clips"]


def clip_sizes(clips: ClipsConfig) -> dict[str, int | None]:
    """Return the sizes that a section `clips` gives."""
    return {
        "num_clips": clips.num_clips,
        "frames_per_clip": clips.frames_per_clip,
        "size_px": clips.size_px,
    }


class DecodingExtractor(Extractor):
    """Decodes a video in one pass and makes its arrays from the frames of its clips."""

    def __init__(self, clips: ClipsConfig, sizes: list[int]) -> None:
        self.timeout_s = clips.timeout_s
        self._clip_decoder = ClipDecoder(clips, sizes)

    @abstractmethod
    def made_of(self, decoded: Decoded) -> Arrays:
        """Return what the store keeps of a video.

        Raises:
            VideoError: it is nothing that can be kept.
        """

    def arrays(self, medium: Medium) -> Arrays:
        """Return the arrays of a video."""
        return self.made_of(self.decoded(medium))

    def decoded(self, medium: Medium) -> Decoded:
        """Return the frames of a video's clips in all sizes.

        Raises:
            VideoError: there are none to be had.
        """
        _need_whole_video(medium)
        return self._noted(self._clip_decoder.decode(medium.path), medium)

    def close(self) -> None:
        """End the decoding process."""
        self._clip_decoder.close()

    def _made(self, medium: Medium, facts: dict[str, Any]) -> tuple[Arrays, str]:
        _need_whole_video(medium)
        with video_file(medium.path) as file:
            facts |= self._clip_decoder.facts(file)
            with self.clock.at("decoding"):
                decoded = self._clip_decoder.decode(file)
        with self.clock.at("computing"):
            arrays = self.made_of(decoded)
        facts |= decoding_facts(decoded)
        return arrays, decoded.outcome


def _need_whole_video(medium: Medium) -> None:
    if medium.kind != "video" or medium.has_span:
        what = "a span of a video" if medium.kind == "video" else f"a medium of kind {medium.kind}"
        raise VideoError("unfit", f"{medium.path}: {what} has no clips; processor frames takes it")


class ClipExtractor(DecodingExtractor):
    """Frames of clips, as uint8."""

    def __init__(self, clips: ClipsConfig) -> None:
        super().__init__(clips, [clips.size_px])
        self._size_px = clips.size_px

    def made_of(self, decoded: Decoded) -> Arrays:
        """Return (C, F, H, W, 3) frames."""
        return {"clips": decoded.frames[self._size_px]}


class ClipDecoder:
    """Decodes the clips of a recipe in a child process."""

    def __init__(self, clips: ClipsConfig, sizes: list[int]) -> None:
        self._plan = partial(
            sample_clips, num_clips=clips.num_clips, frames_per_clip=clips.frames_per_clip
        )
        self._sizes, self._decoder = sizes, clips.decoder
        self._isolated = IsolatedDecoder(clips.timeout_s)

    def facts(self, path: Path) -> dict[str, Any]:
        """Return size and hash of a video file; nothing where there is no such file.

        Raises:
            VideoError: it cannot be read to its end in time.
        """
        return self._isolated.facts(path)

    def decode(self, path: str | Path) -> Decoded:
        """Return the clips in all sizes.

        Raises:
            VideoError: there are no frames to be had.
        """
        return self._isolated(path, self._plan, self._sizes, self._decoder)

    def distinct(self, num_frames: int) -> tuple[np.ndarray, np.ndarray]:
        """Return where each planned frame first appears, and which of these every place shows."""
        planned = self._plan(num_frames)
        _, first, position = np.unique(planned, return_index=True, return_inverse=True)
        return first, position.reshape(planned.shape)

    def close(self) -> None:
        """End the decoding process."""
        self._isolated.close()
