"""What every objective has in common: `loss(batch)` and `predict(batch)` of one stage."""

from collections.abc import Iterable, Mapping
from typing import TYPE_CHECKING, ClassVar, Literal

import numpy as np
from torch import Tensor, nn

from msvqa.data.batch import Batch
from msvqa.models.model import Model
from msvqa.sections import NamedConfig

if TYPE_CHECKING:
    from msvqa.data.split import Split


class Objective(nn.Module):
    """A model with the losses of one stage.

    `forward` is `loss`, so that DistributedDataParallel can wrap the objective. Parts of the
    model that the stage does not train are listed by `frozen()`: they get no gradient, stay out
    of the optimizer and are kept in eval mode.
    """

    class Config(NamedConfig):
        """Fields that every objective has."""

    monitor: ClassVar[tuple[str, Literal["max", "min"]]]
    """Validation metric that chooses the best checkpoint, and its direction."""

    validation_numbers: ClassVar[tuple[str, ...]] = ()
    """Names of all numbers that `metrics` returns; empty where they cannot be known beforehand."""

    evaluator: ClassVar[str | None] = None
    """Which of `EVALUATORS` counts what `predict` returns; none where nothing can be asked."""

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

    def metrics(self, predictions: Mapping[str, np.ndarray], split: "Split") -> dict[str, float]:
        """Return named numbers of a whole split from the rows of `predict`, in its order."""
        raise NotImplementedError
