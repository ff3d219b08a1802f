"""Frames: T of a video, of a span of one, of an image or of a folder of images.

A store holds squares of `store_px`: with `draw: segments` several candidates of each part of the
medium, of which training draws one, else just the T frames. What is drawn, cropped and mirrored in
a step depends on seed, epoch and medium alone, whether there is a store or not.
"""

from functools import partial
from typing import Any, Literal
from zlib import crc32

import numpy as np
from pydantic import Field, model_validator

from msvqa.data.medium import Medium
from msvqa.data.processors.processor import Extractor, Processor, Way, decoding_facts
from msvqa.data.rand_augment import RandAugmentConfig, rand_augment
from msvqa.data.random_erasing import RandomErasingConfig, random_erasing
from msvqa.data.sampling import at_rate, candidates, middles, mvbench_frames
from msvqa.data.store import Arrays, ArraySpec, StoreSpec
from msvqa.data.video import Decoded, IsolatedDecoder, View, medium_file
from msvqa.errors import VideoError
from msvqa.recipe import Decoder
from msvqa.sections import NamedConfig
from msvqa.storage import Location

# Legend: T frames, K candidates for each, C squares cut out of a frame, S x S pixels of the store;
# W views of evaluation.

CROPPED_STORE_PX = 256
"""Pixels of the store where crops are random, unless the section says otherwise."""


class Frames(Processor):
    """Frames as uint8 (T, H, W, 3); with views in evaluation, or repeats, (W, T, H, W, 3).

    An image is one of T frames that are equal; batches of images alone have one of each.
    """

    class Config(NamedConfig):
        """Which frames, how large, and where they are kept."""

        name: str = "frames"
        frames: int = Field(default=8, ge=1, le=512)
        """T. The last frame of a short video is repeated. An image is one frame in batches of
        images alone (`batch.streams: apart`; evaluation always), T equal ones in mixed batches."""
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
        views: int = Field(default=1, ge=1, le=99)
        """`draw: segments`: in evaluation so many clips of a medium, each with another one of the
        candidates of each part, for objectives that average what they see."""
        crops: Literal[1, 3] = 1
        """`fit: crop`: 3 cuts squares out of a picture at both ends of its longer side and in the
        middle. Evaluation sees each of them in each of the `views`; training with `crop: random`
        draws one of them first, and else takes the middle one."""
        rand_augment: RandAugmentConfig | None = None
        """In training a few random changes of colour and shape, the same of all frames."""
        random_erasing: RandomErasingConfig | None = None
        """In training, after all else, a box of noise in some clips, the same box in all frames."""
        repeats: int = Field(default=1, ge=1, le=16)
        """In training so many clips of a medium side by side, each drawn and changed anew, for
        objectives that average what they see (repeated augmentation: Hoffer et al., 2020)."""
        flip: bool = False
        """In training mirror half of the media."""
        order: Literal["time", "shuffled"] = "time"
        """`shuffled`: a control, which says how much a score needs time: the T frames in another
        order for each medium, in training another one in each epoch."""
        store_px: int | None = Field(default=None, ge=16, le=1024)
        """Height and width of a kept frame; null: `size_px`, with random crops 256 at least."""
        decoder: Decoder = "pyav"
        """As in the section `clips`."""
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
            kept = self.candidates if self.draw == "segments" else 1
            if self.views > kept:
                raise ValueError(
                    f"views: {self.views} are wanted, and {kept} frames of each part are there: "
                    "raise candidates, with draw segments"
                )
            if self.crops > 1 and self.fit != "crop":
                raise ValueError(f"crops: {self.crops} needs fit crop: {self.fit} leaves nothing")
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
        count = config.frames * self.kept_of_each * config.crops
        settings: dict[str, Any] = {"draw": config.draw, "frames": config.frames, "fit": config.fit}
        if config.crops > 1:
            settings["crops"] = config.crops
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
            "" if config.crops == 1 else f"-{config.crops}crops",
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
            fit=config.fit if config.crops == 1 else "cover",
            decoder=config.decoder,
        )
        return FrameExtractor(view, config.timeout_s)

    def draw(self, arrays: Arrays, generator: np.random.Generator | None) -> Arrays:
        """Return `frames` (T, H, W, 3): one of each K candidates, cropped, resized, mirrored.

        In evaluation with several views (W, T, H, W, 3): of each `views` all `crops`; in training
        with `repeats` as many.
        """
        config = self.config
        kept = self._kept(arrays)  # (T, K, C, S, S, 3)
        if config.order == "shuffled":
            # Without chance the pixels decide: one order for all media could be learned.
            chance = generator or np.random.default_rng(crc32(kept.tobytes()))
            kept = kept[chance.permutation(config.frames)]
        if generator is not None:
            return {"frames": self._drawn(kept, generator)}
        places = (2 * np.arange(config.views) + 1) * self.kept_of_each // (2 * config.views)  # (W,)
        seen = kept[:, places].transpose(1, 2, 0, 3, 4, 5)  # (W, C, T, S, S, 3)
        views = self._resized(seen.reshape(-1, *kept.shape[3:]))  # (W·C·T, H, W, 3)
        views = views.reshape(-1, config.frames, *views.shape[1:])
        return {"frames": views[0] if len(views) == 1 else views}

    def _drawn(self, kept: np.ndarray, generator: np.random.Generator) -> np.ndarray:
        """Return the frames of a training step (T, H, W, 3), of several repeats (W, T, H, W, 3)."""
        clips = [self._clip(kept, generator) for _ in range(self.config.repeats)]
        return np.stack(clips) if len(clips) > 1 else clips[0]

    def _clip(self, kept: np.ndarray, generator: np.random.Generator) -> np.ndarray:
        config, each = self.config, self.kept_of_each
        chosen: Any = 0
        if each > 1:
            chosen = generator.integers(each, size=config.frames)
        square = config.crops // 2
        if config.crops > 1 and config.crop == "random":
            square = int(generator.integers(config.crops))
        frames: np.ndarray = kept[np.arange(config.frames), chosen, square]  # (T, S, S, 3)
        if config.crop == "random":
            frames = _random_square(frames, config.least_crop, generator)
        frames = self._resized(frames)
        if config.flip and generator.random() < 0.5:
            frames = frames[:, :, ::-1]
        if config.rand_augment is not None:
            frames = rand_augment(frames, config.rand_augment, generator)
        if config.random_erasing is not None:
            frames = random_erasing(frames, config.random_erasing, generator)
        return frames

    def _resized(self, frames: np.ndarray) -> np.ndarray:
        """Return frames (N, S, S, 3) in the size of a batch."""
        if frames.shape[1] == self.config.size_px:
            return frames
        from msvqa.data.resize import resize  # torch, which extraction does without

        return resize(frames, self.config.size_px)

    def _kept(self, arrays: Arrays) -> np.ndarray:
        """Return what is kept of a medium (T, K, C, S, S, 3)."""
        config, kept = self.config, arrays["frames"]
        return kept.reshape(config.frames, self.kept_of_each, config.crops, *kept.shape[1:])

    @property
    def pictures(self) -> Processor:
        """Frames are pixels."""
        return self

    def shown(self, arrays: Arrays) -> np.ndarray:
        """Return the frames of evaluation as one clip: the middle ones of several views."""
        middle = self._kept(arrays)[:, self.kept_of_each // 2, self.config.crops // 2]
        return self._resized(middle)[None]


class FrameExtractor(Extractor):
    """Decodes media of all kinds in a child process."""

    def __init__(self, view: View, timeout_s: float) -> None:
        self.timeout_s = timeout_s
        self._view, self._isolated = view, IsolatedDecoder(timeout_s)

    def made_of(self, decoded: Decoded) -> Arrays:
        """Return what is kept of a medium: its frames (T·K·C, S, S, 3)."""
        frames, size = decoded.frames[self._view.size_px], self._view.size_px
        return {"frames": _three_squares(frames, size) if self._view.fit == "cover" else frames}

    def arrays(self, medium: Medium) -> Arrays:
        """Return what is made of the frames of a medium."""
        return self.made_of(self.decoded(medium))

    def decoded(self, medium: Medium) -> Decoded:
        """Return the frames of a medium.

        Raises:
            VideoError: there are none to be had.
        """
        with medium_file(_of_pixels(medium)) as path:
            return self._noted(self._isolated.look(path, medium, self._view), medium)

    def close(self) -> None:
        """End the decoding process."""
        self._isolated.close()

    def _made(self, medium: Medium, facts: dict[str, Any]) -> tuple[Arrays, str]:
        with medium_file(_of_pixels(medium)) as path:
            facts |= self._isolated.facts(path)
            if medium.has_span:
                # Two spans of a file are no copies of each other.
                facts.pop("sha256", None)
            with self.clock.at("decoding"):
                decoded = self._isolated.look(path, medium, self._view)
        facts |= decoding_facts(decoded)
        with self.clock.at("computing"):
            arrays = self.made_of(decoded)
        return arrays, decoded.outcome


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


def _three_squares(frames: np.ndarray, size: int) -> np.ndarray:
    """Return the squares at the ends and in the middle of frames (N, H, W, 3), (N·3, S, S, 3)."""
    rest = np.array(frames.shape[1:3]) - size  # one of both is 0
    corners = [rest * step // 2 for step in range(3)]
    cut = [frames[:, top : top + size, left : left + size] for top, left in corners]
    return np.stack(cut, axis=1).reshape(-1, size, size, 3)


def _random_square(frames: np.ndarray, least: float, generator: np.random.Generator) -> np.ndarray:
    """Cut the same square out of all frames (T, S, S, 3)."""
    whole = frames.shape[1]
    side = max(1, round(whole * generator.uniform(least, 1) ** 0.5))
    top, left = generator.integers(whole - side + 1, size=2)
    return np.ascontiguousarray(frames[:, top : top + side, left : left + side])
