"""A bidirectional LSTM over padded sequences that never asks the device for their lengths."""

import torch
from torch import Tensor, nn

# Legend: N sequences, T positions, W input width, H output width of both directions together.


class BidirectionalLSTM(nn.Module):
    """One layer in both directions; equals `nn.LSTM(bidirectional=True)` over packed sequences.

    Packing needs the lengths on the CPU. Here the second direction reads every sequence with its
    valid part reversed, so its padding stays behind the end and cannot reach the results.
    """

    def __init__(self, input_size: int, hidden_size: int) -> None:
        super().__init__()
        if hidden_size % 2:
            raise ValueError(f"hidden_size = {hidden_size} is not even: half for each direction")
        self.forwards = nn.LSTM(input_size, hidden_size // 2, batch_first=True)
        self.backwards = nn.LSTM(input_size, hidden_size // 2, batch_first=True)

    def forward(self, sequence: Tensor, length: Tensor | None = None) -> tuple[Tensor, Tensor]:
        """Return the outputs (N, T, H), zero behind the end, and the two last states (N, H).

        Args:
            sequence: (N, T, W).
            length: (N,) valid positions, at least 1; all T where not given.
        """
        number, steps = sequence.shape[:2]
        if length is None:
            length = torch.full((number,), steps, device=sequence.device)
        position = torch.arange(steps, device=sequence.device).expand(number, steps)  # (N, T)
        valid = position < length[:, None]
        reverse = torch.where(valid, length[:, None] - 1 - position, position)
        forwards, _ = self.forwards(sequence)  # (N, T, H/2)
        backwards, _ = self.backwards(_reorder(sequence, reverse))
        last = (length - 1)[:, None]
        final = torch.cat([_reorder(forwards, last), _reorder(backwards, last)], dim=2)
        outputs = torch.cat([forwards, _reorder(backwards, reverse)], dim=2)
        return outputs * valid[..., None], final.squeeze(1)


def _reorder(sequence: Tensor, position: Tensor) -> Tensor:
    """Return `sequence[n, position[n, t]]` for all n and t."""
    return sequence.gather(1, position[..., None].expand(-1, -1, sequence.shape[2]))
