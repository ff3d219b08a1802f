"""Weights of a published BERT under the names of its two halves, `text` and `fusion`.

Devlin et al., "BERT", 2019, https://arxiv.org/abs/1810.04805: the first layers read a text alone,
the last ones see a clip too, as in Li et al., "Align before Fuse", NeurIPS 2021.
"""

import re
from collections import defaultdict
from collections.abc import Mapping

import torch
from torch import Tensor

from msvqa.errors import WeightsError
from msvqa.models.language.text_folder import with_new_name

LAYER = re.compile(r"encoder\.layer\.(\d+)\.(.+)\.(weight|bias)")
INSIDE = {
    **{f"attention.self.{name}": f"own.{name}" for name in ("query", "key", "value")},
    **{f"crossattention.self.{name}": f"cross.{name}" for name in ("query", "key", "value")},
    "attention.output.dense": "own.output",
    "attention.output.LayerNorm": "own.norm",
    "crossattention.output.dense": "cross.output",
    "crossattention.output.LayerNorm": "cross.norm",
    "intermediate.dense": "inner",
    "output.dense": "outer",
    "output.LayerNorm": "norm",
}
"""Of a layer: theirs to ours."""
AROUND = {
    "embeddings.word_embeddings": ("text", "words"),
    "embeddings.position_embeddings": ("text", "places"),
    "embeddings.LayerNorm": ("text", "norm"),
    "cls.predictions.transform.dense": ("word_head", "dense"),
    "cls.predictions.transform.LayerNorm": ("word_head", "norm"),
}
"""Of what is around the layers: theirs to ours, with the part."""
HEAD_BIAS = "cls.predictions.bias"
HEAD_WEIGHT, WORDS = "cls.predictions.decoder.weight", "embeddings.word_embeddings.weight"
TYPES, PLACES = "embeddings.token_type_embeddings.weight", "places.weight"
LEFT_OUT = (
    *("pooler.", "cls.seq_relationship.", "cls.predictions.decoder.", TYPES),
    "embeddings.position_ids",
)
"""Beginnings of names that neither half has: of BERT's summary, of its second task, of the words
that its head shares with its embedding, and what is computed or added elsewhere."""
UNKNOWN = "unknown"

Parts = Mapping[str, Mapping[str, Tensor]]
"""Weights by part and name: of `text`, `fusion`, `word_head`, and what is `unknown`."""


def halves(weights: Mapping[str, Tensor], depth: int, source: str) -> Parts:
    """Return the weights of a BERT by our parts and names.

    Args:
        weights: with names such as `bert.encoder.layer.0.attention.self.query.weight`, with or
            without `bert.`.
        depth: layers of the first half.
        source: what the weights are called in messages.

    Raises:
        WeightsError: the head has words of its own.
    """
    given = {_short(name): value for name, value in weights.items()}
    head, words = given.get(HEAD_WEIGHT), given.get(WORDS, torch.zeros(0))
    if head is not None and not torch.equal(head, words):
        raise WeightsError(
            f"{source}: the words of its head ({HEAD_WEIGHT}) are not those of its embedding, and "
            "here both are one"
        )
    parts: defaultdict[str, dict[str, Tensor]] = defaultdict(dict)
    for name, value in given.items():
        if not name.startswith(LEFT_OUT):
            part, own = _own_name(name, depth)
            parts[part][own] = value
    if TYPES in given and PLACES in parts["text"]:
        # A text here is always of the first type, which BERT adds to each of its places. Trained on
        # they are one table, not two.
        parts["text"][PLACES] = parts["text"][PLACES] + given[TYPES][0]
    return parts


def _short(name: str) -> str:
    return with_new_name(name.removeprefix("bert."))


def _own_name(name: str, depth: int) -> tuple[str, str]:
    """Return our part and our name in it of one of BERT's weights."""
    if name == HEAD_BIAS:
        return "word_head", "bias"
    found = LAYER.fullmatch(name)
    if found and found[2] in INSIDE:
        number, own = int(found[1]), f"{INSIDE[found[2]]}.{found[3]}"
        is_text = number < depth
        return "text" if is_text else "fusion", f"layers.{number - depth * (not is_text)}.{own}"
    around, _, kind = name.rpartition(".")
    if around in AROUND:
        part, own = AROUND[around]
        return part, f"{own}.{kind}"
    return UNKNOWN, name
