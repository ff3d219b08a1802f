"""The names that DualVGR's program gives to weights, in both directions.

Every tensor of ours is one tensor of the reference, or the four heads of a graph attention on top
of each other.
"""

import re
from collections.abc import Iterable, Mapping

import torch
from torch import Tensor

from msvqa.models.weights import check_names

_GRAPHS = {
    "specific_appearance": "appearance_GCN",
    "common_appearance": "acGCN",
    "specific_motion": "motion_GCN",
    "common_motion": "mcGCN",
}
_PREFIXES = (
    ("question.embedding.", "linguistic_input_unit.encoder_embed."),
    ("question.contextual.", "linguistic_input_unit.concatRNN.rnn."),
    ("question.sentence.", "linguistic_input_unit.encoder."),
    ("appearance.lstm.", "visual_appearance_input_unit.encoder."),
    ("motion.", "visual_motion_input_unit."),
    ("reasoning.question_attention.", "visual_input_unit.queryAttn."),
    ("reasoning.punish_appearance.", "visual_input_unit.queryPunish_appear."),
    ("reasoning.punish_motion.", "visual_input_unit.queryPunish_motion."),
    *((f"reasoning.{ours}.", f"visual_input_unit.{theirs}.") for ours, theirs in _GRAPHS.items()),
    ("reasoning.view_appearance.", "visual_input_unit.attention_appearance."),
    ("reasoning.view_motion.", "visual_input_unit.attention_motion."),
    ("fusion.appearance.", "visual_input_unit.visualfusion.linear0."),
    ("fusion.motion.", "visual_input_unit.visualfusion.linear1."),
    ("fusion.output.", "visual_input_unit.visualfusion.linear_out."),
    ("readout.project.", "feature_aggregation.v_proj."),
    ("readout.score.", "feature_aggregation.attn."),
    ("answer.question.", "output_unit.question_proj."),
    ("answer.hidden.", "output_unit.classifier.1."),
    ("answer.norm.", "output_unit.classifier.3."),
    ("answer.output.", "output_unit.classifier.5."),
)
"""Beginnings of names, ours and theirs; the rest is the same but for `_RESTS`."""

_RESTS = (
    (r"(queryAttn\.\d+)\.enhance\.", r"\1.feat_enhance."),
    (r"(queryAttn\.\d+)\.score\.", r"\1.fc."),
    (r"(queryPunish_\w+\.\d+)\.project\.", r"\1.query_weight."),
    (r"(attention_\w+\.\d+)\.project\.", r"\1.project.0."),
    (r"(attention_\w+\.\d+)\.score\.", r"\1.project.2."),
    (r"\.forwards\.(\w+)$", r".\1"),
    (r"\.backwards\.(\w+)$", r".\1_reverse"),
    (r"(GCN\.\d+)\.project\.(weight|bias)$", r"\1.attention_{head}.W.\2"),
    (r"(GCN\.\d+)\.pair$", r"\1.attention_{head}.a.weight"),
    (r"(GCN\.\d+)\.pair_bias$", r"\1.attention_{head}.a.bias"),
)


def reference_names(name: str, heads: int) -> list[str]:
    """Return the reference's name of a tensor of `GraphNetwork`, or its names, one per head."""
    ours, theirs = next((o, t) for o, t in _PREFIXES if name.startswith(o))
    name = theirs + name.removeprefix(ours)
    for pattern, replacement in _RESTS:
        name = re.sub(pattern, replacement, name)
    if "{head}" not in name:
        return [name]
    return [name.format(head=head) for head in range(heads)]


def to_reference(state: Mapping[str, Tensor], heads: int) -> dict[str, Tensor]:
    """Return the weights of a `GraphNetwork` under the reference's names."""
    renamed: dict[str, Tensor] = {}
    for name, value in state.items():
        names = reference_names(name, heads)
        parts = value.chunk(heads) if len(names) > 1 else [value]
        renamed |= zip(names, parts, strict=True)
    return renamed


def from_reference(
    state: Mapping[str, Tensor], own: Mapping[str, Tensor], heads: int, source: str
) -> dict[str, Tensor]:
    """Return weights of the reference under the names of a `GraphNetwork`'s state dict `own`.

    Raises:
        WeightsError: lists missing names, unknown names and wrong shapes, in the reference's words.
    """
    expected = {name: tuple(value.shape) for name, value in to_reference(own, heads).items()}
    check_names(state, expected, source)
    return {
        name: _joined([state[theirs] for theirs in reference_names(name, heads)])
        for name in own
        if all(theirs in state for theirs in reference_names(name, heads))
    }


def count(names: Iterable[str], pattern: str) -> int:
    """Return how many different numbers stand at the group of a pattern in the names."""
    found = (re.search(pattern, name) for name in names)
    return len({match[1] for match in found if match})


def _joined(parts: list[Tensor]) -> Tensor:
    return parts[0] if len(parts) == 1 else torch.cat(parts)
