"""Published weights of UMT's second stage, and of BERT, taken over part by part.

What a file has of a part must be the whole part, by names and shapes; what it has nothing of begins
with chance, and that is said.
"""

import logging
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

from torch import Tensor, nn

from msvqa.errors import WeightsError
from msvqa.models.language.bert_halves import UNKNOWN, halves
from msvqa.models.language.text_folder import WEIGHTS, check_description, weights_in
from msvqa.models.layers.text_transformer import TextConfig
from msvqa.models.layers.video_transformer import published
from msvqa.models.weight_files import read_weights
from msvqa.models.weights import check_names, listed

if TYPE_CHECKING:
    from msvqa.models.umt import UMT

logger = logging.getLogger(__name__)

VIDEO, HEADS, TEXT = "vision_encoder.encoder.", "vision_encoder.clip_decoder.", "text_encoder."
PROJECTIONS = {
    "vision_encoder.pool_norm.weight": "norm.weight",
    "vision_encoder.pool_norm.bias": "norm.bias",
    **{f"vision_proj.{kind}": f"video.{kind}" for kind in ("weight", "bias")},
    **{f"text_proj.{kind}": f"text.{kind}" for kind in ("weight", "bias")},
    "temp": "temperature",
}
"""Theirs to ours."""
MATCHING = "itm_head."
TEACHER = "clip_teacher."
"""The teacher, which training left in the file; ours is read from a file of its own."""
BEGINS_WITH_CHANCE = ".cross."
"""What fusion layers have that layers of BERT have not."""


class _Piece(NamedTuple):
    """What a file has for a module."""

    name: str
    module: nn.Module
    given: Mapping[str, Tensor]


def load_second_stage(model: "UMT", file: str) -> None:
    """Load a published file of the second stage into all parts that the model has of it.

    Raises:
        WeightsError: says of which part what is missing, unknown or of another shape.
    """
    config = model.config
    if not {"text", "fusion"} <= model.absent and not model.word_ids.are_pieces:
        raise WeightsError(
            f"{file}: its texts are pieces of words, and those of the data are words: "
            "data.tokenizer=DIR, with its vocab.txt"
        )
    weights = read_weights(file)
    video, above = published(weights, config.video.depth, VIDEO)
    text = halves(_below(weights, TEXT), config.text.depth, file)
    own = {ours: weights[theirs] for theirs, ours in PROJECTIONS.items() if theirs in weights}
    starts = (VIDEO, HEADS, TEXT, MATCHING, TEACHER)
    unknown = [n for n in weights if not n.startswith(starts) and n not in PROJECTIONS]
    if found := [*unknown, *(f"{TEXT}{name}" for name in text.get(UNKNOWN, {})), *above]:
        raise WeightsError(f"{file} has weights that no part of the model has: {listed(found)}")
    pieces = {
        "video": video, "heads": _below(weights, HEADS), "projections": own,
        "text": text.get("text", {}), "fusion": text.get("fusion", {}),
        "word_head": text.get("word_head", {}), "matching": _below(weights, MATCHING),
    }  # fmt: skip
    _load(_pieces(model, pieces), file)


def load_bert(model: "UMT", folder: str) -> None:
    """Load a published BERT into both halves, and its head into that of hidden words.

    Raises:
        WeightsError: no such folder, it holds no weights, or is of another model: lists all.
    """
    text, words = model.config.text, model.word_ids
    if not words.are_pieces:
        raise WeightsError(
            "model.text.source: BERT reads pieces of words, and the texts of the data are words: "
            f"data.tokenizer={folder}"
        )
    check_description(_description(text, words.count), Path(folder))
    files = weights_in(folder)
    if not files:
        raise WeightsError(f"model.text.source: {folder} has no weights ({' or '.join(WEIGHTS)})")
    parts = halves(read_weights(files[0]), text.depth, files[0])
    if UNKNOWN in parts:
        raise WeightsError(
            f"{files[0]} has weights that no part of the model has: {listed([*parts[UNKNOWN]])}"
        )
    given = {name: parts.get(name, {}) for name in ("text", "fusion", "word_head")}
    _load(_pieces(model, given), files[0])


def _description(text: TextConfig, words: int) -> object:
    from transformers import BertConfig  # slow to import, and few need it

    return BertConfig(
        vocab_size=words,
        hidden_size=text.width,
        num_hidden_layers=text.depth + text.fusion_depth,
        num_attention_heads=text.heads,
        intermediate_size=4 * text.width,
        max_position_embeddings=text.longest,
    )


def _below(weights: Mapping[str, Tensor], start: str) -> dict[str, Tensor]:
    return {n.removeprefix(start): v for n, v in weights.items() if n.startswith(start)}


def _pieces(model: nn.Module, given: Mapping[str, Mapping[str, Tensor]]) -> list[_Piece]:
    """Return what there is for the modules that the model has."""
    there = dict(model.named_children())
    return [_Piece(name, there[name], found) for name, found in given.items() if name in there]


def _load(pieces: Iterable[_Piece], source: str) -> None:
    new: list[str] = []
    for name, module, given in pieces:
        if not given:
            new.append(name)
            continue
        own = module.state_dict()
        crossing = [n for n in own if BEGINS_WITH_CHANCE in n]
        if crossing and not any(BEGINS_WITH_CHANCE in n for n in given):
            new.append(f"the attention of {name} to clips")
        else:
            crossing = []
        expected = {n: tuple(v.shape) for n, v in own.items() if n not in crossing}
        check_names(given, expected, f"{source} ({name})")
        module.load_state_dict({**own, **given})
    if new:
        logger.warning("%s has nothing of these, which begin with chance: %s", source, listed(new))
