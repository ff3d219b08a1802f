"""Similarity: how alike two videos are is the cosine of their embeddings."""

from collections.abc import Sequence
from typing import ClassVar

import torch
from pydantic import Field
from torch import Tensor
from torch.nn import functional

from msvqa import collectives, losses
from msvqa.data.batch import Batch, weighted_mean
from msvqa.models.layers.described import Described
from msvqa.models.model import Model
from msvqa.objectives.describing import Describing, videos_of

# Legend: B pairs of one worker's batch, W workers, E embedding width, L tags.


class Similarity(Describing):
    """loss = error + divergence * d + tags * t - correlation * r.

    Error and divergence are sums over the pairs of the whole batch, as in the reference, the tags'
    loss the mean over its videos. The two sides of the pairs are passed one after the other: in one
    pass batch norm would have other statistics.
    """

    class Config(Describing.Config):
        """Weights of the losses."""

        name: str = "similarity"
        error: float = Field(default=1.0, ge=0)
        """Weight of the squared error."""
        divergence: float = Field(default=0.5, ge=0)
        tags: float = Field(default=1.0, ge=0)
        correlation: float = Field(default=0.0, ge=0)
        """Weight of the correlation of softmaxed cosines with the labels, over the whole batch."""

    config: Config
    evaluator: ClassVar[str] = "similarity"

    def __init__(self, config: Config, model: Model) -> None:
        super().__init__(config, model)
        self.sees_whole_batch = config.correlation > 0

    def loss(self, batch: Batch) -> dict[str, Tensor]:
        """Return the loss and its parts, those with a weight of 0 left out."""
        sides = [videos_of(batch, side) for side in range(2)]
        described = [(self.model.describe(side), side["tag_indices"]) for side in sides]
        return self.combined(described, batch)

    def combined(
        self, sides: Sequence[tuple[Described, Tensor]], batch: Batch
    ) -> dict[str, Tensor]:
        """Return the loss and its parts of what the model says of both sides, beside their tags."""
        config, wanted = self.config, batch["similarity"]
        found = self.cosines(*(described for described, _ in sides))  # (B,)
        parts = {"error": _summed(losses.similarity_error(found, wanted), batch)}
        if config.divergence:
            apart = losses.similarity_divergence(found, wanted)
            parts["divergence"] = _summed(apart, batch)
        if config.tags:
            both = [self.tag_losses(described.logits, tags) for described, tags in sides]
            parts["tags"] = weighted_mean(torch.stack(both).mean(dim=0), batch)
        if config.correlation:
            parts["correlation"] = _correlation(found, batch)
        weights = config.model_dump(include=set(parts))
        total = torch.stack([weights[name] * value for name, value in parts.items()]).sum()
        return {"loss": total, **parts}

    def cosines(self, first: Described, second: Described) -> Tensor:
        """Return the cosine (B,) of both sides' embeddings, in full precision; 0 where one is 0."""
        precise = torch.promote_types(first.embedding.dtype, torch.float32)
        with torch.autocast(first.embedding.device.type, enabled=False):
            return functional.cosine_similarity(
                first.embedding.to(precise), second.embedding.to(precise), dim=1
            )

    def predict(self, batch: Batch) -> dict[str, Tensor]:
        """Return the `similarity` (B,) of each pair."""
        first, second = (self.model.describe(videos_of(batch, side)) for side in range(2))
        return {"similarity": self.cosines(first, second)}


def _summed(values: Tensor, batch: Batch) -> Tensor:
    """Return what averaged over the workers is the sum over the pairs of the whole batch."""
    return (values * batch["weight"].to(values.dtype)).sum() * batch["workers"].to(values.dtype)


def _correlation(found: Tensor, batch: Batch) -> Tensor:
    """Return the loss () over the pairs of all workers, without those that fill up a batch."""
    counts = collectives.gather(batch["weight"]) > 0
    wanted = collectives.gather(batch["similarity"])[counts]
    return losses.pearson(collectives.gather(found)[counts], wanted)
