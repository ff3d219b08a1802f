"""Tagging: a title and frames must give the tags of a video, and each other.

Contrast of modalities: van den Oord, Li and Vinyals, 2018, https://arxiv.org/abs/1807.03748; masked
words: Devlin et al., 2018, https://arxiv.org/abs/1810.04805
"""

from collections.abc import Collection

import torch
from pydantic import Field
from torch import Tensor
from torch.nn import functional

from msvqa import collectives, losses
from msvqa.data.batch import NO_LABEL, Batch, weighted_mean
from msvqa.errors import RecipeError
from msvqa.models.layers.described import Described, Experts
from msvqa.models.layers.vlad import is_real
from msvqa.models.model import Model
from msvqa.objectives.describing import Describing, videos_of

# Legend: B examples of one worker's batch, W workers, L tags, X experts, H width of an expert,
# S words, T frames, M masked words or frames, D numbers of a frame, E embedding width.

TEMPERATURE = 0.07
MASKED_FRAMES = 0.135
"""Share of the frames that are masked: nine tenths of 15 %."""


class Tagging(Describing):
    """loss = tags + contrastive * c + mixture * d + masked_words * w.

    The tags of a mixture count once for it and once for each expert.
    """

    class Config(Describing.Config):
        """Weights of the losses."""

        name: str = "tagging"
        contrastive: float = Field(default=0.0, ge=0)
        """Weight of how well the frames of a video, as each expert sees them, and its title find
        each other in the batch; for models of several experts."""
        mixture: float = Field(default=0.0, ge=0)
        """Weight of how far experts are from their mixture; for models of several experts."""
        masked_words: float = Field(default=0.0, ge=0)
        """Weight of guessing masked words of the title; for models that predict words."""
        masked_frames: float = Field(default=0.0, ge=0)
        """Weight of telling masked frames from all others of the worker's batch; for models that
        predict frames. An addition to the published system."""

    config: Config
    # Rows are negatives of each other, and masked words have one mean.
    sees_whole_batch: bool = True

    def __init__(self, config: Config, model: Model) -> None:
        super().__init__(config, model)
        name, problems = model.config.name, []
        if not self.model.mixes_experts:
            problems += [
                f"objective.{key}: model {name} has no experts: use 0"
                for key in ("contrastive", "mixture")
                if getattr(config, key)
            ]
        able = {"words": self.model.predicts_words, "frames": self.model.predicts_frames}
        problems += [
            f"objective.masked_{what}: model {name} predicts no {what}: use 0, or give it the part "
            "that does"
            for what in self.guesses()
            if not able[what]
        ]
        if problems:
            raise RecipeError(problems)

    def guesses(self) -> Collection[str]:
        """Return which masked inputs the loss has the model guess."""
        weights = {"words": self.config.masked_words, "frames": self.config.masked_frames}
        return [what for what, weight in weights.items() if weight]

    def loss(self, batch: Batch) -> dict[str, Tensor]:
        """Return the loss and its parts, those with a weight of 0 left out."""
        videos = videos_of(batch)
        if self.config.masked_words and "masked_tokens" in batch:
            videos["tokens"] = batch["masked_tokens"]
        masked = None
        if self.config.masked_frames and self.training:
            masked = _drawn_frames(videos)
            videos["vectors"] = videos["vectors"].masked_fill(masked[..., None], 0)
        described = self.model.describe(videos)
        if masked is None:
            return self.combined(described, batch)
        return self.combined(described, batch, self._masked_frames(described, batch, masked))

    def combined(
        self, described: Described, batch: Batch, frames: Tensor | None = None
    ) -> dict[str, Tensor]:
        """Return the loss and its parts of what the model says of a batch.

        Args:
            described: what it says, one row per example.
            batch: the batch.
            frames: () loss of masked frames, where there are such.
        """
        config = self.config
        parts = {"tags": weighted_mean(self.tags_of_views(described, batch["tag_indices"]), batch)}
        if config.contrastive:
            assert described.experts is not None
            parts["contrastive"] = weighted_mean(self.contrasted(described.experts, batch), batch)
        if config.mixture:
            assert described.experts is not None
            apart = losses.mixture_divergence(described.logits, described.experts.logits)
            parts["mixture"] = weighted_mean(apart, batch)
        if config.masked_words and "token_labels" in batch:
            parts["masked_words"] = self._masked_words(described, batch)
        if frames is not None:
            parts["masked_frames"] = frames
        weights = {"tags": 1.0, **config.model_dump(include=set(parts) - {"tags"})}
        total = torch.stack([weights[name] * value for name, value in parts.items()]).sum()
        return {"loss": total, **parts}

    def predict(self, batch: Batch) -> dict[str, Tensor]:
        """Return the best tags `top` (B, K), best first, and their `probability` (B, K)."""
        logits = self.model.describe(videos_of(batch)).logits.float()
        best = logits.sigmoid().topk(min(self.top_k, logits.shape[1]))
        return {"top": best.indices, "probability": best.values}

    def tags_of_views(self, described: Described, indices: Tensor) -> Tensor:
        """Return the loss (B,) of the mixture's tags and of every expert's."""
        views = [described.logits]
        if described.experts is not None:
            views += [*described.experts.logits]
        return torch.stack([self.tag_losses(logits, indices) for logits in views]).sum(dim=0)

    def _masked_frames(self, described: Described, batch: Batch, masked: Tensor) -> Tensor:
        """Return the mean cross-entropy () of this worker's masked frames; 0 if none is."""
        assert described.frames is not None
        videos = videos_of(batch)
        chosen = masked & (batch["weight"] > 0)[:, None]  # (B, T)
        predicted = self.model.predict_frames(described.frames[chosen])  # (M, D)
        real = is_real(videos["vectors"], videos["num_frames"]).bool()
        found = losses.which_frame(predicted, videos["vectors"], real, chosen)
        return found.sum() / max(len(found), 1)

    def contrasted(self, experts: Experts, batch: Batch) -> Tensor:
        """Return how badly frames and title of each example find each other, (B,), over experts.

        Videos that are in the batch twice, such as those that fill up an epoch's last batch, are no
        negatives of themselves.
        """
        own = batch["video"][batch["video_index"]]  # (B,)
        matches = own[:, None] == collectives.gather(own)[None]  # (B, W·B)
        # Divided by so low a temperature, half precision would leave two digits of a similarity.
        with torch.autocast(own.device.type, enabled=False):
            text = _unit(experts.text)
            all_text = collectives.gather(text)  # (W·B, H)
            found = []
            for view in experts.vision:
                vision = _unit(view)
                to_text = vision @ all_text.T / TEMPERATURE  # (B, W·B)
                to_vision = text @ collectives.gather(vision).T / TEMPERATURE
                found += [losses.contrastive(logits, matches) for logits in (to_text, to_vision)]
            return torch.stack(found).mean(dim=0)

    def _masked_words(self, described: Described, batch: Batch) -> Tensor:
        """Return the mean cross-entropy () of the masked words of all workers; 0 if none is."""
        assert described.words is not None
        counts = (batch["token_labels"] != NO_LABEL) & (batch["weight"] > 0)[:, None]  # (B, S)
        logits = self.model.predict_words(described.words[counts])  # (M, W)
        summed = losses.cross_entropy(logits, batch["token_labels"][counts]).sum()
        everywhere = collectives.gather(counts.sum().to(summed.dtype)[None]).sum()
        # Averaged over workers, the sums are then those of one process with the whole batch.
        return summed * collectives.worker_count() / everywhere.clamp(min=1)


def _drawn_frames(videos: Batch) -> Tensor:
    """Return which of the frames (B, T) are masked, by the random numbers of the step."""
    vectors = videos["vectors"]
    drawn = torch.rand(vectors.shape[:2], device=vectors.device) < MASKED_FRAMES
    return drawn & is_real(vectors, videos["num_frames"]).bool()


def _unit(rows: Tensor) -> Tensor:
    precise = rows.to(torch.promote_types(rows.dtype, torch.float32))
    return functional.normalize(precise, dim=1)
