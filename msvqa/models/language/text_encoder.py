"""BERT and RoFormer as encoders of a title, or of a title followed by something else.

Devlin et al., 2018, https://arxiv.org/abs/1810.04805; Su et al., 2021,
https://arxiv.org/abs/2104.09864
"""

from collections.abc import Iterable
from typing import Any, Literal

import torch
from pydantic import Field, model_validator
from torch import Tensor, nn
from transformers import BertConfig, BertModel, RoFormerConfig, RoFormerModel

from msvqa import sections
from msvqa.models.language.text_folder import load_text_folder, weights_in
from msvqa.models.model import Sizes
from msvqa.storage import DiskPath

# Legend: B texts, S words of each, P positions (words, or words and frames), H width.

PUBLISHED = {"bert": (21_128, 512), "roformer": (50_000, 1_536)}
"""Words and positions of hfl/chinese-roberta-wwm-ext and of junnyu/roformer_chinese_base."""
MASKED = -10_000.0
"""Added to the scores of keys that nothing may attend to."""
LAYER_NORM_EPS, TOKEN_TYPES, INITIAL_STD = 1e-12, 2, 0.02


class TextEncoder(nn.Module):
    """The layers of a language model, called one by one: others may stand after the words.

    Giving the whole sequence to the model as `inputs_embeds` would add positions, types, layer norm
    and dropout to what comes after the words as well.
    """

    class Config(sections.Config):
        """Sizes, by default the published ones of the base models."""

        kind: Literal["bert", "roformer"] = "bert"
        source: DiskPath | None = None
        """Folder with `config.json` and weights (`model.safetensors` or `pytorch_model.bin`) as
        they are published; where it holds no weights, or none is given, they start random."""
        vocabulary: int | None = Field(default=None, ge=2)
        """null: the words of the data's tokenizer, or the published number where it has none."""
        positions: int | None = Field(default=None, ge=2)
        """Longest sequence; null: the published number."""
        width: int = Field(default=768, ge=4)
        layers: int = Field(default=12, ge=1, le=48)
        heads: int = Field(default=12, ge=1)
        inner_width: int = Field(default=3072, ge=4)
        dropout: float = Field(default=0.1, ge=0, lt=1)
        """Also of the attention."""

        @model_validator(mode="after")
        def _divides(self) -> "TextEncoder.Config":
            if self.width % self.heads:
                raise ValueError(f"width {self.width} is not a multiple of heads {self.heads}")
            if self.kind == "roformer" and self.width // self.heads % 2:
                raise ValueError("rotary positions need an even width of each head")
            return self

    def __init__(self, config: Config, sizes: Sizes, *, pooler: bool) -> None:
        super().__init__()
        self.config = config
        words = config.vocabulary or sizes.get("text") or PUBLISHED[config.kind][0]
        self.network: Any = _network(config, int(words), pooler)

    @property
    def words(self) -> nn.Embedding:
        """The table of word vectors."""
        table: nn.Embedding = self.network.embeddings.word_embeddings
        return table

    def fixed(self) -> Iterable[nn.Module]:
        """Return what is never trained: the sinusoids of rotary positions.

        In the reference they are trained with all else, which ends their being rotations.
        """
        return [self.network.encoder.embed_positions] if self.config.kind == "roformer" else []

    def embed(self, tokens: Tensor) -> Tensor:
        """Return (B, S, H) of token ids (B, S), all of the first type."""
        embedded: Tensor = self.network.embeddings(input_ids=tokens)
        return embedded

    def encode(self, hidden: Tensor, mask: Tensor) -> Tensor:
        """Return (B, P, H) of embedded positions (B, P, H), of which a mask (B, P) says the keys.

        RoFormer turns positions by their number, so what stands after the words has an order; to
        BERT it is a set, unless its embedding says where it is.
        """
        longest = self.config.positions or PUBLISHED[self.config.kind][1]
        if hidden.shape[1] > longest:
            raise ValueError(f"{hidden.shape[1]} positions, and model.text.positions is {longest}")
        # Added, not boolean: RoFormer takes a boolean mask without complaint for numbers 0 and 1.
        keys = torch.zeros_like(hidden[:, None, None, :, 0])  # (B, 1, 1, P)
        keys = keys.masked_fill(~mask.bool()[:, None, None], MASKED)
        encoded: Tensor = self.network.encoder(hidden, attention_mask=keys)[0]
        return encoded

    def pool(self, encoded: Tensor) -> Tensor:
        """Return (B, H), BERT's own summary of the first position."""
        pooled: Tensor = self.network.pooler(encoded)
        return pooled

    def weight_files(self) -> list[str]:
        """Return the file of weights that the folder holds, if it holds one."""
        return weights_in(self.config.source)

    def load_pretrained(self) -> None:
        """Load the folder's weights; say so where there are none.

        Raises:
            WeightsError: the folder is of another model, or of other sizes.
        """
        load_text_folder(self.network, self.config.source)


def _network(config: TextEncoder.Config, words: int, pooler: bool) -> nn.Module:
    shared: dict[str, Any] = {
        "vocab_size": words,
        "hidden_size": config.width,
        "num_hidden_layers": config.layers,
        "num_attention_heads": config.heads,
        "intermediate_size": config.inner_width,
        "hidden_act": "gelu",
        "hidden_dropout_prob": config.dropout,
        "attention_probs_dropout_prob": config.dropout,
        "max_position_embeddings": config.positions or PUBLISHED[config.kind][1],
        "type_vocab_size": TOKEN_TYPES,
        "layer_norm_eps": LAYER_NORM_EPS,
        "initializer_range": INITIAL_STD,
        "pad_token_id": 0,
    }
    if config.kind == "bert":
        network: nn.Module = BertModel(BertConfig(**shared), add_pooling_layer=pooler)
        return network
    roformer: nn.Module = RoFormerModel(
        RoFormerConfig(**shared, embedding_size=config.width, rotary_value=False)
    )
    return roformer
