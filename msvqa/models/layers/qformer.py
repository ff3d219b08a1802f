"""Querying transformer: learned queries look at a medium, and read or write text about it.

Papers: Li et al., "BLIP-2", ICML 2023, https://arxiv.org/abs/2301.12597, section 3.1; Li et al.,
"MVBench", CVPR 2024, https://arxiv.org/abs/2311.17005, section 4. Queries and words share their
self-attention; only queries look at the medium, in every second layer.
"""

from collections.abc import Mapping

import torch
from pydantic import Field
from torch import Tensor, nn
from torch.nn import functional
from transformers import Blip2QFormerConfig, Blip2QFormerModel

from msvqa.models.weights import check_names
from msvqa.sections import Config

# Legend: B pairs, N visual tokens, W their width, Q queries, L words of a text, D width, V words.

LAYER_NORM_EPS = 1e-12
CROSS_ATTENTION_EVERY = 2
BERT_STD, BERT_WIDTH = 0.02, 768
"""How the linear layers of BERT-base start, and its width."""


class QFormerConfig(Config):
    """Sizes of the querying transformer; those of BERT-base by default."""

    width: int = Field(default=768, ge=1)
    layers: int = Field(default=12, ge=1)
    heads: int = Field(default=12, ge=1)
    feed_forward: int = Field(default=3072, ge=1)
    words: int = Field(default=30523, ge=1)
    """How many, with the one that a written text starts with."""
    max_words: int = Field(default=512, ge=1)
    """Longest text."""
    queries: int = Field(default=32, ge=1)
    extra_queries: int = Field(default=64, ge=0)
    """More of them from the second stage on."""
    query_init_std: float = Field(default=0.02, ge=0)
    """The released program starts the queries at 1.0."""
    extra_query_init_std: float = Field(default=0.02, ge=0)
    """0 reproduces the released program. A layer norm comes next, whose derivative at 0 is 1e6:
    the gradients of these queries are then a million times those of the others."""
    dropout: float = Field(default=0.1, ge=0, lt=1)


class QFormer(nn.Module):
    """Queries, words and the layers that both go through."""

    def __init__(self, config: QFormerConfig, vision_width: int, extra: bool = True) -> None:
        super().__init__()
        width = config.width
        self.queries = nn.Parameter(torch.empty(1, config.queries, width))
        nn.init.normal_(self.queries, std=config.query_init_std)
        self.extra_queries: nn.Parameter | None = None
        if extra and config.extra_queries:
            self.extra_queries = nn.Parameter(torch.empty(1, config.extra_queries, width))
            nn.init.normal_(self.extra_queries, std=config.extra_query_init_std)
        self.words = nn.Embedding(config.words, width)
        self.positions = nn.Embedding(config.max_words, width)
        for table in (self.words, self.positions):
            nn.init.normal_(table.weight, std=0.02)
        self.layers = Blip2QFormerModel(_library_config(config, vision_width))
        self.word_head = WordHead(config)

    def text_branch(self) -> list[nn.Module]:
        """Return what only texts go through: embeddings, their feed-forward layers, the head."""
        own: list[nn.Module] = [self.words, self.positions, self.word_head]
        for layer in self.layers.encoder.layer:
            own += [layer.get_submodule("intermediate"), layer.get_submodule("output")]
        return own

    def look(self, vision: Tensor) -> Tensor:
        """Return the queries (B, Q, D) that have seen visual tokens (B, N, W)."""
        queries = self._queries(len(vision))
        return self._run(queries, vision, None, queries.shape[1])

    def read(self, ids: Tensor, mask: Tensor) -> Tensor:
        """Return the states (B, L, D) of texts alone, int64 and bool (B, L)."""
        return self._run(self._words(ids), None, _additive(mask[:, None], self.queries), 0)

    def join(self, vision: Tensor, ids: Tensor, mask: Tensor) -> tuple[Tensor, Tensor]:
        """Return queries (B, Q, D) and words (B, L, D) that have seen each other and the medium.

        Args:
            vision: (B, N, W).
            ids: int64 (B, L).
            mask: bool (B, L), which of them are there; those may stand anywhere.
        """
        queries = self._queries(len(vision))
        count = queries.shape[1]
        there = functional.pad(mask.bool(), (count, 0), value=True)  # (B, Q + L)
        states = self._run(
            torch.cat([queries, self._words(ids)], dim=1),
            vision, _additive(there[:, None], queries), count,
        )  # fmt: skip
        return states[:, :count], states[:, count:]

    def write(self, vision: Tensor, ids: Tensor, mask: Tensor) -> tuple[Tensor, Tensor]:
        """Return queries (B, Q, D) and words (B, L, D) that see what comes before them.

        One pass is equal to the two of BLIP-2, which keeps the keys of the queries: queries never
        see words. Every word sees all queries, itself and the words before it.
        """
        queries = self._queries(len(vision))
        count, length = queries.shape[1], ids.shape[1]
        before = torch.ones(length, length, dtype=torch.bool, device=ids.device).tril()
        sees = torch.zeros(
            len(ids), count + length, count + length, dtype=torch.bool, device=ids.device
        )
        sees[:, :, :count] = True
        sees[:, count:, count:] = before & mask.bool()[:, None]
        sees[:, :count, count:] = False
        states = self._run(
            torch.cat([queries, self._words(ids)], dim=1), vision, _additive(sees, queries), count
        )
        return states[:, :count], states[:, count:]

    def word_logits(self, states: Tensor) -> Tensor:
        """Return which word comes next (..., V) of states (..., D)."""
        logits: Tensor = self.word_head(states, self.words.weight)
        return logits

    def _queries(self, count: int) -> Tensor:
        own: list[Tensor] = [self.queries]
        if self.extra_queries is not None:
            own.append(self.extra_queries)
        return torch.cat(own, dim=1).expand(count, -1, -1)

    def _words(self, ids: Tensor) -> Tensor:
        embedded: Tensor = self.words(ids) + self.positions.weight[: ids.shape[1]]
        return embedded

    def _run(
        self, states: Tensor, vision: Tensor | None, mask: Tensor | None, queries: int
    ) -> Tensor:
        found = self.layers(
            states, query_length=queries, attention_mask=mask, encoder_hidden_states=vision
        )
        last: Tensor = found.last_hidden_state
        return last


class WordHead(nn.Module):
    """Words of states: BERT's transform, and the word embeddings again with a bias."""

    def __init__(self, config: QFormerConfig) -> None:
        super().__init__()
        self.dense = nn.Linear(config.width, config.width)
        self.norm = nn.LayerNorm(config.width, eps=LAYER_NORM_EPS)
        self.bias = nn.Parameter(torch.zeros(config.words))

    def forward(self, states: Tensor, words: Tensor) -> Tensor:
        """Return logits (..., V) of states (..., D) for the word embeddings (V, D)."""
        return functional.linear(self.norm(functional.gelu(self.dense(states))), words, self.bias)


def _additive(sees: Tensor, like: Tensor) -> Tensor:
    """Return 0 where something is seen, else the least number: (B, 1, L or 1, L).

    Not bool: one of the ways in which the library attends adds such a mask as numbers 0 and 1.
    """
    least = torch.finfo(like.dtype).min
    hidden = torch.zeros(sees.shape, dtype=like.dtype, device=sees.device)
    return hidden.masked_fill(~sees.bool(), least)[:, None]


def _library_config(config: QFormerConfig, vision_width: int) -> Blip2QFormerConfig:
    return Blip2QFormerConfig(
        vocab_size=config.words,
        hidden_size=config.width,
        num_hidden_layers=config.layers,
        num_attention_heads=config.heads,
        intermediate_size=config.feed_forward,
        hidden_dropout_prob=config.dropout,
        attention_probs_dropout_prob=config.dropout,
        max_position_embeddings=config.max_words,
        # As much of each state as in BERT-base: a narrow one would see next to nothing of media.
        initializer_range=BERT_STD * (BERT_WIDTH / config.width) ** 0.5,
        layer_norm_eps=LAYER_NORM_EPS,
        cross_attention_frequency=CROSS_ATTENTION_EVERY,
        encoder_hidden_size=vision_width,
        use_qformer_text_input=True,
    )


BERT_PLACES = {
    "embeddings.word_embeddings.": "words.",
    "embeddings.position_embeddings.": "positions.",
    "embeddings.LayerNorm.": "layers.layernorm.",
    "encoder.": "layers.encoder.",
    "cls.predictions.transform.dense.": "word_head.dense.",
    "cls.predictions.transform.LayerNorm.": "word_head.norm.",
    "cls.predictions.bias": "word_head.bias",
}
OLD_NAMES = {".gamma": ".weight", ".beta": ".bias"}


def of_bert(module: QFormer, weights: Mapping[str, Tensor], source: str) -> None:
    """Start a Q-Former with the weights of a BERT.

    Queries go through copies of the feed-forward layers of texts. What BERT does not have starts
    by chance: queries, what looks at media, and the words that are there besides its own.

    Args:
        module: takes the weights.
        weights: of the whole file of a BERT, with heads or without.
        source: what the file is called in messages.

    Raises:
        WeightsError: it lacks weights, or some have another shape.
    """
    own, found = module.state_dict(), dict[str, Tensor]()
    for name, tensor in weights.items():
        for ours in _names_of_bert(name):
            found[ours] = tensor
    for name in ("words.weight", "word_head.bias"):
        if name in found and len(found[name]) < len(own[name]):
            found[name] = torch.cat([found[name], own[name][len(found[name]) :]])
    by_chance = ("queries", "extra_queries", "crossattention", "word_head.")
    needed = [name for name in own if not any(part in name for part in by_chance)]
    given = {name: tensor for name, tensor in found.items() if name in own}
    expected = {n: tuple(own[n].shape) for n in own if n in given or n in needed}
    check_names(given, expected, source)
    module.load_state_dict(own | given)


def _names_of_bert(name: str) -> list[str]:
    """Return where a weight of a BERT goes; those of feed-forward layers go to two places."""
    plain = name.removeprefix("bert.")
    for old, new in OLD_NAMES.items():
        if plain.endswith(old):
            plain = plain.removesuffix(old) + new
    start = next((start for start in BERT_PLACES if plain.startswith(start)), None)
    if start is None:
        return []
    ours = BERT_PLACES[start] + plain.removeprefix(start)
    ours = ours.replace("attention.self.", "attention.attention.")  # also that to media
    if ".attention." in ours:
        return [ours]
    for part in ("intermediate", "output"):
        if f".{part}." in ours:
            return [ours, ours.replace(f".{part}.", f".{part}_query.")]
    return [ours]


def published(weights: dict[str, Tensor]) -> dict[str, Tensor]:
    """Return the weights of a published checkpoint of the Q-Former under the names used here.

    Args:
        weights: under `qformer.`, `query_tokens` and `extra_query_tokens`; others are left out.
            The output layer of the word head is tied to the word embeddings, and is left out too.
    """
    found = {
        ours: weights[theirs]
        for ours, theirs in (
            ("queries", "query_tokens"), ("extra_queries", "extra_query_tokens"),
        )
        if theirs in weights
    }  # fmt: skip
    for name, tensor in weights.items():
        if name.startswith("qformer."):
            # What goes through the layers of queries has names of its own here.
            found |= dict.fromkeys(_names_of_bert(name.removeprefix("qformer."))[:1], tensor)
    return found
