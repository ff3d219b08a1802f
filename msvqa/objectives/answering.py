"""Answering: cross-entropy of the answer, with DualVGR's two losses on its graphs."""

from collections.abc import Iterable
from typing import ClassVar, Literal

import torch
from pydantic import Field
from torch import Tensor, nn

from msvqa import losses
from msvqa.data.batch import Batch, weighted_mean
from msvqa.models.layers.network import GraphModel, Reasoned
from msvqa.objectives.objective import Objective

# Legend: Q questions, A answers, K best answers.


class Answering(Objective):
    """loss = cross-entropy + alpha * consistency + beta * dependence.

    Consistency and dependence are means over the graph steps.
    """

    class Config(Objective.Config):
        """Weights of the losses."""

        name: str = "answering"
        alpha: float = Field(default=1.0, ge=0)
        """Weight of the consistency of the two correlated views."""
        beta: float = Field(default=1e-8, ge=0)
        """Weight of the dependence between specific and correlated views."""
        dependence: Literal["sum", "mean"] = "sum"
        """The reference sums over the batch; `mean` needs beta * questions for the same effect."""

    config: Config
    model: GraphModel
    evaluator: ClassVar[str] = "question_answering"

    def frozen(self) -> Iterable[nn.Module]:
        """Return what answering never runs, such as the pixel decoders."""
        return self.model.unused_in_answering()

    def loss(self, batch: Batch) -> dict[str, Tensor]:
        """Return the loss and its parts, and the accuracy on the batch."""
        reasoned: Reasoned = self.model.answer(batch)
        answer = batch["answer"]
        entropy = weighted_mean(losses.cross_entropy(reasoned.logits, answer), batch)
        consistency = weighted_mean(_consistency(reasoned), batch)
        dependence = self._reduce(_dependence(reasoned), batch)
        right = reasoned.logits.detach().argmax(dim=1) == answer
        return {
            "loss": entropy + self.config.alpha * consistency + self.config.beta * dependence,
            "cross_entropy": entropy,
            "consistency": consistency,
            "dependence": dependence,
            "accuracy": weighted_mean(right.to(entropy.dtype), batch),
        }

    def predict(self, batch: Batch) -> dict[str, Tensor]:
        """Return the best answers `top` (Q, K), best first, and their `probability` (Q, K)."""
        logits = self.model.answer(batch).logits.float()
        best = torch.softmax(logits, dim=1).topk(min(self.top_k, logits.shape[1]))
        return {"top": best.indices, "probability": best.values}

    def _reduce(self, values: Tensor, batch: Batch) -> Tensor:
        if self.config.dependence == "mean":
            return weighted_mean(values, batch)
        # The average over workers must be the sum over the global batch.
        return (values * batch["weight"].to(values.dtype)).sum() * batch["workers"].to(values.dtype)


def _consistency(reasoned: Reasoned) -> Tensor:
    pairs = zip(reasoned.common_appearance, reasoned.common_motion, strict=True)
    return torch.stack([losses.consistency(a, m) for a, m in pairs]).mean(dim=0)


def _dependence(reasoned: Reasoned) -> Tensor:
    appearance = zip(reasoned.specific_appearance, reasoned.common_appearance, strict=True)
    motion = zip(reasoned.specific_motion, reasoned.common_motion, strict=True)
    terms = [
        losses.dependence(*a) + losses.dependence(*m)
        for a, m in zip(appearance, motion, strict=True)
    ]
    return torch.stack(terms).mean(dim=0)
