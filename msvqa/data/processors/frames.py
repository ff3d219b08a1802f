"""Frames: T of a video, of a span of one, of an image or of a folder of images.

A store holds squares of `store_px`: with `draw: segments` several candidates of each part of the
medium, of which training draws one, else just the T frames. What is drawn, cropped and mirrored in
a step depends on seed, epoch and medium alone, whether there is a store or not.
"""

from functools import partial
from typing import Any, Literal

import numpy as np
from pydantic import Field, model_validator

from msvqa.data.medium import Medium
from msvqa.data.processors.processor import Extractor, Processor, Way, decoding_facts
from msvqa.data.sampling import at_rate, candidates, middles, mvbench_frames
from msvqa.data.store import Arrays, ArraySpec, StoreSpec
from msvqa.data.video import Decoded, IsolatedDecoder, View, medium_file
from msvqa.errors import VideoError
from msvqa.sections import NamedConfig
from msvqa.storage import Location

# Legend: T frames, K candidates for each, S x S pixels of the store.

CROPPED_STORE_PX = 256
"""Pixels of the store where crops are random, unless the section says otherwise."""


class Frames(Processor):
    """Frames as uint8 (T, H, W, 3)."""

    class Config(NamedConfig):
        """Which frames, how large, and where they are kept."""

        name: str = "frames"
        frames: int = Field(default=8, ge=1, le=512)
        """T. An image is repeated as often, and so is the last frame of a short video."""
        draw: Literal["segments", "middle", "fps", "mvbench"] = "segments"
        """`segments`: a frame of each of T equal parts, in training a random one, else the one in
        the middle; `middle`: always that one; `fps`: frames at a rate, of more than T every so
        many; `mvbench`: as the evaluation of MVBench draws them, spans included."""
        fps: float = Field(default=1.0, gt=0, le=240)
        """`draw: fps`: frames for each second."""
        candidates: int = Field(default=5, ge=1, le=99)
        """`draw: segments`: frames of each part that training draws from; odd, so that one of them
        is in the middle."""
        size_px: int = Field(default=224, ge=16, le=1024)
        """Height and width of a frame of a batch."""
        fit: Literal["crop", "stretch"] = "crop"
        """`crop` keeps the square in the middle of a picture, `stretch` makes a square of all."""
        crop: Literal["random", "center"] = "center"
        """`random`: in training a random square of the kept one, the same for all T frames."""
        least_crop: float = Field(default=0.5, gt=0, le=1)
        """`crop: random`: smallest area of it, as a part of the whole."""
        flip: bool = False
        """In training mirror half of the media."""
        store_px: int | None = Field(default=None, ge=16, le=1024)
        """Height and width of a kept frame; null: `size_px`, with random crops 256 at least."""
        decoder: Literal["pyav", "decord"] = "pyav"
        cache: Literal["store", "none"] = "store"
        """`store` extracts every medium once; `none` decodes while training runs."""
        store: Location | None = None
        """Folder of the store; by default inside the prepared folder."""
        timeout_s: float = Field(default=60.0, gt=0)
        """Longest time for decoding one medium; as much is given to reading it first."""

        @model_validator(mode="after")
        def _sizes_fit(self) -> "Frames.Config":
            if not self.candidates % 2:
                raise ValueError(f"candidates: must be odd, it is {self.candidates}")
            if self.store_px is not None and self.store_px < self.size_px:
                raise ValueError(f"store_px: {self.store_px} is less than size_px {self.size_px}")
            return self

    config: Config

    @property
    def timeout_s(self) -> float:  # type: ignore[override]
        """Longest time for one medium."""
        return self.config.timeout_s

    @property
    def way(self) -> Way:  # type: ignore[override]
        """From a store, unless media are decoded while training runs."""
        return "store" if self.config.cache == "store" else "stream"

    @property
    def kept_px(self) -> int:
        """Height and width of a frame as it is extracted."""
        if self.config.store_px is not None:
            return self.config.store_px
        size = self.config.size_px
        return size if self.config.crop == "center" else max(size, CROPPED_STORE_PX)

    @property
    def kept_of_each(self) -> int:
        """Candidates for each of the T frames."""
        return self.config.candidates if self.config.draw == "segments" else 1

    def sizes(self) -> dict[str, int | None]:
        """Return the number of frames, and their height and width."""
        return {"frames": self.config.frames, "size_px": self.config.size_px}

    def spec(self) -> StoreSpec:
        """Return what a store of frames holds."""
        config, size = self.config, self.kept_px
        count = config.frames * self.kept_of_each
        settings: dict[str, Any] = {"draw": config.draw, "frames": config.frames, "fit": config.fit}
        if config.draw == "fps":
            settings["fps"] = config.fps
        return StoreSpec(
            kind="frames",
            arrays={"frames": ArraySpec(shape=(count, size, size, 3), dtype="uint8")},
            num_clips=1,
            frames_per_clip=count,
            size_px={"frames": size},
            decoder=config.decoder,
            settings=settings,
        )

    def folder_name(self) -> str:
        """Return a name that says which frames are kept."""
        config = self.config
        parts = [
            f"frames-{config.frames}",
            f"x{self.kept_of_each}" if config.draw == "segments" else "",
            f"-{config.draw}",
            f"{config.fps:g}" if config.draw == "fps" else "",
            f"-{self.kept_px}px",
            "" if config.fit == "crop" else f"-{config.fit}",
            "" if config.decoder == "pyav" else f"-{config.decoder}",
        ]
        return "".join(parts)

    def extractor(self) -> "FrameExtractor":
        """Return a decoder of frames."""
        config = self.config
        choose = {
            "segments": partial(_candidates, count=config.frames, each=self.kept_of_each),
            "middle": partial(_middles, count=config.frames),
            "fps": partial(_at_rate, count=config.frames, fps=config.fps),
        }.get(config.draw)
        view = View(
            choose=choose,
            select=None if choose else partial(mvbench_frames, count=config.frames),
            size_px=self.kept_px,
            fit=config.fit,
            decoder=config.decoder,
        )
        return FrameExtractor(view, config.timeout_s)

    def draw(self, arrays: Arrays, generator: np.random.Generator | None) -> Arrays:
        """Return `frames` (T, H, W, 3): one of each K candidates, cropped, resized, mirrored."""
        config, each = self.config, self.kept_of_each
        kept = arrays["frames"].reshape(config.frames, each, *arrays["frames"].shape[1:])
        chosen: Any = each // 2
        if generator is not None and each > 1:
            chosen = generator.integers(each, size=config.frames)
        frames = kept[np.arange(config.frames), chosen]  # (T, S, S, 3)
        if generator is not None and config.crop == "random":
            frames = _random_square(frames, config.least_crop, generator)
        if frames.shape[1] != config.size_px:
            from msvqa.data.resize import resize  # torch, which extraction does without

            frames = resize(frames, config.size_px)
        if generator is not None and config.flip and generator.random() < 0.5:
            frames = frames[:, :, ::-1]
        return {"frames": frames}

    @property
    def pictures(self) -> Processor:
        """Frames are pixels."""
        return self

    def shown(self, arrays: Arrays) -> np.ndarray:
        """Return the frames of evaluation as one clip."""
        return self.draw(arrays, None)["frames"][None]


class FrameExtractor(Extractor):
    """Decodes media of all kinds in a child process."""

    def __init__(self, view: View, timeout_s: float) -> None:
        self.timeout_s = timeout_s
        self._view, self._isolated = view, IsolatedDecoder(timeout_s)

    def made_of(self, decoded: Decoded) -> Arrays:
        """Return what is kept of a medium: its frames (T·K, S, S, 3)."""
        return {"frames": decoded.frames[self._view.size_px]}

    def arrays(self, medium: Medium) -> Arrays:
        """Return what is made of the frames of a medium."""
        with medium_file(_of_pixels(medium)) as path:
            return self.made_of(self._isolated.look(path, medium, self._view))

    def close(self) -> None:
        """End the decoding process."""
        self._isolated.close()

    def _made(self, medium: Medium, facts: dict[str, Any]) -> tuple[Arrays, str]:
        with medium_file(_of_pixels(medium)) as path:
            facts |= self._isolated.facts(path)
            if medium.has_span:
                # Two spans of a file are no copies of each other.
                facts.pop("sha256", None)
            decoded = self._isolated.look(path, medium, self._view)
        facts |= decoding_facts(decoded)
        return self.made_of(decoded), decoded.outcome


def _of_pixels(medium: Medium) -> Medium:
    if medium.kind == "record":
        raise VideoError(
            "unfit", f"{medium.path}: a record has no frames; processor vectors takes it"
        )
    return medium


def _candidates(times: np.ndarray, count: int, each: int) -> np.ndarray:
    return candidates(len(times), count, each)


def _middles(times: np.ndarray, count: int) -> np.ndarray:
    return middles(len(times), count)


def _at_rate(times: np.ndarray, count: int, fps: float) -> np.ndarray:
    if np.isnan(times).any():
        raise VideoError("no_times", "nobody knows when the frames are shown; draw segments")
    return at_rate(times, count, fps)


def _random_square(frames: np.ndarray, least: float, generator: np.random.Generator) -> np.ndarray:
    """Cut the same square out of all frames (T, S, S, 3)."""
    whole = frames.shape[1]
    side = max(1, round(whole * generator.uniform(least, 1) ** 0.5))
    top, left = generator.integers(whole - side + 1, size=2)
    return np.ascontiguousarray(frames[:, top : top + side, left : left + side])
