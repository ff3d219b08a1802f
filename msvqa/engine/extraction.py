"""What an extraction worker does with one video: decode it, encode it, or look it up in a file."""

import zlib
from abc import ABC, abstractmethod
from functools import cached_property, partial
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol

import numpy as np

from msvqa.data.finite import as_stored
from msvqa.data.sampling import sample_clips
from msvqa.data.store import Arrays, Entry
from msvqa.data.video import Decoded, IsolatedDecoder, video_file
from msvqa.errors import VideoError
from msvqa.models.encoders import ENCODERS
from msvqa.recipe import ClipsConfig, FeaturesConfig, Recipe
from msvqa.sections import NamedConfig, resolve

if TYPE_CHECKING:
    from msvqa.data.features import FeatureFiles
    from msvqa.models.encoders.encoder import Encoder

FRAMES_PER_PASS = 32
CLIPS_PER_PASS = 4


class Extractor(Protocol):
    """Makes the store entry of one video. A bad video becomes an entry that says why."""

    def extract(self, video_id: str, path: str) -> Entry:
        """Return the entry of a video."""

    def close(self) -> None:
        """Free what the extractor holds."""


def open_extractor(recipe: Recipe) -> Extractor:
    """Return the extractor of a recipe with features: by encoders, or from files."""
    features = recipe.features
    if features is None:
        return ClipExtractor(recipe.clips)
    if features.appearance is None:
        return FileExtractor(recipe.clips, features)
    return FeatureExtractor(recipe.clips, features, recipe.seed)


class DecodingExtractor(ABC):
    """Decodes a video in one pass and makes its arrays from the frames."""

    def __init__(self, clips: ClipsConfig, sizes: list[int]) -> None:
        self._clips = clips
        self._clip_decoder = ClipDecoder(clips, sizes)

    @abstractmethod
    def arrays(self, decoded: Decoded) -> Arrays:
        """Return what the store keeps of a video.

        Raises:
            VideoError: it is nothing that can be kept.
        """

    def extract(self, video_id: str, path: str) -> Entry:
        """Return the entry of a video."""
        facts: dict[str, Any] = {}
        try:
            with video_file(path) as file:
                facts = self._clip_decoder.facts(file)
                decoded = self._clip_decoder.decode(file)
            arrays = self.arrays(decoded)
        except VideoError as error:
            return rejected(video_id, error, facts, self._clips)
        facts |= decoding_facts(decoded)
        return Entry(video_id=video_id, outcome=decoded.outcome, facts=facts, arrays=arrays)

    def close(self) -> None:
        """End the decoding process."""
        self._clip_decoder.close()


class ClipExtractor(DecodingExtractor):
    """Frames of clips, as uint8."""

    def __init__(self, clips: ClipsConfig) -> None:
        super().__init__(clips, [clips.size_px])

    def arrays(self, decoded: Decoded) -> Arrays:
        """Return (C, F, H, W, 3) frames."""
        return {"clips": decoded.frames[self._clips.size_px]}


class FeatureExtractor(DecodingExtractor):
    """Features of frozen encoders; decoder and encoders share a process's place in the cluster.

    Both frame sizes come from one decoding pass, and pixels never travel between workers.
    """

    def __init__(self, clips: ClipsConfig, features: FeaturesConfig, seed: int) -> None:
        super().__init__(clips, sorted({features.appearance_px, features.motion_px}))
        self._features, self._seed = features, seed

    def arrays(self, decoded: Decoded) -> Arrays:
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


class FileExtractor:
    """Features that another program left in HDF5 files, checked and copied."""

    def __init__(self, clips: ClipsConfig, features: FeaturesConfig) -> None:
        self._clips, self._features = clips, features

    def extract(self, video_id: str, path: str) -> Entry:
        """Return the entry of a video; its file is not read."""
        try:
            arrays = self._files.read(video_id)
        except VideoError as error:
            return rejected(video_id, error, {}, self._clips)
        return Entry(video_id=video_id, outcome="ok", arrays=arrays)

    def close(self) -> None:
        """Nothing to free."""

    @cached_property
    def _files(self) -> "FeatureFiles":
        from msvqa.data.features import FeatureFiles

        return FeatureFiles(self._features, self._clips)


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


def decoding_facts(decoded: Decoded) -> dict[str, Any]:
    """Return the counts of the decoder."""
    found = decoded.probe
    return {
        "num_frames": found.num_frames,
        "header_frames": found.header_frames,
        "bad_packets": found.bad_packets,
        "corrupt_frames": found.corrupt_frames,
        "stream": found.stream,
        "problem": found.problem,
    }


def rejected(video_id: str, error: VideoError, facts: dict[str, Any], clips: ClipsConfig) -> Entry:
    """Return the entry of a video that yields nothing."""
    if error.outcome == "timeout":
        # With more time it is tried again.
        facts = facts | {"timeout_s": clips.timeout_s}
    return Entry(video_id=video_id, outcome=error.outcome, error=str(error), facts=facts)


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
