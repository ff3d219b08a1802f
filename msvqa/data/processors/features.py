"""Features: what frozen encoders see in the clips of a video, by us or from HDF5 files."""

import hashlib
import json
import zlib
from collections.abc import Mapping
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from msvqa.data.features import FeatureFiles
from msvqa.data.finite import as_stored
from msvqa.data.medium import Medium
from msvqa.data.processors.clips import Clips, DecodingExtractor, clip_sizes
from msvqa.data.processors.processor import Extractor, Processor
from msvqa.data.store import Arrays, ArraySpec, StoreSpec
from msvqa.data.video import Decoded
from msvqa.errors import StoreError
from msvqa.files import hash_file
from msvqa.models.encoders import ENCODERS
from msvqa.recipe import ClipsConfig, FeaturesConfig
from msvqa.sections import NamedConfig, resolve

if TYPE_CHECKING:
    from msvqa.models.encoders.encoder import Encoder

FRAMES_PER_PASS = 32
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
            decoder=clips.decoder if self.reads_files else "",
            encoders=self._encoders_identity() if self.reads_files else _files_identity(features),
        )

    def folder_name(self) -> str:
        """Return a name that says what made the features."""
        clips = self.config.clips
        names = [encoder.name for encoder, _ in self.encoders().values()]
        identity = json.dumps(self.spec().to_dict(), sort_keys=True)
        digest = hashlib.sha256(identity.encode()).hexdigest()[:8]
        origin = "-".join(names or ["hdf5"])
        return f"features-{clips.num_clips}x{clips.frames_per_clip}-{origin}-{digest}"

    def extractor(self) -> Extractor:
        """Return what encodes videos, or looks into the files."""
        if files := self.files():
            return FileExtractor(files, self.timeout_s)
        return FeatureExtractor(self.config, self.seed)

    def _encoders_identity(self) -> dict[str, Any]:
        return {
            part: _encoder_identity(config, self.seed)
            for part, (config, _) in self.encoders().items()
        }


class FeatureExtractor(DecodingExtractor):
    """Features of frozen encoders; decoder and encoders share a process's place in the cluster.

    Both frame sizes come from one decoding pass, and pixels never travel between workers.
    """

    def __init__(self, features: Features.Config, seed: int) -> None:
        super().__init__(features.clips, sorted({features.appearance_px, features.motion_px}))
        self._features, self._seed = features, seed

    def made_of(self, decoded: Decoded) -> Arrays:
        """Return appearance (C, F, D) and motion (C, D)."""
        frames = decoded.frames[self._features.appearance_px]  # (C, F, H, W, 3)
        clips = decoded.frames[self._features.motion_px]  # (C, F, H, W, 3)
        distinct, position = self._clip_decoder.distinct(decoded.num_frames)
        flat = frames.reshape(-1, *frames.shape[2:])[distinct]  # (distinct frames, H, W, 3)
        appearance = self._encode("appearance", flat, FRAMES_PER_PASS)[position]  # (C, F, D)
        motion = self._encode("motion", clips, CLIPS_PER_PASS)  # (C, D)
        return {"appearance": appearance, "motion": motion}

    @cached_property
    def _encoders(self) -> "dict[str, Encoder]":
        features = self._features
        parts = {"appearance": features.appearance, "motion": features.motion}
        return {part: _open_encoder(part, config, self._seed) for part, config in parts.items()}

    def _encode(self, part: str, pixels: np.ndarray, per_pass: int) -> np.ndarray:
        import torch

        encoder = self._encoders[part]
        device = next(encoder.parameters()).device
        with torch.inference_mode():
            passes = torch.split(torch.from_numpy(pixels), per_pass)
            found = [encoder(batch.to(device)).float().cpu() for batch in passes]
        features = torch.cat(found).numpy()
        return as_stored(features, self._features.dtype, f"{part} features of the encoder")


class FileExtractor(Extractor):
    """Features that another program left in HDF5 files, checked and copied."""

    def __init__(self, files: FeatureFiles, timeout_s: float) -> None:
        self._files, self.timeout_s = files, timeout_s

    def arrays(self, medium: Medium) -> Arrays:
        """Return the features of a video; its file is not read."""
        return self._files.read(medium.id)


def _open_encoder(part: str, config: NamedConfig | None, seed: int) -> "Encoder":
    import torch

    assert config is not None
    encoder_class = resolve(config.name, ENCODERS, "encoder")
    # Without weights the encoder is random: the same in every worker, another for each part.
    torch.manual_seed(seed + zlib.crc32(part.encode()))
    encoder: Encoder = encoder_class(config).eval()
    encoder.load_pretrained()
    encoder.to(device="cuda" if torch.cuda.is_available() else "cpu")
    for kind, layout in ((4, torch.channels_last), (5, torch.channels_last_3d)):
        for weight in (p for p in encoder.parameters() if p.ndim == kind):
            weight.data = weight.data.to(memory_format=layout)
    return encoder


def _encoder_identity(config: NamedConfig, seed: int) -> dict[str, Any]:
    identity: dict[str, Any] = config.model_dump(mode="json")
    weights = identity.pop("weights", None)
    if weights is None:
        return {**identity, "random_weights_of_seed": seed}
    if not Path(weights).is_file():
        raise StoreError(f"there is no file of weights {weights}")
    # The file's content, since it may have moved; and hashing takes a second at most.
    return {**identity, "weights_sha256": hash_file(Path(weights))}


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
