"""Alignment: what a medium shows and what its captions say come to lie in one place.

Paper: Radford et al., "Learning Transferable Visual Models From Natural Language Supervision",
2021, figure 3. With a model that fuses both: Li et al., "Unmasked Teacher", ICCV 2023, section 3.2.
"""

from collections.abc import Iterable, Mapping
from typing import ClassVar, Literal, NamedTuple, Protocol, cast

import torch
from pydantic import Field, model_validator
from torch import Tensor, nn
from torch.nn import functional

from msvqa import collectives, losses
from msvqa.data.batch import Batch, weighted_mean
from msvqa.errors import RecipeError
from msvqa.models.model import Model
from msvqa.models.umt import UMT, Watched
from msvqa.objectives.distillation import (
    ImitationConfig,
    MaskConfig,
    imitation_losses,
    require_parts,
    visible_tokens,
)
from msvqa.objectives.draws import exponential, uniform
from msvqa.objectives.hidden_words import hide_words
from msvqa.objectives.negatives import draw_negatives, negative_weights, paired_rows
from msvqa.objectives.objective import Objective

# Legend: V media and Q captions of one worker's batch, D width, W workers, n tokens of a medium, L
# words of a caption, H width of a text's states.


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


class Aligned(NamedTuple):
    """What the losses of a step are about."""

    video: Tensor
    """(Q, D) of length 1, the medium of each caption."""
    text: Tensor
    """(Q, D) of length 1."""
    matches: Tensor
    """bool (Q, W·Q), which captions and media of all workers belong together."""


class Alignment(Objective):
    """loss = mean of the contrastive losses of text to video and of video to text.

    Every caption is compared with the media of all workers. Captions of one medium, and media with
    one caption, are no negatives of each other. Models that fuse both learn besides, as much as the
    weights say, whether they match, words that are hidden, and from a teacher.
    """

    class Config(Objective.Config):
        """Weights of the losses; all but the contrast ask for a model that fuses."""

        name: str = "alignment"
        learner: Literal["video", "teacher"] = "video"
        """`teacher`: the image teacher of a model that has one learns, from one frame of each
        medium, in training a random one, else the one in the middle; by the contrast alone."""
        contrast: float = Field(default=1.0, ge=0)
        matching: float = Field(default=0.0, ge=0)
        """Weight of: do clip and text belong together? Against hard negatives of the batch."""
        words: float = Field(default=0.0, ge=0)
        """Weight of: which words are hidden?"""
        hidden_words: float = Field(default=0.5, gt=0, lt=1)
        """Which part of the words is hidden."""
        distillation: float = Field(default=0.0, ge=0)
        """Weight of: what does the teacher see?"""
        imitation: ImitationConfig = ImitationConfig()
        mask: MaskConfig = MaskConfig(kind="none")
        """Which tokens of the media are seen in training."""

        @model_validator(mode="after")
        def _teacher_contrasts(self) -> "Alignment.Config":
            others = self.matching or self.words or self.distillation or self.mask.kind != "none"
            if self.learner == "teacher" and others:
                raise ValueError("learner teacher: matching, words, distillation, mask are 0, none")
            return self

    config: Config

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
        needed = {"teacher": self._needs_teacher(config), "heads": config.distillation > 0}
        needed["fusion"] = bool(config.matching or config.words)
        if config.learner == "teacher":
            needed["teacher"] = True
        if any(needed.values()) or config.mask.kind != "none":
            require_parts("alignment", model, [part for part, is_so in needed.items() if is_so])
        if config.learner == "teacher":
            _refuse_unlike_widths(cast(UMT, model).config)
        super().__init__(config, model)

    @staticmethod
    def _needs_teacher(config: Config) -> bool:
        return config.distillation > 0 or config.mask.kind == "attention"

    def frozen(self) -> Iterable[nn.Module]:
        """Return what the losses with a weight never run, of a model that knows."""
        if not isinstance(self.model, UMT):
            return ()
        if self.config.learner == "teacher":
            return self.model.unused({"picture"})
        uses = {
            "imitate": self.config.distillation, "contrast": 1.0,
            "match": self.config.matching, "words": self.config.words,
        }  # fmt: skip
        return self.model.unused({use for use, weight in uses.items() if weight})

    @property
    def _encoders(self) -> TwoEncoders:
        return cast(TwoEncoders, self.model)

    def loss(self, batch: Batch) -> dict[str, Tensor]:
        """Return the loss, its parts, and how often the nearest medium is the right one."""
        config = self.config
        if not (config.matching or config.words or config.distillation or self._masks()):
            video, text = self.encode_video(batch)["vector"], self.encode_text(batch)["vector"]
            return self._contrast(self._aligned(video, text, batch), batch)
        return self._fused_losses(batch)

    def _masks(self) -> bool:
        return self.training and self.config.mask.kind != "none"

    def _aligned(self, video: Tensor, text: Tensor, batch: Batch) -> Aligned:
        return Aligned(video[batch["video_index"]], text, self._matches(batch))

    def _contrast(self, aligned: Aligned, batch: Batch) -> dict[str, Tensor]:
        video, text, matches = aligned
        all_video, all_text = collectives.gather(video), collectives.gather(text)  # (W·Q, D)
        temperature = self._encoders.temperature
        to_video = text @ all_video.T / temperature  # (Q, W·Q)
        to_text = video @ all_text.T / temperature
        text_to_video = weighted_mean(losses.contrastive(to_video, matches), batch)
        video_to_text = weighted_mean(losses.contrastive(to_text, matches), batch)
        nearest = to_video.detach().argmax(dim=1, keepdim=True)
        right = matches.gather(1, nearest)[:, 0].to(text.dtype)
        return {
            "loss": self.config.contrast * ((text_to_video + video_to_text) / 2),
            "text_to_video": text_to_video,
            "video_to_text": video_to_text,
            "recall_in_batch": weighted_mean(right, batch),
        }

    # Of a model that fuses clips and texts

    def _fused_losses(self, batch: Batch) -> dict[str, Tensor]:
        model, config = cast(UMT, self.model), self.config
        watched, taught = self._watch(batch)
        ids, there = model.text.ids(batch["text"], batch["text_length"])
        states = model.text(ids, there)  # (Q, L, H)
        video = functional.normalize(model.project_video(watched), dim=1)
        text = functional.normalize(model.project_text(states), dim=1)
        aligned = self._aligned(video, text, batch)
        parts = self._contrast(aligned, batch)
        tokens = watched.tokens[batch["video_index"]]  # (Q, n, width)
        if config.matching:
            found = self._matching(aligned, (states, there, tokens), batch)
            parts["loss"] = parts["loss"] + config.matching * found["matching"]
            parts |= found
        if config.words:
            parts["words"] = self._words((ids, there, tokens), batch)
            parts["loss"] = parts["loss"] + config.words * parts["words"]
        if config.distillation:
            parts["loss"] = parts["loss"] + config.distillation * taught.pop("loss")
        return parts | taught

    def _watch(self, batch: Batch) -> tuple[Watched, dict[str, Tensor]]:
        """Return what is seen of the media, and the losses against the teacher, if it is asked."""
        model, config = cast(UMT, self.model), self.config
        lesson = model.learn(batch) if self._needs_teacher(config) else None
        visible = None
        if self._masks() or lesson is not None:
            mask = config.mask.of(batch) if self._masks() else MaskConfig(kind="none")
            frames = batch["frames"].shape[:2]
            shape = (*frames, model.video.frame_tokens)
            attention = batch["weight"].new_ones(shape) if lesson is None else lesson.attention
            visible = visible_tokens(self, mask, attention)
        watched = model.watch(batch, visible)
        if lesson is None or visible is None or not config.distillation:
            return watched, {}
        student, teacher = model.imitate(watched), model.teach(lesson, visible)
        return watched, imitation_losses(student, teacher, config.imitation, batch)

    def _matching(
        self, aligned: Aligned, inputs: tuple[Tensor, Tensor, Tensor], batch: Batch
    ) -> dict[str, Tensor]:
        """Return the loss on 3·Q pairs, and how many captions have no negative in the batch."""
        model = cast(UMT, self.model)
        states, there, tokens = inputs
        own = aligned.matches[:, collectives.own_rows(len(states))]  # (Q, Q)
        with torch.no_grad():
            logits = (aligned.text @ aligned.video.T / self._encoders.temperature).float()
            draws = exponential(self, (2, *logits.shape), logits)
            videos = draw_negatives(negative_weights(logits, own), draws[0])
            texts = draw_negatives(negative_weights(logits.T, own.T), draws[1])
        video, text, labels = paired_rows(videos.chosen, texts.chosen)
        fused = model.fusion(states[text], there[text], tokens[video])
        each = losses.cross_entropy(model.match_logits(fused), labels)  # (3·Q,)
        # A caption without a negative counts nothing, but is computed: workers stay in step.
        found = (videos.found & texts.found).to(each.dtype)  # (Q,)
        return {
            "matching": weighted_mean(each.view(3, -1).mean(dim=0) * found, batch),
            "without_negative": weighted_mean(1 - found, batch),
        }

    def _words(self, inputs: tuple[Tensor, Tensor, Tensor], batch: Batch) -> Tensor:
        """Return the mean loss of all hidden words of all workers."""
        model = cast(UMT, self.model)
        ids, there, tokens = inputs
        may = there & (batch["weight"] > 0)[:, None]
        may[:, 0] = False
        draws = uniform(self, (3, *ids.shape), batch["weight"])
        hidden = hide_words(ids, may, draws, model.text.word_ids, self.config.hidden_words)
        fused = model.fusion(model.text(hidden.ids, there), there, tokens)
        logits = model.word_logits(fused)  # (Q, L, words)
        each = losses.cross_entropy(logits.flatten(0, 1), ids.flatten()) * hidden.chosen.flatten()
        count = collectives.gather(hidden.chosen.sum()[None]).to(each.dtype).mean()
        # Averaged over the workers this is the mean over the words of all of them.
        return each.sum() / count.clamp(min=1 / collectives.worker_count())

    @property
    def can_match(self) -> bool:
        """Whether the model has something that sees a caption beside its medium."""
        return isinstance(self.model, UMT) and hasattr(self.model, "matching")

    def match(self, batch: Batch) -> dict[str, Tensor]:
        """Return `score` (Q,): how much more caption and medium belong together than not.

        Raises:
            RecipeError: the model has nothing that sees both.
        """
        model = cast(UMT, self.model)
        if not self.can_match:
            raise RecipeError(
                [
                    f"evaluation.rerank: model {model.config.name} has no part that sees a caption "
                    "beside its medium: use 0"
                ]
            )
        ids, there = model.text.ids(batch["text"], batch["text_length"])
        tokens = model.watch(batch).tokens[batch["video_index"]]
        logits = model.match_logits(model.fusion(model.text(ids, there), there, tokens))
        return {"score": logits[:, 1] - logits[:, 0]}

    def encode_video(self, batch: Batch) -> dict[str, Tensor]:
        """Return `vector` (V, D) of length 1 for each medium."""
        if self.config.learner == "teacher":
            vector = cast(UMT, self.model).encode_picture(self._one_frame(batch))
        else:
            vector = self._encoders.encode_video(batch)
        return {"vector": functional.normalize(vector, dim=1)}

    def _one_frame(self, batch: Batch) -> Batch:
        """Return the batch with one frame of each medium: frames (V, 1, height, width, 3)."""
        frames = batch["frames"]
        videos, times = frames.shape[:2]
        place = torch.full((videos,), times // 2, device=frames.device)
        if self.training:
            place = exponential(self, (videos, times), batch["weight"]).argmax(dim=1)
        chosen = torch.arange(videos, device=frames.device)
        return {**batch, "frames": frames[chosen, place][:, None]}

    def encode_text(self, batch: Batch) -> dict[str, Tensor]:
        """Return `vector` (Q, D) of length 1 for each caption."""
        return {"vector": functional.normalize(self._encoders.encode_text(batch), dim=1)}

    def _matches(self, batch: Batch) -> Tensor:
        """Return which captions and media of all workers (Q, W·Q) belong together."""
        own = torch.stack([batch["video"][batch["video_index"]], batch["text_id"]], dim=1)  # (Q, 2)
        there = collectives.gather(own)  # (W·Q, 2)
        return (own[:, None] == there[None]).any(dim=2)


def _refuse_unlike_widths(config: UMT.Config) -> None:
    taught, width = config.teacher.output_width, config.projection_width
    if taught != width:
        raise RecipeError(
            [
                f"model.teacher.output_width: {taught}, and texts become {width} numbers: to learn "
                "from texts the teacher needs as many (model.projection_width)"
            ]
        )
