"""Two encoders outside the package: frames of a video and words of a caption, in one space.

The recipe beside this file names it as `clip_pair:ClipPair`; `make example` trains it.
"""

import math

import torch
from einops import rearrange
from pydantic import Field
from torch import Tensor, nn

from msvqa.data.batch import Batch
from msvqa.models.model import Model, Sizes

# Legend: V videos, T frames, H x W pixels, Q captions, L words, D width.

COARSE_PX = 4
"""Places of a frame, down and across, that its features tell apart."""


class ClipPair(Model):
    """A convolutional encoder of frames and a bag of words."""

    class Config(Model.Config):
        """Widths."""

        name: str = "clip_pair:ClipPair"
        width: int = Field(default=64, ge=8)
        temperature: float = Field(default=0.07, gt=0)
        """At the start; it is learned."""

    config: Config

    def __init__(self, config: Config, sizes: Sizes) -> None:
        super().__init__(config, sizes)
        width = config.width
        self.pixels = nn.Sequential(
            *_convolution(3, width // 2), *_convolution(width // 2, width),
            *_convolution(width, width), nn.AdaptiveAvgPool2d(COARSE_PX), nn.Flatten(),
            nn.Linear(width * COARSE_PX**2, width), nn.ReLU(),
        )  # fmt: skip
        self.times = sizes.frames
        self.time = nn.Sequential(
            nn.Linear(sizes.frames * width, 2 * width), nn.ReLU(), nn.Linear(2 * width, width)
        )
        self.words = nn.Embedding(sizes.vocabulary, width, padding_idx=0)
        self.text = nn.Sequential(
            nn.Linear(width, 2 * width), nn.ReLU(), nn.Linear(2 * width, width)
        )
        self.log_temperature = nn.Parameter(torch.tensor(math.log(config.temperature)))

    @property
    def temperature(self) -> Tensor:
        """What similarities are divided by; as in CLIP never below 0.01."""
        return self.log_temperature.exp().clamp(min=0.01)

    def encode_video(self, batch: Batch) -> Tensor:
        """Return one vector (V, D) for each video or image."""
        videos = len(batch["frames"])
        frames = rearrange(batch["frames"], "v t h w c -> (v t) c h w").float() / 255 - 0.5
        seen = rearrange(self.pixels(frames), "(v t) d -> v t d", v=videos)
        # Images have one frame, which stands still.
        return self.time(seen.expand(videos, self.times, -1).flatten(1))

    def encode_text(self, batch: Batch) -> Tensor:
        """Return one vector (Q, D) for each caption: its words without their order."""
        summed = self.words(batch["text"]).sum(dim=1)  # (Q, D)
        return self.text(summed / batch["text_length"][:, None])


def _convolution(channels: int, width: int) -> list[nn.Module]:
    return [nn.Conv2d(channels, width, 3, stride=2, padding=1), nn.BatchNorm2d(width), nn.ReLU()]
