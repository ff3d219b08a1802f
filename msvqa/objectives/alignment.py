"""Alignment: what a medium shows and what its captions say come to lie in one place.

Paper: Radford et al., "Learning Transferable Visual Models From Natural Language Supervision",
2021, figure 3.
"""

from collections.abc import Mapping
from typing import ClassVar, Literal, Protocol, cast

import torch
from torch import Tensor
from torch.nn import functional

from msvqa import collectives, losses
from msvqa.data.batch import Batch, weighted_mean
from msvqa.errors import RecipeError
from msvqa.models.model import Model
from msvqa.objectives.objective import Objective

# Legend: V media and Q captions of one worker's batch, D width, W workers.


ANSWERS = ("encode_video", "encode_text")


class TwoEncoders(Protocol):
    """What alignment asks of a model."""

    temperature: Tensor
    """() what similarities are divided by."""

    def encode_video(self, batch: Batch) -> Tensor:
        """Return one vector (V, D) for each medium."""
        ...

    def encode_text(self, batch: Batch) -> Tensor:
        """Return one vector (Q, D) for each caption."""
        ...


class Alignment(Objective):
    """loss = mean of the contrastive losses of text to video and of video to text.

    Every caption is compared with the media of all workers. Captions of one medium, and media with
    one caption, are no negatives of each other.
    """

    class Config(Objective.Config):
        """No fields but the name."""

        name: str = "alignment"

    evaluator: ClassVar[str] = "retrieval"
    sees_whole_batch: bool = True
    about: ClassVar[Mapping[str, Literal["media", "examples", "both"]]] = {
        "encode_video": "media",
        "encode_text": "examples",
    }

    def __init__(self, config: Config, model: Model) -> None:
        absent = [name for name in ANSWERS if not hasattr(model, name)]
        if absent:
            lacks = " and ".join(absent)
            raise RecipeError(
                [f"objective alignment needs a model with {lacks}, not {model.config.name}"]
            )
        super().__init__(config, model)

    @property
    def _encoders(self) -> TwoEncoders:
        return cast(TwoEncoders, self.model)

    def loss(self, batch: Batch) -> dict[str, Tensor]:
        """Return the loss, both of its parts, and how often the nearest medium is the right one."""
        video = self.encode_video(batch)["vector"][batch["video_index"]]  # (Q, D)
        text = self.encode_text(batch)["vector"]  # (Q, D)
        all_video, all_text = collectives.gather(video), collectives.gather(text)  # (W·Q, D)
        matches = self._matches(batch)  # (Q, W·Q)
        temperature = self._encoders.temperature
        to_video = text @ all_video.T / temperature  # (Q, W·Q)
        to_text = video @ all_text.T / temperature
        text_to_video = weighted_mean(losses.contrastive(to_video, matches), batch)
        video_to_text = weighted_mean(losses.contrastive(to_text, matches), batch)
        nearest = to_video.detach().argmax(dim=1, keepdim=True)
        right = matches.gather(1, nearest)[:, 0].to(text.dtype)
        return {
            "loss": (text_to_video + video_to_text) / 2,
            "text_to_video": text_to_video,
            "video_to_text": video_to_text,
            "recall_in_batch": weighted_mean(right, batch),
        }

    def encode_video(self, batch: Batch) -> dict[str, Tensor]:
        """Return `vector` (V, D) of length 1 for each medium."""
        return {"vector": functional.normalize(self._encoders.encode_video(batch), dim=1)}

    def encode_text(self, batch: Batch) -> dict[str, Tensor]:
        """Return `vector` (Q, D) of length 1 for each caption."""
        return {"vector": functional.normalize(self._encoders.encode_text(batch), dim=1)}

    def _matches(self, batch: Batch) -> Tensor:
        """Return which captions and media of all workers (Q, W·Q) belong together."""
        own = torch.stack([batch["video"][batch["video_index"]], batch["text_id"]], dim=1)  # (Q, 2)
        there = collectives.gather(own)  # (W·Q, 2)
        return (own[:, None] == there[None]).any(dim=2)
