"""One transformer over the words of a title and the frames of a video.

Chen et al., "UNITER: UNiversal Image-TExt Representation Learning", 2020,
https://arxiv.org/abs/1909.11740
"""

from collections.abc import Collection, Mapping
from typing import ClassVar, Literal

import torch
from pydantic import Field
from torch import Tensor, nn
from torch.nn import functional

from msvqa.data.batch import Batch
from msvqa.models.language.text_encoder import LAYER_NORM_EPS, TextEncoder
from msvqa.models.layers.described import Described, TitledVideoModel
from msvqa.models.layers.vlad import is_real, start_as_glorot
from msvqa.models.model import Sizes
from msvqa.models.parts import Parts

# Legend: B videos, T frames, D numbers of a frame, S words, P = S + T positions, H width,
# E embedding width, M masked words, W words of the vocabulary.

PUSHED_DOWN = 1000.0
"""Subtracted from masked positions before a maximum is taken."""


class Uniter(TitledVideoModel):
    """Embeds a video as the mean of all positions behind the layers of a language model.

    Other than in the paper, and as in the system that this one repeats: frames have neither
    position nor type nor layer norm, and the words are predicted from the narrow embeddings.
    """

    class Config(TitledVideoModel.Config):
        """Sizes, by default the published ones."""

        name: str = "uniter"
        text: TextEncoder.Config = TextEncoder.Config()
        embedding_size: int = Field(default=256, ge=1)
        pool: Literal["mean", "first", "max"] = "mean"
        """Which of the positions become the embedding; `max` leaves out the padding."""
        mask_padding: bool = False
        """true: the mean is over words and frames that are there. false: as in the published
        system, over all positions."""

        predicts_frames: bool = False
        """Whether there is a head for masked frames, part `frame_head`: an addition to the
        published system, from another one of its contest."""

    config: Config
    optional: ClassVar[tuple[str, ...]] = ("words", "frame_head")

    def __init__(self, config: Config, sizes: Sizes, absent: Collection[str] = ()) -> None:
        super().__init__(config, sizes, absent)
        width = config.text.width
        self.text = TextEncoder(config.text, sizes, pooler=False)
        self.frames = nn.Linear(sizes.width, width)
        self.project = nn.Linear(width, config.embedding_size)
        self.tags = nn.Linear(config.embedding_size, sizes.tags)
        self.head: _WordHead | None = None
        self.frame_head: nn.Sequential | None = None
        for layer in (self.frames, self.project, self.tags):
            start_as_glorot(layer)
        if "words" not in self.absent:
            self.head = _WordHead(config.embedding_size, width, self.text.words.num_embeddings)
        if config.predicts_frames and "frame_head" not in self.absent:
            self.frame_head = _frame_head(width, sizes.width)

    def parts(self) -> Parts:
        """Return the language model as `text`, the heads of masked inputs, and the `rest`."""
        heads = {"words": self.head, "frame_head": self.frame_head}
        there = {name: [head] for name, head in heads.items() if head is not None}
        return {"text": [self.text], **there, "rest": [self]}

    def heads(self) -> Mapping[str, nn.Module]:
        """Return the heads of masked words and frames."""
        heads = {"words": self.head, "frames": self.frame_head}
        return {name: head for name, head in heads.items() if head is not None}

    @property
    def predicts_frames(self) -> bool:
        """Whether the head of masked frames is there."""
        return self.frame_head is not None

    @property
    def predicts_words(self) -> bool:
        """Whether the head of masked words is there."""
        return self.head is not None

    def describe(self, batch: Batch) -> Described:
        """Return embedding, tags and words of every video of a batch."""
        words = batch["tokens"].shape[1]
        mask = self._mask(batch)  # (B, P)
        states = self.encode(batch)  # (B, P, H)
        positions = self.project(states)  # (B, P, E)
        embedding = self._pooled(positions, mask)  # (B, E)
        return Described(
            embedding=embedding,
            logits=self.tags(embedding),
            words=positions[:, :words],
            frames=states[:, words:],
        )

    def encode(self, batch: Batch) -> Tensor:
        """Return (B, P, H): words first, then frames."""
        text = self.text.embed(batch["tokens"])  # (B, S, H)
        vectors = batch["vectors"].to(self.frames.weight.dtype)
        frames = functional.relu(self.frames(vectors))  # (B, T, H)
        return self.text.encode(torch.cat([text, frames], dim=1), self._mask(batch))

    def predict_words(self, words: Tensor) -> Tensor:
        """Return logits (M, W) of what stands at positions (M, E)."""
        assert self.head is not None
        logits: Tensor = self.head(words, self.text.words.weight)
        return logits

    def predict_frames(self, frames: Tensor) -> Tensor:
        """Return the frames (M, D) at positions whose states are (M, H)."""
        assert self.frame_head is not None
        predicted: Tensor = self.frame_head(frames)
        return predicted

    def _mask(self, batch: Batch) -> Tensor:
        """Return which positions (B, P) hold a word or a frame."""
        frames = is_real(batch["vectors"], batch["num_frames"]).bool()
        return torch.cat([batch["token_mask"].bool(), frames], dim=1)

    def _pooled(self, positions: Tensor, mask: Tensor) -> Tensor:
        if self.config.pool == "first":
            return positions[:, 0]
        real = mask[..., None].to(positions.dtype)  # (B, P, 1)
        if self.config.pool == "max":
            return (positions - PUSHED_DOWN * (1 - real)).amax(dim=1)
        if self.config.mask_padding:
            return (positions * real).sum(dim=1) / real.sum(dim=1)
        return positions.mean(dim=1)


class _WordHead(nn.Module):
    """From the embedding of a position to its word, by the table that embeds words."""

    def __init__(self, embedding: int, width: int, words: int) -> None:
        super().__init__()
        self.dense = nn.Linear(embedding, width)
        self.norm = nn.LayerNorm(width, eps=LAYER_NORM_EPS)
        self.bias = nn.Parameter(torch.zeros(words))
        start_as_glorot(self.dense)

    def forward(self, words: Tensor, table: Tensor) -> Tensor:
        """Return logits (M, W) of positions (M, E) and the vectors of all words (W, H)."""
        hidden = self.norm(functional.gelu(self.dense(words)))  # (M, H)
        return functional.linear(hidden, table, self.bias)


def _frame_head(width: int, frame: int) -> nn.Sequential:
    """Return what tells a frame from the state of its position, as another system does.

    Ma, Lou and Ouyang, 2021, https://arxiv.org/abs/2111.01677
    """
    head = nn.Sequential(
        nn.Linear(width, width),
        nn.GELU(),
        nn.LayerNorm(width, eps=LAYER_NORM_EPS),
        nn.Linear(width, frame),
    )
    start_as_glorot(head)
    return head
