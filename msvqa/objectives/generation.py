"""Second and third stage of VideoChat2: a language model writes captions and answers.

Paper: Li et al., "MVBench", CVPR 2024, section 4.
"""

from typing import ClassVar, cast

from torch import Tensor
from torch.nn import functional

from msvqa.data.batch import Batch
from msvqa.errors import DataError, RecipeError
from msvqa.models.layers.language_input import LanguageInput, Text, target_logits
from msvqa.models.model import Model
from msvqa.models.videochat2 import VideoChat2
from msvqa.objectives.objective import Objective
from msvqa.objectives.query_alignment import words_per_worker

# Legend: V media, B rows, L words.


class Generation(Objective):
    """loss = mean negative log-probability of the words that are learned.

    The batch has `before`, `after` and, where the Q-Former reads, `reading`, int64 (B, L) each with
    `..._mask`, and `after_targets`, bool (B, L). Without `vision` no row has a medium.
    """

    class Config(Objective.Config):
        """No fields but the name."""

        name: str = "generation"

    config: Config
    answers_questions: ClassVar[bool] = False
    sees_whole_batch: ClassVar[bool] = True

    def __init__(self, config: Config, model: Model) -> None:
        if not isinstance(model, VideoChat2) or {"language", "projection"} & model.absent:
            raise RecipeError(
                [f"objective generation needs model videochat2 with a language model and its "
                 f"projection, not {model.config.name} without"]
            )  # fmt: skip
        super().__init__(config, model)

    def given(self, batch: Batch) -> LanguageInput:
        """Return what the language model is given."""
        model = cast(VideoChat2, self.model)
        after = _text(batch, "after")._replace(targets=batch["after_targets"])
        visual = None
        if "vision" in batch:
            tokens = model.see(batch)[batch["video_index"]]
            reading = _text(batch, "reading") if "reading" in batch else None
            visual = model.visual(tokens, reading)
        return model.language_input(_text(batch, "before"), visual, after)

    def loss(self, batch: Batch) -> dict[str, Tensor]:
        """Return the loss.

        Raises:
            DataError: no word of the batch is learned; the mean over none would be no number.
        """
        given = self.given(batch)
        padding = batch["weight"] == 0
        given = given._replace(labels=given.labels.masked_fill(padding[:, None], -100))
        logits, words = target_logits(cast(VideoChat2, self.model).language, given)
        if not len(words) and not padding.all():
            rows = ", ".join(str(row) for row in batch["row"].tolist())
            raise DataError(f"rows {rows}: nothing of them is learned; prepare drops such rows")
        total = functional.cross_entropy(logits.float(), words, reduction="sum")
        return {"loss": total / words_per_worker(given.labels)}


def _text(batch: Batch, name: str) -> Text:
    return Text(batch[name], batch[f"{name}_mask"].bool())
