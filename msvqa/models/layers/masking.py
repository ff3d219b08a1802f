"""Which tokens of a clip a student sees, as a function of given draws.

Paper: Li et al., "Unmasked Teacher", ICCV 2023, section 3.1. Draws are from the exponential
distribution: the largest weights / draws are a sample without replacement, as probable as the
weights say (Efraimidis and Spirakis, 2006). This is what a multinomial draw does, but all at once,
and known in advance to a test.
"""

import torch
from einops import rearrange
from torch import Tensor

# Legend: V clips, T frames, N tokens of a frame, n visible ones of a clip.

SMALLEST_WEIGHT = 1e-12
"""A token without attention can still be drawn, after all others."""


def visible_count(tokens: int, ratio: float) -> int:
    """Return how many of so many tokens stay visible when a part is hidden, as UMT rounds it."""
    return tokens - int(tokens * ratio)


def by_attention(attention: Tensor, draws: Tensor, ratio: float) -> Tensor:
    """Return visible tokens int64 (V, n), as many in each frame, in the order of the clip.

    Args:
        attention: weights (V, T, N).
        draws: exponential (V, T, N).
        ratio: which part of a frame's tokens is hidden.
    """
    times, tokens = attention.shape[1:]
    weight = attention.to(torch.promote_types(attention.dtype, torch.float32))
    chosen = _largest(weight.clamp(min=SMALLEST_WEIGHT) / draws, visible_count(tokens, ratio))
    offset = torch.arange(times, device=chosen.device)[:, None] * tokens
    return rearrange(chosen + offset, "v t n -> v (t n)")


def tube(draws: Tensor, times: int, ratio: float) -> Tensor:
    """Return visible tokens (V, n) that are the same in all frames, from draws (V, N)."""
    tokens = draws.shape[1]
    chosen = _largest(1 / draws, visible_count(tokens, ratio))
    offset = torch.arange(times, device=draws.device)[:, None] * tokens  # (T, 1)
    return rearrange(chosen[:, None] + offset, "v t n -> v (t n)")


def anywhere(draws: Tensor, ratio: float) -> Tensor:
    """Return visible tokens (V, n) of a whole clip, from draws (V, T·N)."""
    return _largest(1 / draws, visible_count(draws.shape[1], ratio))


def hidden(visible: Tensor, tokens: int) -> Tensor:
    """Return a mask bool (V, T·N), true where a token is hidden, of visible tokens (V, n)."""
    mask = torch.ones(len(visible), tokens, dtype=torch.bool, device=visible.device)
    return mask.scatter(1, visible, False)


def _largest(scores: Tensor, count: int) -> Tensor:
    return scores.topk(count, dim=-1).indices.sort(dim=-1).values
