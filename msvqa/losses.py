"""Every loss: functions of tensors that return one value per question, or row of the batch."""

from typing import Literal

import torch
from torch import Tensor
from torch.nn import functional

# Legend: Q questions, N nodes (clips), D width, A answers; B rows against N of all workers; K
# layers, n tokens, C channels; F vectors of a medium, such as those of its frames.

SMALLEST_NORM = 1e-6
"""Nodes nearer than this to their mean have no direction.

A graph can attend alike from every node, which makes its nodes equal. The reference divides by at
least 1e-12, so that in single precision the rounding errors of equal nodes pass as directions, with
huge gradients: its float32 consistency is then 20 % away from its float64 one. All else is equal.
"""


def cross_entropy(logits: Tensor, answer: Tensor) -> Tensor:
    """Return the negative log-probability (Q,) of the right answers, from logits (Q, A)."""
    return functional.cross_entropy(_precise(logits), answer, reduction="none")


def consistency(first: Tensor, second: Tensor) -> Tensor:
    """Return how differently two embeddings (Q, N, D) see the similarity of nodes, (Q,).

    DualVGR, equation 15: the mean squared difference of the cosine similarities of centred nodes.
    """
    with _full_precision(first):
        similarities = []
        for embedding in (first, second):
            unit = functional.normalize(_centred(embedding), dim=2, eps=SMALLEST_NORM)
            similarities.append(unit @ unit.transpose(1, 2))  # (Q, N, N)
        return (similarities[0] - similarities[1]).square().mean(dim=(1, 2))


def dependence(first: Tensor, second: Tensor) -> Tensor:
    """Return the Hilbert-Schmidt independence criterion (Q,) of two embeddings (Q, N, D).

    DualVGR, equation 17, with linear kernels and without the factor 1 / (N - 1)^2, as in its
    program: trace(R K1 R K2) with the centring R, here as the sum over both centred kernels'
    products. The reference sums this over the batch; it grows with the square of the features'
    norms, hence its tiny weight 1e-8.
    """
    with _full_precision(first):
        kernels = [c @ c.transpose(1, 2) for c in (_centred(first), _centred(second))]
        return (kernels[0] * kernels[1]).sum(dim=(1, 2))


def contrastive(logits: Tensor, matches: Tensor) -> Tensor:
    """Return the negative log-probability (B,) of what matches each row, from logits (B, N).

    InfoNCE (van den Oord, Li and Vinyals, 2018), equation 4, with several matches per row: the
    target is uniform over them, as where one caption belongs to two videos of the batch. A row
    without a match counts 0; one that matches everything has nothing to learn, but stays finite.

    Args:
        logits: similarities divided by the temperature.
        matches: bool (B, N), what belongs together; by unique ids, not by position.
    """
    found = matches.to(_precise(logits).dtype)
    target = found / found.sum(dim=1, keepdim=True).clamp(min=1)  # (B, N)
    return -(functional.log_softmax(_precise(logits), dim=1) * target).sum(dim=1)


def similarity(media: Tensor, texts: Tensor, aggregate: Literal["mean", "max"] = "mean") -> Tensor:
    """Return the similarities (M, B) of media (M, F, D) and texts (B, D), which have length 1.

    That of a medium is the mean or the largest of those of its F vectors.
    """
    each = media @ texts.T  # (M, F, B)
    return each.mean(dim=1) if aggregate == "mean" else each.amax(dim=1)


Comparison = Literal["l2", "mse", "smooth_l1"]


def imitation(
    student: Tensor, teacher: Tensor, kind: Comparison = "l2", *, unit: bool = True
) -> Tensor:
    """Return how far tokens (K, B, n, C) of a student are from those of its teacher, (B,).

    UMT, section 3.1. `l2` is C times `mse` where vectors have length 1: another kind is another
    weight. Without unit length `l2` has no least value.

    Args:
        student: layers of tokens.
        teacher: the same tokens of the teacher.
        kind: `l2` is 2 - 2 s·t, the squared distance of unit vectors.
        unit: whether both are brought to length 1 first.
    """
    student, teacher = _precise(student), _precise(teacher)
    with _full_precision(student):
        if unit:
            student = functional.normalize(student, dim=-1)
            teacher = functional.normalize(teacher, dim=-1)
        if kind == "l2":
            apart = 2 - 2 * (student * teacher).sum(dim=-1, keepdim=True)
        elif kind == "mse":
            apart = (student - teacher).square()
        else:
            apart = functional.smooth_l1_loss(student, teacher, reduction="none")
        return apart.mean(dim=(0, 2, 3))


def squared_error(output: Tensor, target: Tensor) -> Tensor:
    """Return the mean squared error (Q,) over all other axes."""
    return (_precise(output) - target).square().flatten(1).mean(dim=1)


def _centred(embedding: Tensor) -> Tensor:
    embedding = _precise(embedding)
    return embedding - embedding.mean(dim=1, keepdim=True)


def _precise(values: Tensor) -> Tensor:
    return values.to(torch.promote_types(values.dtype, torch.float32))


def _full_precision(values: Tensor) -> torch.autocast:
    """Return a context without half precision: the losses subtract nearly equal numbers."""
    return torch.autocast(values.device.type, enabled=False)
