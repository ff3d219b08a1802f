"""BERT in two halves: one reads a text alone, the other with what a clip shows.

Papers: Devlin et al., "BERT", 2019, https://arxiv.org/abs/1810.04805; Li et al., "Align before
Fuse", NeurIPS 2021, for the split.
"""

from dataclasses import dataclass
from typing import Any, Literal

import torch
from einops import rearrange
from pydantic import Field, model_validator
from torch import Tensor, nn
from torch.nn import functional

from msvqa.models.layers.presets import with_preset
from msvqa.models.model import Sizes
from msvqa.sections import Config
from msvqa.storage import DiskPath

# Legend: Q texts, L words or pieces with the class token in front, D width, n tokens of a clip, H
# heads.

NORM_EPS = 1e-12
FIRST_STD = 0.02
EXTRA_WORDS = 2
"""The class token and the one in place of a hidden word; they follow the words of the lexicon."""
PRESETS = {
    "base": {"width": 768, "depth": 9, "fusion_depth": 3, "heads": 12},
    "large": {"width": 1024, "depth": 19, "fusion_depth": 5, "heads": 16},
}


class TextConfig(Config):
    """Size of both halves; the preset gives what is not said."""

    preset: Literal["base", "large"] = "base"
    width: int = Field(default=768, ge=4)
    depth: int = Field(default=9, ge=1)
    """Layers that see the text alone."""
    fusion_depth: int = Field(default=3, ge=1)
    """Layers that see the clip too."""
    heads: int = Field(default=12, ge=1)
    longest: int = Field(default=512, ge=2)
    """Words of a text, with the class token; what is beyond is cut off. Published weights: 512."""
    dropout: float = Field(default=0.1, ge=0, lt=1)
    first_std: float = Field(default=FIRST_STD, gt=0)
    """Of weights at the start. BERT's is for a width of 768; a narrow text, whose sums have fewer
    terms, hardly reaches the class token with it: 0.02 x sqrt(768 / width) is as strong."""
    source: DiskPath | None = None
    """Folder of a published BERT (`config.json`, `model.safetensors` or `pytorch_model.bin`) whose
    layers both halves begin as; the data needs the same folder as `tokenizer`. What BERT has not,
    the attention to clips, begins with chance."""

    @model_validator(mode="before")
    @classmethod
    def _fill(cls, values: Any) -> Any:
        return with_preset(values, PRESETS)


@dataclass(frozen=True, kw_only=True)
class WordIds:
    """What the ids of words or pieces mean."""

    count: int
    class_id: int
    """Begins a text."""
    end_id: int
    """Ends a text, where they are pieces."""
    hidden_id: int
    """Stands for a hidden word."""
    random: tuple[int, int]
    """Ids of words that may stand in place of a hidden one: the first, and the one past the
    last."""
    are_pieces: bool
    """Whether texts come with what begins and ends them."""

    @classmethod
    def of(cls, sizes: Sizes) -> "WordIds":
        """Return those of the data, which has pieces (`text`) or words (`vocabulary`)."""
        pieces = sizes.get("text")
        if pieces is not None:
            # Of no data nobody knows them, and nobody asks.
            start, end, mask = (sizes.get(f"text_{name}") or 0 for name in ("start", "end", "mask"))
            return cls(
                count=pieces,
                class_id=start,
                end_id=end,
                hidden_id=mask,
                random=(0, pieces),
                are_pieces=True,
            )
        words: int = sizes.vocabulary
        return cls(
            count=words + EXTRA_WORDS,
            class_id=words,
            end_id=0,
            hidden_id=words + 1,
            random=(1, words),
            are_pieces=False,
        )


class TextHalf(nn.Module):
    """Ids to states, by layers that see the text alone."""

    def __init__(self, config: TextConfig, word_ids: WordIds) -> None:
        super().__init__()
        self.word_ids, self.longest = word_ids, config.longest
        self.words = nn.Embedding(word_ids.count, config.width)
        self.places = nn.Embedding(config.longest, config.width)
        self.norm = nn.LayerNorm(config.width, NORM_EPS)
        self.dropout = nn.Dropout(config.dropout)
        self.layers = nn.ModuleList(Layer(config, None) for _ in range(config.depth))
        initialize(self, config.first_std)

    def ids(self, text: Tensor, length: Tensor) -> tuple[Tensor, Tensor]:
        """Return ids int64 (Q, L) with the class token in front, and which are there, bool (Q, L).

        Args:
            text: ids, padded on the right; of pieces with the class token.
            length: ids of each text.
        """
        ids = text
        if not self.word_ids.are_pieces:
            first = text.new_full((len(text), 1), self.word_ids.class_id)
            ids, length = torch.cat([first, text], dim=1), length + 1
        ids = ids[:, : self.longest]
        place = torch.arange(ids.shape[1], device=ids.device)
        return ids, place < length[:, None]

    def forward(self, ids: Tensor, there: Tensor) -> Tensor:
        """Return states (Q, L, D)."""
        place = torch.arange(ids.shape[1], device=ids.device)
        states: Tensor = self.dropout(self.norm(self.words(ids) + self.places(place)))
        for layer in self.layers:
            states = layer(states, there[:, None, None])
        return states


class FusionHalf(nn.Module):
    """States of a text to those that know the clip."""

    def __init__(self, config: TextConfig, video_width: int) -> None:
        super().__init__()
        self.layers = nn.ModuleList(Layer(config, video_width) for _ in range(config.fusion_depth))
        initialize(self, config.first_std)

    def forward(self, states: Tensor, there: Tensor, tokens: Tensor) -> Tensor:
        """Return states (Q, L, D) of a text's states and its clip's tokens (Q, n, width)."""
        for layer in self.layers:
            states = layer(states, there[:, None, None], tokens)
        return states


class WordHead(nn.Module):
    """Which word stood where one is hidden."""

    def __init__(self, config: TextConfig, words: int) -> None:
        super().__init__()
        self.dense = nn.Linear(config.width, config.width)
        self.norm = nn.LayerNorm(config.width, NORM_EPS)
        self.bias = nn.Parameter(torch.zeros(words))
        initialize(self, config.first_std)

    def forward(self, states: Tensor, embedding: Tensor) -> Tensor:
        """Return logits (..., words) of states (..., D), by the embedding of the text half."""
        inner = self.norm(functional.gelu(self.dense(states)))
        return functional.linear(inner, embedding, self.bias)


def initialize(module: nn.Module, std: float) -> None:
    """Start linear layers and embeddings as BERT does, with its deviation or another one."""
    for part in module.modules():
        if isinstance(part, (nn.Linear, nn.Embedding)):
            nn.init.normal_(part.weight, std=std)
        if isinstance(part, nn.Linear):
            nn.init.zeros_(part.bias)


class Attention(nn.Module):
    """Attention with dropout, shortcut and norm after it."""

    def __init__(self, config: TextConfig, source_width: int) -> None:
        super().__init__()
        self.heads, self.rate = config.heads, config.dropout
        self.query = nn.Linear(config.width, config.width)
        self.key = nn.Linear(source_width, config.width)
        self.value = nn.Linear(source_width, config.width)
        self.output = nn.Linear(config.width, config.width)
        self.dropout = nn.Dropout(config.dropout)
        self.norm = nn.LayerNorm(config.width, NORM_EPS)

    def forward(self, states: Tensor, source: Tensor, mask: Tensor | None) -> Tensor:
        """Return states (Q, L, D) of a source (Q, S, width), as a mask (Q or 1, 1, L or 1, S) says.

        Without a mask all is seen.
        """
        query, key, value = (
            rearrange(part, "q l (h d) -> q h l d", h=self.heads)
            for part in (self.query(states), self.key(source), self.value(source))
        )
        seen = functional.scaled_dot_product_attention(
            query, key, value, mask, dropout_p=self.rate if self.training else 0.0
        )
        change = self.dropout(self.output(rearrange(seen, "q h l d -> q l (h d)")))
        normed: Tensor = self.norm(states + change)
        return normed


class Layer(nn.Module):
    """Attention of a text to itself, to what stands beside it, and a perceptron."""

    def __init__(self, config: TextConfig, beside_width: int | None) -> None:
        super().__init__()
        width = config.width
        self.own = Attention(config, width)
        self.cross = None if beside_width is None else Attention(config, beside_width)
        self.inner, self.outer = nn.Linear(width, 4 * width), nn.Linear(4 * width, width)
        self.dropout = nn.Dropout(config.dropout)
        self.norm = nn.LayerNorm(width, NORM_EPS)

    def forward(
        self,
        states: Tensor,
        mask: Tensor,
        beside: Tensor | None = None,
        beside_mask: Tensor | None = None,
    ) -> Tensor:
        """Return states (Q, L, D) of states (Q, L, D).

        Args:
            states: of Q texts.
            mask: bool (Q or 1, 1, L or 1, L), which places see which.
            beside: (S, n, width), what the texts are beside, each of Q / S neighbouring texts.
            beside_mask: bool (S, 1, 1, n); None: all of it is seen.
        """
        states = self.own(states, states, mask)
        if self.cross is not None:
            assert beside is not None
            # Texts beside the same ask in one sequence, so that it gives keys and values once.
            asking = rearrange(states, "(s k) l d -> s (k l) d", s=len(beside))
            asking = self.cross(asking, beside, beside_mask)
            states = asking.view_as(states)
        change = self.dropout(self.outer(functional.gelu(self.inner(states))))
        normed: Tensor = self.norm(states + change)
        return normed
