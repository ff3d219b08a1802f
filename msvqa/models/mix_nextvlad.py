"""A mixture of NeXtVLAD experts over frame features, each fused with the title.

The gate is that of a mixture of experts (Jordan and Jacobs, 1994) over whole networks; NeXtVLAD is
of Lin, Xiao and Fan, 2018, https://arxiv.org/abs/1811.05014
"""

from collections.abc import Collection

import torch
from pydantic import Field, model_validator
from torch import Tensor, nn
from torch.nn import functional

from msvqa.data.batch import Batch
from msvqa.errors import RecipeError
from msvqa.models.language.text_encoder import TextEncoder
from msvqa.models.layers.described import Described, Experts, TitledVideoModel
from msvqa.models.layers.vlad import (
    GatedFusion,
    NeXtVLAD,
    VLADSizes,
    batch_norm,
    is_real,
    start_as_glorot,
)
from msvqa.models.model import Sizes
from msvqa.models.parts import Parts

# Legend: B videos, T frames, D numbers of a frame, S words, H width of an expert,
# E embedding width, L tags, X experts.


class MixNeXtVLAD(TitledVideoModel):
    """Embeds a video as its experts do, weighed by a gate that sees frames and title."""

    class Config(TitledVideoModel.Config):
        """Sizes, by default the published ones."""

        name: str = "mix_nextvlad"
        text: TextEncoder.Config = TextEncoder.Config()
        experts: int = Field(default=3, ge=1, le=16)
        hidden_size: int = Field(default=1024, ge=1)
        """H"""
        embedding_size: int = Field(default=256, ge=1)
        clusters: int = Field(default=64, ge=1)
        groups: int = Field(default=8, ge=1)
        expansion: int = Field(default=2, ge=1)
        reduction: int = Field(default=8, ge=1)
        """How much narrower than the embedding its gating is inside."""
        dropout: float = Field(default=0.2, ge=0, lt=1)
        """Of the clusters and before the fusion; that of the title is in `text`."""
        mask_padding: bool = False
        """true: absent frames and words count for nothing. false: as in the published system, the
        bias of the expansion leaks from absent frames, the gate's mean counts the frames that fill
        up a short video, and RoFormer's maximum the padding of a title."""

        @model_validator(mode="after")
        def _divides(self) -> "MixNeXtVLAD.Config":
            if self.embedding_size < self.reduction:
                raise ValueError(
                    f"embedding_size {self.embedding_size} is less than reduction {self.reduction}"
                )
            return self

    config: Config
    least_examples = 2

    def __init__(self, config: Config, sizes: Sizes, absent: Collection[str] = ()) -> None:
        super().__init__(config, sizes, absent)
        width = sizes.width
        if config.expansion * width % config.groups:
            raise RecipeError(
                [
                    f"groups: {config.groups} do not divide expansion x width = "
                    f"{config.expansion * width}"
                ]
            )
        self.text = TextEncoder(config.text, sizes, pooler=config.text.kind == "bert")
        self.title = nn.Linear(config.text.width, config.hidden_size)
        self.experts = nn.ModuleList(
            _Expert(config, width, sizes.tags) for _ in range(config.experts)
        )
        joined = width + config.hidden_size
        self.gate_norm = batch_norm(joined)
        self.gate = nn.Linear(joined, config.experts)
        start_as_glorot(self.title)
        start_as_glorot(self.gate)

    def parts(self) -> Parts:
        """Return the language model as `text`, and the `rest`."""
        return {"text": [self.text], "rest": [self]}

    @property
    def mixes_experts(self) -> bool:
        """Whether `describe` returns experts: it does."""
        return True

    def describe(self, batch: Batch) -> Described:
        """Return embedding, tags and experts of every video of a batch."""
        summary = self.summarize(batch["tokens"], batch["token_mask"])
        return self.mix(batch["vectors"], batch["num_frames"], summary)

    def summarize(self, tokens: Tensor, mask: Tensor) -> Tensor:
        """Return one vector for each title, as wide as the language model."""
        encoded = self.text.encode(self.text.embed(tokens), mask)  # (B, S, ·)
        if self.config.text.kind == "bert":
            return self.text.pool(encoded)
        if self.config.mask_padding:
            encoded = encoded.masked_fill(~mask.bool()[..., None], float("-inf"))
        return encoded.amax(dim=1)

    def mix(self, frames: Tensor, count: Tensor, summary: Tensor) -> Described:
        """Return the description of videos from frames (B, T, D) and summaries of the titles.

        Raises:
            RecipeError: a single video in training, of which batch norm has no variance.
        """
        if self.training and len(frames) == 1:
            raise RecipeError(
                [
                    "batch.examples: batch norm of model mix_nextvlad cannot train on a single "
                    "video: use 2 or more for every worker"
                ]
            )
        frames = frames.to(self.title.weight.dtype)
        text = functional.relu(self.title(summary))  # (B, H)
        seen = [expert(frames, count, text) for expert in self.experts]
        vision, embedding, logits = (torch.stack(views) for views in zip(*seen, strict=True))
        joined = torch.cat([self._mean(frames, count), text], dim=1)  # (B, D + H)
        weight = self.gate(self.gate_norm(joined)).softmax(dim=1).T[..., None]  # (X, B, 1)
        return Described(
            embedding=(weight * embedding).sum(dim=0),
            logits=(weight * logits).sum(dim=0),
            experts=Experts(logits=logits, vision=vision, text=text),
        )

    def _mean(self, frames: Tensor, count: Tensor) -> Tensor:
        """Return the mean frame (B, D)."""
        if not self.config.mask_padding:
            return frames.mean(dim=1)
        real = is_real(frames, count)[..., None]  # (B, T, 1)
        return (frames * real).sum(dim=1) / real.sum(dim=1).clamp(min=1)


class _Expert(nn.Module):
    """One view: frames to a vector, that with the title to an embedding, that to tags."""

    def __init__(self, config: MixNeXtVLAD.Config, width: int, tags: int) -> None:
        super().__init__()
        self.vision = NeXtVLAD(
            VLADSizes(
                width=width,
                output=config.hidden_size,
                clusters=config.clusters,
                groups=config.groups,
                expansion=config.expansion,
                dropout=config.dropout,
                mask_padding=config.mask_padding,
            )
        )
        self.fusion = GatedFusion(
            2 * config.hidden_size, config.embedding_size, config.reduction, config.dropout
        )
        self.tags = nn.Linear(config.embedding_size, tags)
        start_as_glorot(self.tags)

    def forward(self, frames: Tensor, count: Tensor, text: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Return vision (B, H), embedding (B, E) and logits (B, L)."""
        vision = self.vision(frames, count)
        embedding = self.fusion(vision, text)
        return vision, embedding, self.tags(embedding)
