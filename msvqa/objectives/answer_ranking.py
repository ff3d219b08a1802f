"""Answer ranking: a decoder writes the answer; of a closed list the most probable one counts.

Paper: Li et al., "Unmasked Teacher", ICCV 2023, section 4.2, as "Align before Fuse" does it.
"""

from collections.abc import Iterable
from typing import ClassVar

from pydantic import Field
from torch import Tensor, nn

from msvqa.data.batch import Batch, weighted_mean
from msvqa.data.text import AnswerList
from msvqa.errors import RecipeError
from msvqa.models.model import Model
from msvqa.models.umt import UMT
from msvqa.objectives.distillation import require_parts
from msvqa.objectives.objective import Objective

# Legend: Q questions, K best answers.

KNOWN = len(AnswerList.reserved)
"""Classes below this are those of answers outside the list, which have no words."""


class AnswerRanking(Objective):
    """loss = minus the log-probability of the answer, added up over its pieces.

    A question whose answer is outside the list counts 0: there is nothing to write. The published
    program writes all training answers, and ranks those of a list.
    """

    class Config(Objective.Config):
        """How answers are ranked."""

        name: str = "answer_ranking"
        candidates: int = Field(default=128, ge=1)
        """Answers whose first piece is the most probable; these are compared as a whole."""

    config: Config
    model: UMT
    evaluator: ClassVar[str] = "question_answering"

    def __init__(self, config: Config, model: Model) -> None:
        require_parts("answer_ranking", model, ("text", "fusion"))
        if "decoder" in model.absent:
            raise RecipeError(
                [
                    "parts.decoder: objective answer_ranking needs it; it is there where the data "
                    "has answers and data.tokenizer names the vocabulary that they are written in"
                ]
            )
        super().__init__(config, model)

    def frozen(self) -> Iterable[nn.Module]:
        """Return what writing an answer never runs."""
        return self.model.unused({"answer"})

    def loss(self, batch: Batch) -> dict[str, Tensor]:
        """Return the loss, and how many questions have an answer of the list."""
        states, there = self.model.ask(batch)
        answer = batch["answer"]
        log_probability = self.model.decoder.likelihood(states, there, answer[:, None])[:, 0]
        known = (answer >= KNOWN).to(log_probability.dtype)
        return {
            "loss": weighted_mean(-log_probability * known, batch),
            "answered": weighted_mean(known, batch),
        }

    def predict(self, batch: Batch) -> dict[str, Tensor]:
        """Return the best answers `top` (Q, K), best first, and their `probability` (Q, K)."""
        states, there = self.model.ask(batch)
        ranked = self.model.decoder.rank(states, there, max(self.config.candidates, self.top_k))
        top, found = ranked.answers[:, : self.top_k], ranked.log_probability[:, : self.top_k]
        return {"top": top, "probability": found.exp()}
