"""Distillation: a student that sees few tokens of a clip says what its teacher sees in them.

Paper: Li et al., "Unmasked Teacher: Towards Training-Efficient Video Foundation Models", ICCV
2023, section 3.1.
"""

from collections.abc import Iterable
from typing import ClassVar, Literal

import torch
from pydantic import Field, model_validator
from torch import Tensor, nn

from msvqa import losses
from msvqa.data.batch import Batch, is_of_images, weighted_mean
from msvqa.errors import RecipeError
from msvqa.models.layers import masking
from msvqa.models.layers.clip_tower import Lesson
from msvqa.models.model import Model
from msvqa.models.umt import UMT
from msvqa.objectives.draws import exponential
from msvqa.objectives.objective import Objective
from msvqa.sections import Config

# Legend: V media, T frames, N tokens of a frame, n visible ones of a medium, K layers, C width.


class MaskConfig(Config):
    """Which tokens the student sees."""

    kind: Literal["attention", "tube", "random", "none"] = "attention"
    """`attention`: more probably those that the teacher attends to, as many in each frame; `tube`:
    the same of all frames; `random`: any of the clip; `none`: all."""
    ratio: float = Field(default=0.8, ge=0, lt=1)
    """Which part of the tokens is hidden."""
    image_ratio: float | None = Field(default=None, ge=0, lt=1)
    """The same in batches of images alone, `batch.streams: apart`; null: `ratio`."""

    def of(self, batch: Batch) -> "MaskConfig":
        """Return the mask of a batch, whose ratio is that of its kind of media."""
        if self.image_ratio is None or not is_of_images(batch):
            return self
        return self.model_copy(update={"ratio": self.image_ratio})


class ImitationConfig(Config):
    """How student and teacher are compared."""

    kind: losses.Comparison = "l2"
    unit: bool = True
    """Bring both to length 1 first."""

    @model_validator(mode="after")
    def _is_bounded(self) -> "ImitationConfig":
        if self.kind == "l2" and not self.unit:
            raise ValueError("kind l2 has no least value without unit: choose mse")
        return self


class Distillation(Objective):
    """loss = how far the student's last layers are from the teacher's, at visible tokens.

    The teacher is a part of the model without gradients: it is in no optimizer, its weights are in
    no checkpoint where they are from a file, and workers exchange nothing of it in a step.
    """

    class Config(Objective.Config):
        """Mask and comparison."""

        name: str = "distillation"
        mask: MaskConfig = MaskConfig()
        imitation: ImitationConfig = ImitationConfig()
        masks_per_clip: int = Field(default=1, ge=1, le=64)
        """So many masks of each clip in a step of training: one decoding and one look of the
        teacher serve all of them. Memory grows with their number, as with that of clips."""

    config: Config
    model: UMT
    answers_questions: ClassVar[bool] = False

    def __init__(self, config: Config, model: Model) -> None:
        require_parts("distillation", model, ("teacher", "heads"))
        super().__init__(config, model)

    def frozen(self) -> Iterable[nn.Module]:
        """Return the teacher, and what distillation never runs."""
        return self.model.unused({"imitate"})

    def loss(self, batch: Batch) -> dict[str, Tensor]:
        """Return the loss, and its values as `l2` and `mse` on unit vectors: means over masks."""
        lesson = self.model.learn(batch)
        # Evaluation, whose masks are always the same, would look at one of them several times.
        masks = self.config.masks_per_clip if self.training else 1
        found = [self._loss_of_mask(batch, lesson) for _ in range(masks)]
        if masks == 1:
            return found[0]
        return {name: torch.stack([of[name] for of in found]).mean() for name in found[0]}

    def _loss_of_mask(self, batch: Batch, lesson: Lesson) -> dict[str, Tensor]:
        visible = visible_tokens(self, self.config.mask.of(batch), lesson.attention)
        student = self.model.imitate(self.model.watch(batch, visible))
        teacher = self.model.teach(lesson, visible)
        return imitation_losses(student, teacher, self.config.imitation, batch)


def require_parts(objective: str, model: Model, parts: Iterable[str]) -> None:
    """Refuse a model of another kind, or one that lacks parts.

    Raises:
        RecipeError: says which.
    """
    if not isinstance(model, UMT):
        raise RecipeError([f"objective {objective} needs model umt here, not {model.config.name}"])
    absent = [part for part in parts if part in model.absent]
    if absent:
        raise RecipeError([f"parts.{part}: objective {objective} needs it" for part in absent])


def visible_tokens(objective: Objective, mask: MaskConfig, attention: Tensor) -> Tensor:
    """Return the tokens int64 (V, n) that the student sees.

    Args:
        objective: says whether this is training.
        mask: kind and ratio.
        attention: of the teacher, (V, T, N); of other kinds only the shape counts.
    """
    videos, times, tokens = attention.shape
    if mask.kind == "attention":
        draws = exponential(objective, (videos, times, tokens), attention)
        return masking.by_attention(attention, draws, mask.ratio)
    if mask.kind == "tube":
        return masking.tube(exponential(objective, (videos, tokens), attention), times, mask.ratio)
    ratio = 0.0 if mask.kind == "none" else mask.ratio
    return masking.anywhere(exponential(objective, (videos, times * tokens), attention), ratio)


def imitation_losses(
    student: Tensor, teacher: Tensor, config: ImitationConfig, batch: Batch
) -> dict[str, Tensor]:
    """Return `loss`, `imitation_l2` and `imitation_mse` of aligned layers (K, V, n, C)."""

    def mean(values: Tensor) -> Tensor:
        return weighted_mean(values[batch["video_index"]], batch)

    loss = mean(losses.imitation(student, teacher, config.kind, unit=config.unit))
    # Either kind is the other one times the width: who changes it changes the weight.
    squared = mean(losses.imitation(student.detach(), teacher))
    return {
        "loss": loss,
        "imitation_l2": squared,
        "imitation_mse": squared / student.shape[-1],
    }
