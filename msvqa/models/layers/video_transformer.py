"""The video transformer of UMT: a plain ViT over all tokens of a clip, or over some of them.

Papers: Li et al., "Unmasked Teacher: Towards Training-Efficient Video Foundation Models", ICCV
2023, https://arxiv.org/abs/2303.16058; Dosovitskiy et al., "An Image is Worth 16x16 Words", 2021.
The names of weights are those of the published files.
"""

from collections.abc import Iterable, Mapping
from typing import Any, Literal

import torch
from einops import rearrange
from pydantic import Field, model_validator
from torch import Tensor, nn
from torch.nn import functional
from torch.utils.checkpoint import checkpoint

from msvqa.models.layers import positions
from msvqa.models.layers.presets import with_preset
from msvqa.models.weight_files import read_weights
from msvqa.models.weights import load_strictly
from msvqa.sections import Config

# Legend: V clips, T tokens along time, P patches across and down, N = P·P tokens of a frame, n
# visible tokens of a clip, D width, H heads.

NORM_EPS = 1e-6
FILE_STARTS = ("vision_encoder.encoder.", "encoder.", "video.", "")
"""What stands before the names of the video transformer in published files of either stage, and in
checkpoints of ours."""
PRESETS = {
    "base": {"width": 768, "depth": 12, "heads": 12, "drop_path": 0.1},
    "large": {"width": 1024, "depth": 24, "heads": 16, "drop_path": 0.2},
}


class VideoTransformerConfig(Config):
    """Size of a video transformer; the preset gives what is not said."""

    preset: Literal["base", "large"] = "base"
    width: int = Field(default=768, ge=4)
    depth: int = Field(default=12, ge=1, le=64)
    heads: int = Field(default=12, ge=1)
    mlp_ratio: float = Field(default=4.0, gt=0)
    patch_px: int = Field(default=16, ge=2)
    tubelet: int = Field(default=1, ge=1)
    """Frames of a token; published weights have 1."""
    drop_path: float = Field(default=0.1, ge=0, lt=1)
    """Part of the clips that skip the last layer in training; earlier ones are skipped less."""
    positions: Literal["sinusoid", "learned"] = "sinusoid"
    position_std: float = Field(default=0.02, gt=0)
    """Of learned positions at the start. Of few tokens, small sinusoids are too much alike, and
    so small numbers are drowned by the content of tokens: 0.7 is the strength of sinusoids."""
    trained_frames: int | None = Field(default=None, ge=1)
    """Frames of the clips that the weights were trained on; positions of other clips lie between
    those. null: the frames of the recipe."""
    trained_px: int | None = Field(default=None, ge=2)
    """The same for the height and width of a frame."""
    recompute: bool = False
    """Repeat each layer for the gradients instead of keeping its results."""

    @model_validator(mode="before")
    @classmethod
    def _fill(cls, values: Any) -> Any:
        return with_preset(values, PRESETS)

    @model_validator(mode="after")
    def _divides(self) -> "VideoTransformerConfig":
        if self.width % self.heads:
            raise ValueError(f"width = {self.width} is not a multiple of heads = {self.heads}")
        return self


class VideoTransformer(nn.Module):
    """Layers over tokens of a clip, each with joint attention over space and time."""

    table: Tensor

    def __init__(self, config: VideoTransformerConfig, frames: int, size_px: int) -> None:
        """Build it for clips of so many frames and pixels, unless the config has others."""
        super().__init__()
        self.config = config
        frames, size_px = config.trained_frames or frames, config.trained_px or size_px
        if size_px % config.patch_px or frames % config.tubelet:
            raise ValueError(
                f"clips of {frames} frames of {size_px} px are no whole number of tokens of "
                f"{config.tubelet} frames of {config.patch_px} px"
            )
        self.grid = size_px // config.patch_px
        self.patch_embed = PatchEmbedding(config)
        table = positions.sinusoids(frames // config.tubelet * self.grid**2, config.width)
        if config.positions == "learned":
            self.pos_embed = nn.Parameter(torch.zeros(1, *table.shape))
            std = config.position_std
            nn.init.trunc_normal_(self.pos_embed, std=std, a=-2 * std, b=2 * std)
        # Not persistent: the published files have no table. Kept in double precision, so that what
        # lies between its rows is exact before it is rounded.
        self.register_buffer("table", table, persistent=False)
        rise = config.drop_path / max(1, config.depth - 1)
        steps = [rise * number for number in range(config.depth)]
        self.blocks = nn.ModuleList(Block(config, step) for step in steps)
        self.norm = nn.LayerNorm(config.width, NORM_EPS)
        initialize(self)

    @property
    def frame_tokens(self) -> int:
        """Tokens of a frame of the clips that it was built for."""
        return self.grid**2

    def positions(self, times: int, grid: int) -> Tensor:
        """Return the fixed positions (T·N, D) of a clip's tokens.

        An image takes the first rows of the table, not those between all frames of a clip.
        """
        table = self.table.view(-1, self.grid**2, self.config.width)
        return self._for_size(table, times, grid).flatten(0, 1)

    def _for_size(self, table: Tensor, times: int, grid: int) -> Tensor:
        return positions.resize(table[:1] if times == 1 else table, times, grid)

    def embed(self, clips: Tensor, visible: Tensor | None = None) -> Tensor:
        """Return the tokens (V, n, D) of scaled clips (V, 3, frames, height, width).

        Args:
            clips: pixels as the weights know them.
            visible: int64 (V, n), which of the T·N tokens are seen; None: all.
        """
        tokens = self.patch_embed(clips)  # (V, D, T, P, P)
        times, grid = tokens.shape[2], tokens.shape[3]
        tokens = rearrange(tokens, "v d t h w -> v (t h w) d")
        if self.config.positions == "learned":
            learned = self.pos_embed.view(-1, self.grid**2, self.config.width)
            place = self._for_size(learned, times, grid).flatten(0, 1)
        else:
            place = self.positions(times, grid)
        tokens = tokens + place.to(tokens.dtype)
        return tokens if visible is None else take(tokens, visible)

    def layers(self, tokens: Tensor, kept: Iterable[int]) -> list[Tensor]:
        """Return the outputs (V, n, D) of some layers, by their numbers from 0, without a norm.

        Layers above the last of these do not run.
        """
        wanted = sorted(kept)
        found: list[Tensor] = []
        for number, block in enumerate(self.blocks[: wanted[-1] + 1]):
            if self.config.recompute and torch.is_grad_enabled():
                tokens = checkpoint(block, tokens, use_reentrant=False)
            else:
                tokens = block(tokens)
            if number in wanted:
                found.append(tokens)
        return found

    def forward(self, clips: Tensor, visible: Tensor | None = None) -> Tensor:
        """Return the last layer's output (V, n, D), normed, see `embed`."""
        (last,) = self.layers(self.embed(clips, visible), [self.config.depth - 1])
        normed: Tensor = self.norm(last)
        return normed


class PatchEmbedding(nn.Module):
    """A linear map of each patch of pixels."""

    def __init__(self, config: VideoTransformerConfig) -> None:
        super().__init__()
        size = (config.tubelet, config.patch_px, config.patch_px)
        self.proj = nn.Conv3d(3, config.width, size, size)

    def forward(self, clips: Tensor) -> Tensor:
        """Return patches (V, D, T, P, P) of clips (V, 3, frames, height, width)."""
        patches: Tensor = self.proj(clips)
        return patches


class Attention(nn.Module):
    """Attention of all tokens to all; keys have no bias, which would change nothing."""

    def __init__(self, width: int, heads: int) -> None:
        super().__init__()
        self.heads = heads
        self.qkv = nn.Linear(width, 3 * width, bias=False)
        self.q_bias = nn.Parameter(torch.zeros(width))
        self.v_bias = nn.Parameter(torch.zeros(width))
        self.proj = nn.Linear(width, width)

    def forward(self, tokens: Tensor) -> Tensor:
        """Return (V, n, D) of tokens (V, n, D)."""
        bias = torch.cat([self.q_bias, torch.zeros_like(self.q_bias), self.v_bias])
        mixed = functional.linear(tokens, self.qkv.weight, bias)  # (V, n, 3·D)
        query, key, value = rearrange(mixed, "v n (k h d) -> k v h n d", k=3, h=self.heads)
        seen = functional.scaled_dot_product_attention(query, key, value)
        output: Tensor = self.proj(rearrange(seen, "v h n d -> v n (h d)"))
        return output


class Perceptron(nn.Module):
    """Two linear layers with an exact GELU between them."""

    def __init__(self, width: int, inner: int) -> None:
        super().__init__()
        self.fc1, self.fc2 = nn.Linear(width, inner), nn.Linear(inner, width)

    def forward(self, tokens: Tensor) -> Tensor:
        """Return (V, n, D) of tokens (V, n, D)."""
        output: Tensor = self.fc2(functional.gelu(self.fc1(tokens)))
        return output


class Block(nn.Module):
    """A layer: attention and perceptron, each after a norm and beside a shortcut."""

    def __init__(self, config: VideoTransformerConfig, drop_path: float) -> None:
        super().__init__()
        width = config.width
        self.drop_path = drop_path
        self.norm1 = nn.LayerNorm(width, NORM_EPS)
        self.attn = Attention(width, config.heads)
        self.norm2 = nn.LayerNorm(width, NORM_EPS)
        self.mlp = Perceptron(width, int(width * config.mlp_ratio))

    def forward(self, tokens: Tensor) -> Tensor:
        """Return (V, n, D) of tokens (V, n, D)."""
        tokens = tokens + self._dropped(self.attn(self.norm1(tokens)))
        return tokens + self._dropped(self.mlp(self.norm2(tokens)))

    def _dropped(self, change: Tensor) -> Tensor:
        """Return what a layer adds, nothing for some clips, so much more for the others."""
        if not self.training or not self.drop_path:
            return change
        kept = 1 - self.drop_path
        chosen = torch.rand(len(change), 1, 1, device=change.device) < kept
        return change * (chosen.to(change.dtype) / kept)


def take(tokens: Tensor, visible: Tensor) -> Tensor:
    """Return some tokens (..., V, n, D) of (..., V, N, D), by their numbers (V, n)."""
    index = visible[..., None].expand(*tokens.shape[:-3], *visible.shape, tokens.shape[-1])
    return tokens.gather(-2, index)


def initialize(module: nn.Module) -> None:
    """Start linear layers as Glorot and Bengio do, with no bias."""
    for part in module.modules():
        if isinstance(part, nn.Linear):
            nn.init.xavier_uniform_(part.weight)
            if part.bias is not None:
                nn.init.zeros_(part.bias)


def load_published(network: VideoTransformer, file: str, ignored: tuple[str, ...] = ()) -> None:
    """Load the weights of a video transformer out of a file: a published one of either stage, or a
    checkpoint's of a model with a part `video`. All else that it has is left out.

    Args:
        network: takes the weights.
        file: where they are.
        ignored: beginnings of names that the network does without.

    Raises:
        WeightsError: it does not fit, with all names that differ.
    """
    weights = read_weights(file)
    start = next((s for s in FILE_STARTS if f"{s}patch_embed.proj.weight" in weights), "")
    own, _ = published(weights, network.config.depth, start)
    load_strictly(network, own, file, ignored=ignored)


def published(
    weights: Mapping[str, Tensor], depth: int, start: str = ""
) -> tuple[dict[str, Tensor], list[str]]:
    """Return a video transformer's weights in a published file, and which of its own it leaves.

    Args:
        weights: of the whole file.
        depth: how many layers are wanted; those above are left.
        start: what stands before the names, such as `vision_encoder.encoder.`.
    """
    own = {n.removeprefix(start): v for n, v in weights.items() if n.startswith(start)}
    above = [n for n in own if n.startswith("blocks.") and int(n.split(".")[1]) >= depth]
    return {n: v for n, v in own.items() if n not in above}, [f"{start}{n}" for n in above]
