"""Hard negatives for matching: pairs that look alike and do not belong together.

Paper: Li et al., "Align before Fuse", NeurIPS 2021, section 3.2, with the floor of BLIP-2.
"""

from typing import NamedTuple

import torch
from torch import Tensor

# Legend: B pairs of a medium and a text.

FLOOR = 1e-4
"""Added to each probability, so that every negative can be drawn. UMT's program adds it inside the
softmax, where it changes nothing."""


def negative_weights(logits: Tensor, matches: Tensor, floor: float = FLOOR) -> Tensor:
    """Return how probable each of B others is as a negative of each row, (B, B), unnormalised.

    Args:
        logits: similarities of rows and columns divided by the temperature.
        matches: bool (B, B), what belongs together and is never a negative.
        floor: added to all but these.
    """
    return (logits.softmax(dim=1) + floor).masked_fill(matches, 0)


class Negatives(NamedTuple):
    """A negative for each row."""

    chosen: Tensor
    """int64 (B,), which column; where there is none, the first."""
    found: Tensor
    """bool (B,), whether there is one."""


def draw_negatives(weights: Tensor, draws: Tensor) -> Negatives:
    """Return one column of each row, as probable as weights (B, B) say.

    The largest weight / draw is it, of exponential draws (B, B). A row without weights has none,
    as where a batch is one pair, or all of it belongs together: a multinomial draw would fail.
    """
    return Negatives((weights / draws).argmax(dim=1), weights.sum(dim=1) > 0)


def paired_rows(video_for_text: Tensor, text_for_video: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """Return media, texts and labels of 3·B pairs, (3·B,) each.

    First all pairs that belong together (label 1), then each text with its negative medium, then
    each medium with its negative text.
    """
    own = torch.arange(len(video_for_text), device=video_for_text.device)
    labels = torch.cat([torch.ones_like(own), torch.zeros_like(own), torch.zeros_like(own)])
    return torch.cat([own, video_for_text, own]), torch.cat([own, own, text_for_video]), labels
