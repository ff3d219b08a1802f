"""Classification: which label a medium has.

Label smoothing: Szegedy et al., 2016, https://arxiv.org/abs/1512.00567, section 7.
"""

from collections.abc import Iterable
from typing import ClassVar, Protocol, cast

import torch
from einops import rearrange
from pydantic import Field
from torch import Tensor, nn

from msvqa import losses
from msvqa.data.batch import NO_LABEL, Batch, weighted_mean
from msvqa.errors import RecipeError
from msvqa.models.model import Model
from msvqa.objectives.mixing import MixingConfig, mix
from msvqa.objectives.objective import Objective

# Legend: V media, W views of each, T frames, H x H pixels, Q examples, A labels, K best labels.


class Classifying(Protocol):
    """What classification asks of a model."""

    def classify(self, batch: Batch) -> Tensor:
        """Return logits (V, A) of all labels for each medium."""
        ...

    def unclassified(self) -> Iterable[nn.Module]:
        """Return what `classify` never runs."""
        ...


class Classification(Objective):
    """loss = cross-entropy of the label.

    In training a medium may have several clips (`repeats` of the processor `frames`), and clips may
    be mixed. In evaluation a medium may be seen in several views, see its `views` and `crops`: the
    probabilities of all views are averaged, as in the published evaluation of UMT.
    """

    class Config(Objective.Config):
        """What the target is."""

        name: str = "classification"
        smoothing: float = Field(default=0.1, ge=0, lt=1)
        """This part of the target is spread over all labels alike."""
        mixing: MixingConfig = MixingConfig()
        """In training: clips that are partly others."""

    config: Config
    evaluator: ClassVar[str] = "classification"

    def __init__(self, config: Config, model: Model) -> None:
        if not hasattr(model, "classify"):
            name = model.config.name
            raise RecipeError([f"objective classification needs a model with classify, not {name}"])
        if "classifier" in model.absent:
            raise RecipeError(
                [
                    "parts.classifier: objective classification needs it; it is there where the "
                    "data has labels, as that of labelled_videos"
                ]
            )
        super().__init__(config, model)

    @property
    def _classifying(self) -> Classifying:
        return cast(Classifying, self.model)

    def frozen(self) -> Iterable[nn.Module]:
        """Return what classification never runs."""
        return self._classifying.unclassified()

    def loss(self, batch: Batch) -> dict[str, Tensor]:
        """Return the loss, and the accuracy on the batch: of mixed clips that of the larger part.

        Of several clips of a medium, the mean.
        """
        frames = batch["frames"]
        views = frames.shape[1] if frames.ndim == 6 else 1
        clips = frames.flatten(0, 1) if frames.ndim == 6 else frames  # (V·W, T, H, H, 3)
        mixed = mix(clips, self.config.mixing) if self.training else None
        seen = batch | {"frames": clips if mixed is None else mixed.frames}
        places = torch.arange(views, device=clips.device)
        index = (batch["video_index"][:, None] * views + places).flatten()  # (Q·W,)
        logits = self._classifying.classify(seen)[index]  # (Q·W, A)
        label = batch["label"].repeat_interleave(views)  # (Q·W,)
        each = losses.cross_entropy(logits, label, self.config.smoothing)
        if mixed is not None:
            # Of training examples each has a medium of its own, and so a label.
            of_clips = torch.full_like(mixed.other, NO_LABEL).scatter(0, index, label)
            other = of_clips[mixed.other[index]]
            of_other = losses.cross_entropy(logits, other, self.config.smoothing)
            each = mixed.own * each + (1 - mixed.own) * of_other
            label = label if mixed.own >= 0.5 else other
        right = (logits.detach().argmax(dim=1) == label).to(each.dtype)
        return {
            "loss": weighted_mean(each.view(-1, views).mean(dim=1), batch),
            "accuracy": weighted_mean(right.view(-1, views).mean(dim=1), batch),
        }

    def predict(self, batch: Batch) -> dict[str, Tensor]:
        """Return the best labels `top` (Q, K), best first, and their `probability` (Q, K)."""
        probability = self._probability(batch)[batch["video_index"]]  # (Q, A)
        best = probability.topk(min(self.top_k, probability.shape[1]))
        return {"top": best.indices, "probability": best.values}

    def _probability(self, batch: Batch) -> Tensor:
        """Return the probability (V, A) of each label, the mean over the views of a medium."""
        frames = batch["frames"]
        if frames.ndim == 5:
            return torch.softmax(self._classifying.classify(batch).float(), dim=1)
        views = rearrange(frames, "v w ... -> (v w) ...")  # (V·W, T, H, H, 3)
        logits = self._classifying.classify(batch | {"frames": views}).float()  # (V·W, A)
        of_views = rearrange(torch.softmax(logits, dim=1), "(v w) a -> v w a", v=len(frames))
        return of_views.mean(dim=1)
