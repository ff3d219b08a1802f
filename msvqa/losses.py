"""Every loss: functions of tensors that return one value per question, or row of the batch."""

from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor
from torch.nn import functional

# Legend: Q questions, N nodes (clips), D width, A answers; B rows against N of all workers;
# L tags, X experts; K layers, n tokens, C channels; F vectors of a medium, such as those of its
# frames.

SMALLEST_NORM = 1e-6
"""Nodes nearer than this to their mean have no direction.

A graph can attend alike from every node, which makes its nodes equal. The reference divides by at
least 1e-12, so that in single precision the rounding errors of equal nodes pass as directions, with
huge gradients: its float32 consistency is then 20 % away from its float64 one. All else is equal.
"""

MIXTURE_TEMPERATURE, SMALLEST_SHARE = 2.0, 1e-8
SMALLEST_SIMILARITY, ADDED_TO_NORMS = 1e-7, 1e-5


def cross_entropy(logits: Tensor, answer: Tensor, smoothing: float = 0.0) -> Tensor:
    """Return the negative log-probability (Q,) of the right answers, from logits (Q, A).

    Args:
        logits: of all answers.
        answer: int64 (Q,), the right ones; -100, which is none, counts 0.
        smoothing: this part of the target is spread over all answers alike (Szegedy et al., 2016,
            https://arxiv.org/abs/1512.00567, section 7).
    """
    return functional.cross_entropy(
        _precise(logits), answer, reduction="none", label_smoothing=smoothing
    )


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


@dataclass(frozen=True)
class Asymmetry:
    """How much less an asymmetric loss minds what is easy."""

    positive: float
    """Exponent of what is missing of the probability of a tag that is there."""
    negative: float
    """Exponent of the probability of a tag that is not there."""
    margin: float
    """Probability at which a tag that is not there counts nothing."""
    smallest: float
    """Of what logarithms are taken."""
    capped: bool = False
    """Whether logarithms are of at most 1 - `smallest`, too."""


ASYMMETRIES = {
    "reference": Asymmetry(0, 1, 0.0, 1e-7, capped=True),
    "paper": Asymmetry(0, 4, 0.05, 1e-8),
    "official_default": Asymmetry(1, 4, 0.05, 1e-8),
}
"""By name: the similarity system's, which is cross-entropy whose negative half is multiplied by the
probability; that of the paper; and that of the paper's program."""


def tag_cross_entropy(logits: Tensor, tags: Tensor) -> Tensor:
    """Return the binary cross-entropy (B,), summed over tags, of logits and tags (B, L)."""
    precise = _precise(logits)
    every = functional.binary_cross_entropy_with_logits(
        precise, tags.to(precise.dtype), reduction="none"
    )
    return every.sum(dim=1)


def asymmetric(logits: Tensor, tags: Tensor, asymmetry: Asymmetry) -> Tensor:
    """Return the asymmetric loss (B,), summed over tags, of logits and tags (B, L).

    Ridnik et al., "Asymmetric Loss For Multi-Label Classification", 2021, equations 4 to 7.

    A factor whose exponent is 0 is left out: as a power its gradient is 0 * inf where a probability
    is 1 in single precision, which ended trainings of the reference.
    """
    present = _precise(logits).sigmoid()  # (B, L)
    # Not 1 - present: of a large logit that is 0 in single precision.
    absent = (_precise(-logits).sigmoid() + asymmetry.margin).clamp(max=1)
    there = tags.to(present.dtype)
    gained = there * _focused(present, asymmetry.positive, asymmetry)
    spared = (1 - there) * _focused(absent, asymmetry.negative, asymmetry)
    return -(gained + spared).sum(dim=1)


def _focused(right: Tensor, exponent: float, asymmetry: Asymmetry) -> Tensor:
    """Return (1 - p)^exponent * log p of the probability of what is right."""
    most = 1 - asymmetry.smallest if asymmetry.capped else None
    logarithm = right.clamp(min=asymmetry.smallest, max=most).log()
    return logarithm if exponent == 0 else (1 - right) ** exponent * logarithm


def mixture_divergence(mixed: Tensor, experts: Tensor) -> Tensor:
    """Return how far the experts' tags (X, B, L) are from the mixture's (B, L), added up, (B,).

    The Kullback-Leibler divergence of softmaxes at temperature 2, without the factor of its square
    that distillation has (Hinton, Vinyals and Dean, 2015).
    """
    whole = (_precise(mixed) / MIXTURE_TEMPERATURE).softmax(dim=1)  # (B, L)
    parts = (_precise(experts) / MIXTURE_TEMPERATURE).softmax(dim=2)  # (X, B, L)
    ratio = (whole + SMALLEST_SHARE).log() - (parts + SMALLEST_SHARE).log()
    return (whole * ratio).sum(dim=(0, 2))


def which_frame(predicted: Tensor, frames: Tensor, real: Tensor, chosen: Tensor) -> Tensor:
    """Return how badly predicted frames (M, D) are told from all others of the batch, (M,).

    Ma, Lou and Ouyang, 2021, https://arxiv.org/abs/2111.01677: cross-entropy over plain inner
    products, without a temperature.

    Args:
        predicted: (M, D), in the order of the chosen frames.
        frames: (B, T, D).
        real: bool (B, T), which of them are no padding.
        chosen: bool (B, T), which of these are predicted.
    """
    with _full_precision(predicted):
        others = _precise(frames)[real]  # (N, D)
        number = real.flatten().cumsum(dim=0).view_as(real) - 1  # (B, T), among the N
        return cross_entropy(_precise(predicted) @ others.T, number[chosen])


def similarity_error(similarity: Tensor, wanted: Tensor) -> Tensor:
    """Return the squared error (B,) of similarities (B,)."""
    return (_precise(similarity) - wanted).square()


def similarity_divergence(similarity: Tensor, wanted: Tensor) -> Tensor:
    """Return s * log(s / c) of wanted similarities s and found ones c, (B,) each.

    The reference gives Keras's Kullback-Leibler divergence two lists of similarities. They are no
    distributions: the value may be negative, and below 1e-7 there is no gradient.
    """
    found = _precise(similarity).clamp(SMALLEST_SIMILARITY, 1)
    label = wanted.to(found.dtype).clamp(SMALLEST_SIMILARITY, 1)
    return label * (label / found).log()


def pearson(similarity: Tensor, wanted: Tensor, temperature: float = 0.2) -> Tensor:
    """Return minus the correlation () of softmaxed similarities (B,) with the wanted ones (B,).

    As in the system of the contest that trains so, 1e-5 is added to what is divided by: a batch of
    equal labels, which has no correlation, counts 0.
    """
    found = (_precise(similarity) / temperature).softmax(dim=0)
    centred = [values - values.mean() for values in (found, wanted.to(found.dtype))]
    norms = [values.norm() for values in centred]
    loss: Tensor = -(centred[0] @ centred[1]) / (norms[0] * norms[1] + ADDED_TO_NORMS)
    return loss


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
