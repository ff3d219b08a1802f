"""What every objective has in common: `loss(batch)` and `predict(batch)` of one stage."""

from collections.abc import Iterable, Mapping
from typing import ClassVar, Literal

from torch import Tensor, nn

from msvqa import collectives
from msvqa.data.batch import Batch
from msvqa.models.model import Model
from msvqa.sections import NamedConfig


class Objective(nn.Module):
    """A model with the losses of one stage.

    `forward` is `loss`, so that DistributedDataParallel can wrap the objective. Parts of the
    model that the stage does not train are listed by `frozen()`: they get no gradient, stay out
    of the optimizer and are kept in eval mode.
    """

    class Config(NamedConfig):
        """Fields that every objective has."""

    evaluator: ClassVar[str] = "losses"
    """Which of `EVALUATORS` asks this objective, in validation and afterwards."""

    answers_questions: ClassVar[bool] = True
    """Whether a run that ends with this stage can be evaluated, and asked by `predict`."""

    writes_answers: ClassVar[bool] = False
    """Whether its answers are texts that it writes word by word."""

    sees_whole_batch: bool = False
    """Whether the loss compares the examples of a batch with each other, over all workers: then a
    step in several passes (`batch.accumulate`) would be another step, and is refused."""

    asks_all_parts: bool = True
    """Whether a batch of any rows runs all layers equally often, as one of rows without media, or
    of images alone, may not."""

    about: ClassVar[Mapping[str, Literal["media", "examples", "both"]]] = {}
    """What a method that answers is about: media alone, examples alone (no media are read), or, as
    all that are not named here, examples with their media."""

    top_k = 5
    """Answers per question that `predict` returns, where it answers; may be set on an instance."""

    def __init__(self, config: Config, model: Model) -> None:
        super().__init__()
        self.config, self.model = config, model

    def train(self, mode: bool = True) -> "Objective":
        """Set the mode; frozen parts stay in eval mode."""
        super().train(mode)
        for module in self.frozen():
            module.eval()
        return self

    def frozen(self) -> Iterable[nn.Module]:
        """Return the modules of the model that this stage leaves unchanged."""
        return ()

    def forward(self, batch: Batch) -> dict[str, Tensor]:
        """Return `loss(batch)`."""
        return self.loss(batch)

    def loss(self, batch: Batch) -> dict[str, Tensor]:
        """Return scalar tensors: `loss`, which is minimised, and its named parts."""
        raise NotImplementedError

    def predict(self, batch: Batch) -> dict[str, Tensor]:
        """Return what validation needs, one row per question (eval mode, no gradient)."""
        raise NotImplementedError

    def losses(self, batch: Batch) -> dict[str, Tensor]:
        """Return the loss and its parts, the same value (b,) for every example of the batch."""
        with collectives.alone():
            return {
                name: value.expand(len(batch["row"])) for name, value in self.loss(batch).items()
            }
