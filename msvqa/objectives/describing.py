"""What objectives about titled videos share: the loss of their tags, and their embeddings."""

from collections.abc import Collection, Iterable, Mapping
from typing import ClassVar, Literal

import torch
from torch import Tensor, nn

from msvqa import losses
from msvqa.data.batch import NO_TAG, TITLE_KEYS, VECTOR_KEYS, Batch
from msvqa.errors import RecipeError
from msvqa.models.layers.described import TitledVideoModel
from msvqa.models.layers.vlad import is_real
from msvqa.models.model import Model
from msvqa.objectives.objective import Objective

# Legend: B examples, V media of the batch, m media of an example, T frames, D numbers of a frame,
# S words, E embedding width, L tags.

NO_WORD = -1


class Describing(Objective):
    """An objective of a model that describes titled videos."""

    class Config(Objective.Config):
        """Which loss the tags have."""

        tag_loss: Literal["bce", "asl"] = "bce"
        """Binary cross-entropy, or the asymmetric loss."""
        asymmetry: Literal["reference", "paper", "official_default"] = "reference"
        """Which asymmetric loss: see `ASYMMETRIES`."""

    config: Config
    model: TitledVideoModel
    about: ClassVar[Mapping[str, Literal["media", "examples", "both"]]] = {
        "embed": "media",
        "mean_frame": "media",
        "title": "media",
    }

    def __init__(self, config: Config, model: Model) -> None:
        if not isinstance(model, TitledVideoModel):
            raise RecipeError(
                [
                    f"objective {config.name} needs a model of titled videos, such as "
                    f"mix_nextvlad or uniter, not {model.config.name}"
                ]
            )
        super().__init__(config, model)

    def frozen(self) -> Iterable[nn.Module]:
        """Return what is never trained, and heads that this stage does not run."""
        heads = self.model.heads()
        return [*self.model.fixed(), *(heads[name] for name in heads if name not in self.guesses())]

    def guesses(self) -> Collection[str]:
        """Return which masked inputs, `words` and `frames`, the loss has the model guess."""
        return ()

    def embed(self, batch: Batch) -> dict[str, Tensor]:
        """Return the `embedding` (V, E) of each medium."""
        return {"embedding": self.model.describe(batch).embedding}

    def mean_frame(self, batch: Batch) -> dict[str, Tensor]:
        """Return the mean `vector` (V, D) of each medium's frames: what takes no model."""
        frames = batch["vectors"].float()
        real = is_real(frames, batch["num_frames"])[..., None]  # (V, T, 1)
        return {"vector": (frames * real).sum(dim=1) / real.sum(dim=1).clamp(min=1)}

    def title(self, batch: Batch) -> dict[str, Tensor]:
        """Return the `tokens` (V, S) of each medium's title, -1 in the place of padding."""
        return {"tokens": batch["tokens"].masked_fill(~batch["token_mask"].bool(), NO_WORD)}

    def tag_losses(self, logits: Tensor, indices: Tensor) -> Tensor:
        """Return the loss (B,) of logits (B, L), summed over tags, which are listed (B, most)."""
        tags = multi_hot(indices, logits.shape[1])
        if self.config.tag_loss == "bce":
            return losses.tag_cross_entropy(logits, tags)
        return losses.asymmetric(logits, tags, losses.ASYMMETRIES[self.config.asymmetry])


def videos_of(batch: Batch, side: int | None = None) -> Batch:
    """Return what a batch says of the medium of every example, one row (B, ...) for each.

    Args:
        batch: of examples with one medium each, which may share media; or with m of them, and then
            everything is (B, m, ...).
        side: which of its media, where an example has several.
    """
    said = {key: batch[key] for key in (*VECTOR_KEYS, *TITLE_KEYS) if key in batch}
    if side is not None:
        return {key: value[:, side] for key, value in said.items()}
    index = batch["video_index"]
    return said | {key: batch[key][index] for key in VECTOR_KEYS}


def multi_hot(indices: Tensor, tags: int) -> Tensor:
    """Return 1 for each tag that is listed and else 0, (B, L); made where the list is.

    Args:
        indices: (B, most) numbers of tags, -1 where there are no more.
        tags: L.
    """
    # One column more takes what is no tag.
    found = torch.zeros((len(indices), tags + 1), dtype=torch.float32, device=indices.device)
    found.scatter_(1, indices.masked_fill(indices == NO_TAG, tags), 1.0)
    return found[:, :tags]
