"""Frame features: frames of a video at a rate, each as what a frozen encoder makes of it.

What a batch holds is that of `vectors`: so models that learn from published frame features, one a
second, learn from videos of the user.
"""

from collections.abc import Mapping
from functools import partial
from typing import Annotated, Any, Literal

import numpy as np
from pydantic import Field

from msvqa.data.medium import Medium
from msvqa.data.processors.frames import FrameExtractor, Frames
from msvqa.data.processors.frozen_encoder import (
    FRAMES_PER_PASS,
    FrozenEncoder,
    Trial,
    encoder_identity,
)
from msvqa.data.processors.processor import Processor
from msvqa.data.processors.vectors import DRAWN, ROWS, Sampling
from msvqa.data.sampling import shown_at_rate
from msvqa.data.store import Arrays, ArraySpec, StoreSpec
from msvqa.data.video import Decoded, View
from msvqa.errors import VideoError
from msvqa.recipe import ENCODER, Decoder, Precision
from msvqa.sections import NamedConfig
from msvqa.storage import Location

# Legend: n frames of a medium at the rate, m <= T of them encoded, T rows of a batch, D numbers
# each, S x S pixels.


class FrameFeatures(Processor):
    """`vectors` (T, D) with `num_frames`, from a store."""

    class Config(NamedConfig):
        """Which frames, what sees them, and where the features are kept."""

        name: str = "frame_features"
        encoder: Annotated[NamedConfig, ENCODER]
        """Encoder of frames: `{name: efficientnet, weights: FILE}`, or `resnet`. Without weights it
        is random."""
        encoder_width: int = Field(ge=1)
        """D: what the encoder gives of a frame; EfficientNet-B3 1536, ResNet-50 2048."""
        frames: int = Field(default=32, ge=1, le=4096)
        """T"""
        fps: float = Field(default=1.0, gt=0, le=240)
        """Frames for each second: those that are shown in the middle of each 1/fps seconds."""
        sampling: Sampling = "strided"
        """What becomes of more frames than T, and of fewer: as in `vectors`. `strided`: frames at a
        whole number of frames from each other, and the last of fewer is repeated, as in the
        similarity systems; `middles`: the middle ones of T equal parts, fewer are filled up with
        zeros."""
        size_px: int = Field(default=224, ge=16, le=1024)
        """S; 300 is what EfficientNet-B3 was trained with."""
        fit: Literal["crop", "stretch"] = "crop"
        """`crop` keeps the square in the middle of a picture, `stretch` makes a square of all."""
        dtype: Literal["float16", "float32"] = "float16"
        """Of the store and of batches."""
        precision: Precision = "float32"
        """Number format in which the encoder computes, as in the section `features`."""
        compile: bool = False
        """Compile the encoder, as in the section `features`."""
        decoder: Decoder = "pyav"
        """As in the section `clips`."""
        store: Location | None = None
        """Folder of the store; by default inside the prepared folder."""
        timeout_s: float = Field(default=60.0, gt=0)
        """Longest time for decoding one medium; as much is given to reading it first."""

    config: Config

    @property
    def timeout_s(self) -> float:  # type: ignore[override]
        """Longest time for one medium."""
        return self.config.timeout_s

    @property
    def pictures(self) -> Processor:
        """Frames at the same rate."""
        config = self.config
        shared = ("frames", "fps", "size_px", "fit", "decoder", "timeout_s")
        fields = {name: getattr(config, name) for name in shared}
        return Frames(Frames.Config(draw="fps", **fields), self.section, self.seed)

    def sizes(self) -> dict[str, int | None]:
        """Return the width, and the number of rows."""
        return {"width": self.config.encoder_width, "frames": self.config.frames}

    def encoders(self) -> Mapping[str, tuple[NamedConfig, int]]:
        """Return the encoder of frames."""
        return {"encoder": (self.config.encoder, self.config.encoder_width)}

    def spec(self) -> StoreSpec:
        """Return what a store of frame features holds.

        Raises:
            StoreError: the file of weights is absent.
        """
        config = self.config
        shape = (config.frames, config.encoder_width)
        return StoreSpec(
            kind="frame_features",
            arrays={
                "vectors": ArraySpec(shape=shape, dtype=config.dtype),
                "num_frames": ArraySpec(shape=(), dtype="int64"),
            },
            size_px={"vectors": config.size_px},
            decoder=config.decoder,
            encoders={"encoder": self._encoder_identity()},
            settings={"fps": config.fps, "sampling": config.sampling, "fit": config.fit},
        )

    def folder_name(self) -> str:
        """Return a name that says what made the features."""
        config = self.config
        size = f"{config.frames}x{config.encoder_width}"
        return f"frame_features-{size}-{config.encoder.name}-{self.spec().digest}"

    def extractor(self) -> "FrameFeatureExtractor":
        """Return what decodes and encodes."""
        return FrameFeatureExtractor(self)

    def _encoder_identity(self) -> dict[str, Any]:
        config, precision = self.config, self.precision_of("encoder")
        return encoder_identity(config.encoder, self.seed, precision, compiles=config.compile)


class FrameFeatureExtractor(FrameExtractor):
    """Decodes the frames of a medium in a child process, and encodes them here."""

    def __init__(self, processor: FrameFeatures) -> None:
        config = processor.config
        choose = partial(_chosen, count=config.frames, fps=config.fps, sampling=config.sampling)
        view = View(choose=choose, size_px=config.size_px, fit=config.fit, decoder=config.decoder)
        super().__init__(view, config.timeout_s)
        self._config = config
        precision = processor.precision_of("encoder")
        compiles = processor.compiles
        self._encoder = FrozenEncoder("frame", config.encoder, processor.seed, precision, compiles)

    def trials(self, medium: Medium) -> list[Trial]:
        """Try number formats of the encoder on the frames of a medium."""
        frames = self.decoded(medium).frames[self._config.size_px]
        return [self._encoder.trial("encoder", frames, FRAMES_PER_PASS)]

    def made_of(self, decoded: Decoded) -> Arrays:
        """Return `vectors` (T, D) and `num_frames` of frames (m, S, S, 3)."""
        config = self._config
        frames = decoded.frames[config.size_px]
        rows = self._encoder.encode(frames, FRAMES_PER_PASS, config.dtype)  # (m, D)
        return DRAWN[config.sampling](rows, config.frames)


def _chosen(times: np.ndarray, count: int, fps: float, sampling: Sampling) -> np.ndarray:
    """Return the frames that are encoded, int64 (m,): all n at the rate, or T of more.

    What is drawn of features alone is drawn of the frames: those in between need no encoder.
    """
    if np.isnan(times).any():
        raise VideoError(
            "no_times", "nobody knows when its frames are shown, and frames are taken by seconds"
        )
    shown = shown_at_rate(times, fps)
    return shown if len(shown) <= count else shown[ROWS[sampling](len(shown), count)]
