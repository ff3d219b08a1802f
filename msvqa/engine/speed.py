"""Speed: how fast this machine decodes and computes, and how many decode workers a device needs.

The work of one video is counted for the published encoders, ResNet-101 and 3D ResNeXt-101.
"""

import math
import os
import tempfile
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from fractions import Fraction
from functools import partial
from pathlib import Path

import av
import numpy as np
import torch

from msvqa.data.sampling import sample_clips
from msvqa.data.video import decode
from msvqa.engine.operations import best_time, product_flops
from msvqa.engine.precision import TYPES, name_of
from msvqa.errors import VideoError
from msvqa.recipe import ClipsConfig

# Multiply-add = 2 operations, forward pass.
RESNET_101_FLOPS = 15.6e9
"""One frame of 224 px."""
RESNEXT_101_FLOPS = 19.1e9
"""One clip of 16 frames of 112 px."""
EXTRACTION_PX = (224, 112)
TRANSPORT = 0.1
"""Extra work of a worker that decodes and computes, compared with a plain loop."""
UTILISATION = 0.8
"""Share of its time that a core can give to decoding."""
CLIPS_TIMED = 5


@dataclass(frozen=True, kw_only=True)
class Speed:
    """What was measured on this machine."""

    device: str
    devices: int
    cpus: int
    gemm_flops: dict[str, float]
    """Operations per second of one matrix product, by type."""
    encoder_flops: float
    """Operations per second that a batch of frames reaches in ResNet-101."""
    decode_s: float
    """Processor seconds for one video on one core, in all frame sizes of extraction."""
    video_flops: float
    """Operations for the features of one video."""

    @property
    def computed_per_s(self) -> float:
        """Videos per second that the devices can encode."""
        return self.devices * self.encoder_flops / self.video_flops

    @property
    def decoded_per_s(self) -> float:
        """Videos per second that all cores can decode."""
        return self.cpus * UTILISATION / (self.decode_s * (1 + TRANSPORT))

    def extracted_per_s(self, *, encodes: bool) -> float:
        """Return the videos per second that come out at best.

        Args:
            encodes: whether the published encoders see the videos, on a machine without GPU with
                the cores that decode; else frames are kept.
        """
        if not encodes:
            return self.decoded_per_s
        if self.device == "cpu":
            return 1 / (1 / self.decoded_per_s + 1 / self.computed_per_s)
        return min(self.decoded_per_s, self.computed_per_s)

    @property
    def decode_workers(self) -> int:
        """Cores that keep the devices busy; on a machine without GPU all work shares the cores."""
        if self.device == "cpu":
            return self.cpus
        needed = self.computed_per_s * self.decode_s * (1 + TRANSPORT) / UTILISATION
        return min(self.cpus, math.ceil(needed))

    @property
    def limit(self) -> str:
        """The slower side: `decoding` or `computing`."""
        return "decoding" if self.decoded_per_s < self.computed_per_s else "computing"


def measure(
    clips: ClipsConfig, videos: Sequence[Path] = (), sizes_px: Sequence[int] = EXTRACTION_PX
) -> Speed:
    """Time one matrix product, one encoder batch and the decoding of some videos.

    Args:
        clips: number and length of the clips.
        videos: files to decode; a drawn video of 10 s where none is given.
        sizes_px: height, equal to width, of the frames that are made of each video.
    """
    device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    cpus = len(os.sched_getaffinity(0))
    with _threads(cpus):
        gemm = {name_of(kind): product_flops(device, kind) for kind in TYPES.values()}
        encoder = _encoder_flops(device)
    return Speed(
        device=torch.cuda.get_device_name() if device.type == "cuda" else "cpu",
        devices=torch.cuda.device_count() if device.type == "cuda" else 1,
        cpus=cpus,
        gemm_flops=gemm,
        encoder_flops=encoder,
        decode_s=_decode_s(clips, videos, sizes_px),
        video_flops=video_flops(clips),
    )


@contextmanager
def _threads(number: int) -> Iterator[None]:
    """Compute with so many threads in the block: OMP_NUM_THREADS is of a process, not a machine."""
    before = torch.get_num_threads()
    torch.set_num_threads(number)
    try:
        yield
    finally:
        torch.set_num_threads(before)


def video_flops(clips: ClipsConfig) -> float:
    """Return the operations for the features of one video at the sizes of extraction."""
    frames = clips.num_clips * clips.frames_per_clip
    return frames * (RESNET_101_FLOPS + RESNEXT_101_FLOPS / 16)


@torch.inference_mode()
def _encoder_flops(device: torch.device) -> float:
    """Return the speed in the type that is faster: on some processors that is not bf16."""
    from torchvision.models import resnet101

    frames = 128 if device.type == "cuda" else 4
    network = resnet101(weights=None).eval().to(device, memory_format=torch.channels_last)
    pixels = torch.rand(frames, 3, 224, 224, device=device)
    pixels = pixels.contiguous(memory_format=torch.channels_last)
    times = []
    for kind in TYPES.values():
        with torch.autocast(device.type, dtype=torch.bfloat16, enabled=kind is torch.bfloat16):
            times.append(best_time(lambda: network(pixels), device, repeats=3))
    return frames * RESNET_101_FLOPS / min(times)


def _decode_s(clips: ClipsConfig, videos: Sequence[Path], sizes_px: Sequence[int]) -> float:
    """Return the median processor time of decoding; files without frames are passed over."""
    plan = partial(sample_clips, num_clips=clips.num_clips, frames_per_clip=clips.frames_per_clip)
    with tempfile.TemporaryDirectory() as folder:
        if not videos:
            videos = [_draw_video(Path(folder) / "drawn.avi")] * 2
        times = []
        for video in videos:
            start = time.process_time()
            try:
                decode(video, plan, sizes_px, clips.decoder)
            except VideoError:
                continue
            times.append(time.process_time() - start)
            if len(times) == CLIPS_TIMED + 1:
                break
    # The first one also loads libraries.
    return float(np.median(times[1:] or times)) if times else _decode_s(clips, (), sizes_px)


def _draw_video(path: Path, frames: int = 300) -> Path:
    """Write noise that moves, with the codec, size and length of a usual MSVD clip."""
    rng = np.random.default_rng(0)
    picture = np.kron(rng.integers(0, 256, (30, 40, 3), dtype=np.uint8), np.ones((8, 8, 1)))
    with av.open(str(path), "w") as container:
        stream = container.add_stream("mpeg4", rate=Fraction(30))
        stream.width, stream.height, stream.pix_fmt = 320, 240, "yuv420p"
        for shift in range(frames):
            shown = np.roll(picture, shift, axis=1).astype(np.uint8)
            container.mux(stream.encode(av.VideoFrame.from_ndarray(shown, format="rgb24")))
        container.mux(stream.encode())
    return path
