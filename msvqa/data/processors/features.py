"""Features: what frozen encoders see in the clips of a video, by us or from HDF5 files."""

import copy
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

from msvqa.data.features import FeatureFiles
from msvqa.data.medium import Medium
from msvqa.data.processors.clips import Clips, DecodingExtractor, clip_sizes
from msvqa.data.processors.frozen_encoder import (
    FRAMES_PER_PASS,
    FrozenEncoder,
    Trial,
    encoder_identity,
)
from msvqa.data.processors.processor import Extractor, Processor
from msvqa.data.store import Arrays, ArraySpec, StoreSpec
from msvqa.data.video import Decoded
from msvqa.errors import StoreError
from msvqa.recipe import ClipsConfig, FeaturesConfig
from msvqa.sections import NamedConfig

CLIPS_PER_PASS = 4


class Features(Processor):
    """Appearance of every frame and motion of every clip."""

    class Config(FeaturesConfig, NamedConfig):
        """The section `features` with a name, and the clips that the encoders see."""

        name: str = "features"
        clips: ClipsConfig = ClipsConfig()

    config: Config

    @property
    def reads_files(self) -> bool:  # type: ignore[override]
        """Whether videos are needed; not where the features come from HDF5 files."""
        return self.config.appearance_hdf5 is None

    @property
    def timeout_s(self) -> float:  # type: ignore[override]
        """Longest time for one video."""
        return self.config.clips.timeout_s

    @property
    def resides_on_device(self) -> bool:
        """Whether a GPU holds the features of a whole split."""
        return self.config.resident == "device"

    @property
    def pictures(self) -> Processor:
        """The clips that the encoders see."""
        clips = self.config.clips
        return Clips(Clips.Config(**dict(clips)), "clips", self.seed)

    def sizes(self) -> dict[str, int | None]:
        """Return the sizes of the clips and the widths of the features."""
        return clip_sizes(self.config.clips) | {
            "appearance_width": self.config.appearance_width,
            "motion_width": self.config.motion_width,
        }

    def encoders(self) -> Mapping[str, tuple[NamedConfig, int]]:
        """Return the encoders of frames and of clips; none where files are read."""
        features = self.config
        parts = {
            "appearance": (features.appearance, features.appearance_width),
            "motion": (features.motion, features.motion_width),
        }
        return {part: (config, width) for part, (config, width) in parts.items() if config}

    @property
    def decoder(self) -> str:
        """Back end that reads videos; empty where files are read."""
        return self.config.clips.decoder if self.reads_files else ""

    @property
    def decoder_key(self) -> str:
        """Key of the recipe that names the back end."""
        return "clips.decoder" if self.section == "features" else f"{self.section}.clips.decoder"

    def read_by(self, decoder: str) -> Processor:
        """Return the processor with another back end."""
        other = copy.copy(self)
        clips = self.config.clips.model_copy(update={"decoder": decoder})
        other.config = self.config.model_copy(update={"clips": clips})
        return other

    def files(self) -> FeatureFiles | None:
        """Return the feature files; None where encoders make the features."""
        return None if self.reads_files else FeatureFiles(self.config, self.config.clips)

    def spec(self) -> StoreSpec:
        """Return what a feature store holds.

        Raises:
            StoreError: a file of weights or features is absent.
        """
        features, clips = self.config, self.config.clips
        frames = (clips.num_clips, clips.frames_per_clip, features.appearance_width)
        motion = (clips.num_clips, features.motion_width)
        return StoreSpec(
            kind="features",
            arrays={
                "appearance": ArraySpec(shape=frames, dtype=features.dtype),
                "motion": ArraySpec(shape=motion, dtype=features.dtype),
            },
            num_clips=clips.num_clips,
            frames_per_clip=clips.frames_per_clip,
            size_px={"appearance": features.appearance_px, "motion": features.motion_px}
            if self.reads_files
            else {},
            decoder=self.decoder,
            encoders=self._encoders_identity() if self.reads_files else _files_identity(features),
        )

    def folder_name(self) -> str:
        """Return a name that says what made the features."""
        clips = self.config.clips
        names = [encoder.name for encoder, _ in self.encoders().values()]
        origin = "-".join(names or ["hdf5"])
        return f"features-{clips.num_clips}x{clips.frames_per_clip}-{origin}-{self.spec().digest}"

    def extractor(self) -> Extractor:
        """Return what encodes videos, or looks into the files."""
        if files := self.files():
            return FileExtractor(files, self.timeout_s)
        return FeatureExtractor(self)

    def _encoders_identity(self) -> dict[str, Any]:
        compiles = self.config.compile
        return {
            part: encoder_identity(config, self.seed, self.precision_of(part), compiles=compiles)
            for part, (config, _) in self.encoders().items()
        }


class FeatureExtractor(DecodingExtractor):
    """Features of frozen encoders; decoder and encoders share a process's place in the cluster.

    Both frame sizes come from one decoding pass, and pixels never travel between workers.
    """

    def __init__(self, processor: Features) -> None:
        features = processor.config
        super().__init__(features.clips, sorted({features.appearance_px, features.motion_px}))
        self._features = features
        self._appearance, self._motion = (
            FrozenEncoder(
                part, config, processor.seed, processor.precision_of(part), processor.compiles
            )
            for part, (config, _) in processor.encoders().items()
        )

    def trials(self, medium: Medium) -> list[Trial]:
        """Try number formats of both encoders on the clips of a video."""
        decoded = self.decoded(medium)
        flat, clips, _ = self._seen(decoded)
        return [
            self._appearance.trial("appearance", flat, FRAMES_PER_PASS),
            self._motion.trial("motion", clips, CLIPS_PER_PASS),
        ]

    def _seen(self, decoded: Decoded) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """Return distinct frames (N, H, W, 3), clips (C, F, H, W, 3), and which frame is where."""
        frames = decoded.frames[self._features.appearance_px]  # (C, F, H, W, 3)
        distinct, position = self._clip_decoder.distinct(decoded.num_frames)
        flat = frames.reshape(-1, *frames.shape[2:])[distinct]  # (N, H, W, 3)
        return flat, decoded.frames[self._features.motion_px], position  # position (C, F)

    def made_of(self, decoded: Decoded) -> Arrays:
        """Return appearance (C, F, D) and motion (C, D)."""
        flat, clips, position = self._seen(decoded)
        dtype = self._features.dtype
        appearance = self._appearance.encode(flat, FRAMES_PER_PASS, dtype)[position]  # (C, F, D)
        motion = self._motion.encode(clips, CLIPS_PER_PASS, dtype)  # (C, D)
        return {"appearance": appearance, "motion": motion}


class FileExtractor(Extractor):
    """Features that another program left in HDF5 files, checked and copied."""

    def __init__(self, files: FeatureFiles, timeout_s: float) -> None:
        self._files, self.timeout_s = files, timeout_s

    def arrays(self, medium: Medium) -> Arrays:
        """Return the features of a video; its file is not read."""
        return self._files.read(medium.id)


def _files_identity(features: FeaturesConfig) -> dict[str, Any]:
    files = {"appearance": features.appearance_hdf5, "motion": features.motion_hdf5}
    for file in files.values():
        if not Path(str(file)).is_file():
            raise StoreError(f"there is no file of features {file}")
    # Not the hash of the content: these files have gigabytes.
    return {
        part: {"file": Path(str(file)).name, "bytes": Path(str(file)).stat().st_size}
        for part, file in files.items()
    }
