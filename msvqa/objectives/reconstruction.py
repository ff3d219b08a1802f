"""Reconstruction: both decoders must show the clips again, from the reasoned vectors."""

from collections.abc import Iterable
from typing import ClassVar

import torch
from einops import rearrange
from torch import Tensor, nn

from msvqa import losses
from msvqa.data.batch import Batch, weighted_mean
from msvqa.errors import RecipeError
from msvqa.models.model import Model
from msvqa.models.msvqa import MSVQA
from msvqa.objectives.objective import Objective

# Legend: Q questions, V videos, C clips, F frames per clip, H x W pixels.

QUESTIONS_PER_PASS = 8
"""Validation holds the pixels of so many questions at a time: a video may have dozens."""


class Reconstruction(Objective):
    """loss = mean squared errors of both decoders, added, on ImageNet's scale."""

    class Config(Objective.Config):
        """No fields but the name."""

        name: str = "reconstruction"

    model: MSVQA
    evaluator: ClassVar[str] = "reconstruction"
    answers_questions: ClassVar[bool] = False

    def __init__(self, config: Config, model: Model) -> None:
        if not isinstance(model, MSVQA):
            raise RecipeError(["objective reconstruction needs pixels and decoders: model msvqa"])
        if not model.decoders():
            raise RecipeError(["parts.decoder: objective reconstruction needs it"])
        super().__init__(config, model)

    def frozen(self) -> Iterable[nn.Module]:
        """Return the answer module and what else reconstruction never runs."""
        return self.model.unused_in_reconstruction()

    def loss(self, batch: Batch) -> dict[str, Tensor]:
        """Return the loss and the errors of both decoders."""
        appearance, motion = self.model.reconstruct(batch)
        target = self.model.targets(batch)
        error_a = weighted_mean(losses.squared_error(appearance, target), batch)
        error_m = weighted_mean(losses.squared_error(motion, target), batch)
        return {"loss": error_a + error_m, "mse_appearance": error_a, "mse_motion": error_m}

    def predict(self, batch: Batch) -> dict[str, Tensor]:
        """Return sums per question and colour channel on the scale 0..255, to add up over a split.

        `pixels` (Q,) per channel; `pixel_sum`, `pixel_square`, `error_appearance`, `error_motion`
        (Q, 3).
        """
        reasoning, _ = self.model.reason(batch)
        index = batch["video_index"]
        errors = [
            self._errors(
                reasoning.appearance[part], reasoning.motion[part], batch["clips"][index[part]]
            )
            for part in torch.arange(len(index), device=index.device).split(QUESTIONS_PER_PASS)
        ]
        clips = rearrange(batch["clips"], "v c f h w n -> v n (c f h w)").float()
        pixels = torch.full_like(index, clips.shape[2], dtype=torch.float64)
        return {
            "pixels": pixels,
            "pixel_sum": clips.sum(dim=2, dtype=torch.float64)[index],
            "pixel_square": clips.square().sum(dim=2, dtype=torch.float64)[index],
            "error_appearance": torch.cat([appearance for appearance, _ in errors]),
            "error_motion": torch.cat([motion for _, motion in errors]),
        }

    def _errors(self, appearance: Tensor, motion: Tensor, clips: Tensor) -> tuple[Tensor, Tensor]:
        """Return the errors of both decoders for some questions and the clips they are about."""
        own = torch.arange(len(clips), device=clips.device)
        target = self.model.targets({"clips": clips, "video_index": own})
        shown = self.model.decode_pixels(appearance, motion)
        return self._error_255(shown[0], target), self._error_255(shown[1], target)

    def _error_255(self, output: Tensor, target: Tensor) -> Tensor:
        """Return the squared error per question and channel (Q, 3) on the scale 0..255."""
        error = (output.to(target.dtype) - target).square().sum((1, 2, 4, 5), dtype=torch.float64)
        return error * self.model.target_scale.std.double().square()
