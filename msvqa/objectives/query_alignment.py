"""First stage of VideoChat2: queries and texts are compared, matched, and texts written.

Papers: Li et al., "BLIP-2", ICML 2023, section 3.2; Li et al., "MVBench", CVPR 2024, section 4.
"""

from typing import ClassVar, NamedTuple, cast

import torch
from pydantic import Field
from torch import Tensor
from torch.nn import functional

from msvqa import collectives, losses
from msvqa.data.batch import Batch, weighted_mean
from msvqa.data.texts import read_texts
from msvqa.errors import RecipeError
from msvqa.models.layers.language_input import IGNORED
from msvqa.models.model import Model
from msvqa.models.videochat2 import Aggregate, VideoChat2, query_similarity
from msvqa.objectives.dialogue import encode, padded
from msvqa.objectives.draws import exponential
from msvqa.objectives.negatives import draw_negatives, negative_weights, paired_rows
from msvqa.objectives.objective import Objective

# Legend: V media, B texts of one worker's batch, A of all workers, Q queries, E their width, L
# words, V words known.


class Compared(NamedTuple):
    """What the losses of a step compare."""

    video: Tensor
    """(B, Q, E) of length 1."""
    text: Tensor
    """(B, E) of length 1."""
    temperature: Tensor
    """(), read once a step: it is clamped in place, and no value that is in use may change."""


class QueryAlignment(Objective):
    """loss = contrast + matching + writing, each with its weight.

    The batch has media and texts, `text_utf8`. A text begins with [CLS] where it is read, and with
    the last word of the Q-Former's, [DEC], where it is written.
    """

    class Config(Objective.Config):
        """Weights of the losses."""

        name: str = "query_alignment"
        contrast: float = Field(default=1.0, ge=0)
        matching: float = Field(default=1.0, ge=0)
        writing: float = Field(default=1.0, ge=0)
        aggregate: Aggregate = "mean"
        """Over queries; BLIP-2 takes the largest similarity."""
        label_smoothing: float = Field(default=0.1, ge=0, lt=1)
        max_words: int = Field(default=32, ge=3)
        """Longest text, with what begins and ends it."""

    config: Config
    answers_questions: ClassVar[bool] = False
    sees_whole_batch = True
    # An image is seen alone, see `VideoChat2.see`.
    asks_all_parts = False

    def __init__(self, config: Config, model: Model) -> None:
        if not isinstance(model, VideoChat2) or "heads" in model.absent:
            raise RecipeError(
                [f"objective query_alignment needs model videochat2 with its heads, not "
                 f"{model.config.name} without"]
            )  # fmt: skip
        most = model.config.qformer.max_words
        if config.max_words > most:
            raise RecipeError(
                [f"objective.max_words: {config.max_words} words are longer than the Q-Former has "
                 f"places for, model.qformer.max_words = {most}"]
            )  # fmt: skip
        super().__init__(config, model)

    @property
    def _model(self) -> VideoChat2:
        return cast(VideoChat2, self.model)

    def loss(self, batch: Batch) -> dict[str, Tensor]:
        """Return the loss and its three parts."""
        model, config = self._model, self.config
        tokens = model.see(batch)[batch["video_index"]]  # (B, N, W)
        ids, mask = self._texts(batch)  # (B, L) each
        written = ids.clone()
        written[:, 0] = model.config.qformer.words - 1
        # Queries never see the text that is written: these are those of a pass without it.
        queries, states = model.qformer.write(tokens, written, mask)
        parts = {"writing": self._writing(model.qformer.word_logits(states), ids, mask, batch)}
        text = model.encode_text(model.qformer.read(ids, mask))
        similar = Compared(model.encode_video(queries), text, model.temperature)
        parts["contrast"] = self._contrast(similar, batch)
        parts["matching"] = self._matching(similar, (tokens, ids, mask), batch)
        weighted = [
            getattr(config, name) * parts[name] for name in ("contrast", "matching", "writing")
        ]
        return {"loss": torch.stack(weighted).sum()} | parts

    def _texts(self, batch: Batch) -> tuple[Tensor, Tensor]:
        """Return the captions as the tokenizer of the Q-Former cuts them: ids, which are there."""
        device = batch["weight"].device
        texts = read_texts(batch["text_utf8"])
        read = [encode(self._model.reader, text, self.config.max_words) for text in texts]
        ids, mask = padded(read, device)
        if int(ids.max()) >= self._model.config.qformer.words - 1:
            raise RecipeError(
                [f"model.qformer.words: {self._model.config.qformer.words} are one for what begins "
                 f"a written text and all of the tokenizer, which gives {int(ids.max())}"]
            )  # fmt: skip
        return ids, mask

    def _contrast(self, compared: Compared, batch: Batch) -> Tensor:
        video, text, temperature = compared
        how, matches = self.config.aggregate, _matches(batch)  # (B, A)
        to_text = query_similarity(video, collectives.gather(text), how)  # (B, A)
        to_video = query_similarity(collectives.gather(video), text, how).T  # (B, A)
        both = [losses.contrastive(s / temperature, matches) for s in (to_text, to_video)]
        return weighted_mean((both[0] + both[1]) / 2, batch)

    def _matching(
        self, compared: Compared, pair: tuple[Tensor, Tensor, Tensor], batch: Batch
    ) -> Tensor:
        """Return the mean over pairs that belong together and their negatives in this batch."""
        tokens, ids, mask = pair
        with torch.no_grad(), collectives.alone():
            similarity = query_similarity(compared.video, compared.text, self.config.aggregate)
            similarity = similarity / compared.temperature
            matches = _matches(batch)
            # Media for texts, and texts for media.
            found = [
                draw_negatives(negative_weights(s, matches), exponential(self, s.shape, s))
                for s in (similarity.T, similarity)
            ]
        video, text, label = paired_rows(found[0].chosen, found[1].chosen)
        logits = self._model.match_logits(tokens[video], ids[text], mask[text])
        each = losses.cross_entropy(logits, label).view(3, -1)  # (3, B)
        there = torch.stack([torch.ones_like(found[0].found), *(n.found for n in found)])
        counted = (each * there).sum(dim=0) / there.sum(dim=0)
        return weighted_mean(counted, batch)

    def _writing(self, logits: Tensor, ids: Tensor, mask: Tensor, batch: Batch) -> Tensor:
        """Return the mean over all words of the batch, as the reference has it."""
        counted = mask & (batch["weight"] > 0)[:, None]
        labels = ids.masked_fill(~counted, IGNORED)[:, 1:]  # (B, L - 1)
        total = functional.cross_entropy(
            logits[:, :-1].flatten(0, 1), labels.flatten(),
            label_smoothing=self.config.label_smoothing, reduction="sum",
        )  # fmt: skip
        return total / words_per_worker(labels)


def words_per_worker(labels: Tensor) -> Tensor:
    """Return how many labels are learned, as the mean over workers: () and at least a part of 1."""
    counts = collectives.gather((labels != IGNORED).sum().to(torch.float32)[None])
    return counts.mean().clamp(min=1 / len(counts))


def _matches(batch: Batch) -> Tensor:
    """Return which of all workers' pairs (B, A) belong together, by ids that are global."""
    own = torch.stack([batch["video"][batch["video_index"]], batch["text_id"]], dim=1)
    return (own[:, None] == collectives.gather(own)[None]).any(dim=2)
