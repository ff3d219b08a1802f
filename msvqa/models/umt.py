"""UMT: a video transformer that learns from an image teacher, then together with texts.

Paper: Li et al., "Unmasked Teacher: Towards Training-Efficient Video Foundation Models", ICCV
2023, https://arxiv.org/abs/2303.16058
"""

from collections.abc import Collection, Mapping, Sequence
from typing import ClassVar, NamedTuple

import numpy as np
import torch
from einops import rearrange
from pydantic import Field, model_validator
from torch import Tensor, nn
from torch.nn import functional

from msvqa.data.batch import Batch
from msvqa.errors import RecipeError
from msvqa.models.language.text_folder import weights_in
from msvqa.models.layers.alignment_heads import AlignmentHeads
from msvqa.models.layers.answer_writer import AnswerWriter, AnswerWriterConfig
from msvqa.models.layers.classifier import Classifier, ClassifierConfig
from msvqa.models.layers.clip_tower import ClipTower, ClipTowerConfig, Lesson, image_weights
from msvqa.models.layers.pixels import IMAGENET_MEAN, IMAGENET_STD, PixelScale
from msvqa.models.layers.text_transformer import (
    FusionHalf,
    TextConfig,
    TextHalf,
    WordHead,
    WordIds,
)
from msvqa.models.layers.video_transformer import (
    VideoTransformer,
    VideoTransformerConfig,
    load_published,
    take,
)
from msvqa.models.model import Model, Sizes
from msvqa.models.parts import Parts
from msvqa.models.umt_weights import load_bert, load_second_stage
from msvqa.models.weight_files import read_weights
from msvqa.models.weights import load_strictly
from msvqa.storage import WeightsFile

# Legend: V media, T frames, N tokens of a frame, n visible tokens of a medium, K aligned layers, D
# width, C width of the teacher's output, E width of the projections, Q captions, L words, A labels.

CLIP_MEAN = (122.7709383, 116.7460125, 104.09373615)
CLIP_STD = (68.5005327, 66.6321579, 70.32316305)
LEAST_TEMPERATURE, LARGEST_TEMPERATURE = 0.001, 0.5
FED_WITH = {
    "text": [{"vocabulary"}, {"text"}], "fusion": [{"vocabulary"}, {"text"}],
    "decoder": [{"text", "answers"}], "classifier": [{"labels"}],
}  # fmt: skip
"""The sizes that a part needs of the data, one group of these: of other data the part is absent."""


class Watched(NamedTuple):
    """What the video transformer makes of media."""

    tokens: Tensor
    """(V, n, D), normed."""
    layers: list[Tensor]
    """K x (V, n, D), normed, the shallowest first."""
    places: Tensor
    """(V, n, D), where the tokens are."""


class UMT(Model):
    """Video transformer, its teacher and alignment heads, both halves of BERT, projections.

    Where the data has labels there is a classifier, where it has texts there are the halves of
    BERT.
    """

    class Config(Model.Config):
        """Sizes and weight files."""

        name: str = "umt"
        video: VideoTransformerConfig = VideoTransformerConfig()
        video_weights: WeightsFile | None = None
        """Published weights of the video transformer, of either stage; heads and all else that
        such a file has are left out."""
        teacher: ClipTowerConfig = ClipTowerConfig()
        aligned_layers: int = Field(default=6, ge=1)
        """K: so many last layers learn from as many of the teacher."""
        text: TextConfig = TextConfig()
        projection_width: int = Field(default=512, ge=1)
        temperature: float = Field(default=0.07, ge=LEAST_TEMPERATURE, le=LARGEST_TEMPERATURE)
        """At the start; it is learned."""
        classifier: ClassifierConfig = ClassifierConfig()
        decoder: AnswerWriterConfig = AnswerWriterConfig()
        weights: WeightsFile | None = None
        """Published weights of the second stage: of the video transformer, heads, both halves of
        BERT, projections and what belongs to them, as far as the file and the model have them."""

        @model_validator(mode="after")
        def _one_source(self) -> "UMT.Config":
            if self.weights and (self.video_weights or self.text.source):
                raise ValueError(
                    "weights has the video transformer and both halves of BERT: use it without "
                    "video_weights and text.source"
                )
            return self

    config: Config
    optional: ClassVar[tuple[str, ...]] = (
        "teacher", "heads", "text", "fusion", "projections", "classifier", "decoder",
    )  # fmt: skip
    external: ClassVar[tuple[str, ...]] = ("teacher",)
    # It runs under `torch.inference_mode`.
    uncut: ClassVar[tuple[str, ...]] = ("teacher",)

    def __init__(self, config: Config, sizes: Sizes, absent: Collection[str] = ()) -> None:
        fed = {size for size, number in sizes.items() if number is not None}
        unfed = [part for part, needs in FED_WITH.items() if not any(n <= fed for n in needs)]
        super().__init__(config, sizes, {*absent, *unfed})
        _refuse_unlike_depths(config)
        self.scale = PixelScale(IMAGENET_MEAN, IMAGENET_STD)
        self.clip_scale = PixelScale(CLIP_MEAN, CLIP_STD)
        self.video = VideoTransformer(config.video, sizes.frames, sizes.size_px)
        width, text = config.video.width, config.text
        if "heads" not in self.absent:
            taught = config.teacher.output_width
            self.heads = AlignmentHeads(config.aligned_layers, width, taught)
        if not {"text", "fusion", "decoder"} <= self.absent:
            self.word_ids = WordIds.of(sizes)
        if "text" not in self.absent:
            self.text = TextHalf(text, self.word_ids)
        if "fusion" not in self.absent:
            self.fusion = FusionHalf(text, width)
            self.matching = nn.Linear(text.width, 2)
            self.word_head = WordHead(text, self.word_ids.count)
        if "decoder" not in self.absent:
            self.decoder = AnswerWriter(config.decoder, text, self.word_ids, sizes.answers)
        if "projections" not in self.absent:
            self.projections = Projections(config)
        if "teacher" not in self.absent:
            self.teacher = ClipTower(config.teacher)
        if "classifier" not in self.absent:
            self.classifier = Classifier(config.classifier, width, sizes.labels)

    def parts(self) -> Parts:
        """Return the parts that a stage may leave out, and the video transformer as `video`."""
        found: dict[str, list[nn.Module]] = {"video": [self.video]}
        for name in self.optional:
            if name not in self.absent:
                found[name] = [getattr(self, name)]
        if "fusion" in found:
            found["fusion"] += [self.matching, self.word_head]
        return found

    def depth_of(self, name: str) -> int | None:
        """Return the layer of a parameter of the video transformer; what comes before is 0."""
        start, _, rest = name.partition(".")
        if start != "video" or rest.startswith("norm."):
            return None
        return int(rest.split(".")[1]) + 1 if rest.startswith("blocks.") else 0

    def unused(self, uses: Collection[str]) -> list[nn.Module]:
        """Return what never gets a gradient of a loss.

        Args:
            uses: any of `imitate`, `contrast`, `match`, `words`, `answer`, `classify`, `picture`
                (the contrast of the teacher): what the loss asks of the model.
        """
        wanted = {
            "heads": {"imitate"}, "projections": {"contrast", "picture"}, "matching": {"match"},
            "projections.norm": {"contrast"}, "projections.video": {"contrast"},
            "word_head": {"words"}, "fusion": {"match", "words", "answer"},
            "text": {"contrast", "match", "words", "answer", "picture"}, "teacher": {"picture"},
            "classifier": {"classify"}, "decoder": {"answer"},
            "video": {"imitate", "contrast", "match", "words", "answer", "classify"},
            # What is classified is normed after its mean is taken, by a norm of the classifier.
            "video.norm": {"imitate", "contrast", "match", "words", "answer"},
        }  # fmt: skip
        idle = [name for name, users in wanted.items() if not users & set(uses)]
        modules = dict(self.named_modules())
        return [modules[name] for name in idle if name in modules]

    # Weights

    def weight_files(self) -> Mapping[str, Sequence[str]]:
        """Return the files of all parts that are read from files."""
        config = self.config
        files = {"video": config.video_weights, "teacher": config.teacher.weights}
        found = {part: [file] for part, file in files.items() if file}
        if config.weights:
            whole = ("video", "heads", "text", "fusion", "projections")
            found |= {part: [config.weights] for part in whole}
        if bert := weights_in(config.text.source):
            found |= {"text": bert, "fusion": bert}
        if "fusion" in found:
            found["decoder"] = found["fusion"]
        return found

    def load_pretrained(self) -> None:
        """Load the weight files that the config names.

        Raises:
            WeightsError: a file does not fit, with all names that differ.
        """
        if self.config.video_weights:
            load_published(self.video, self.config.video_weights)
        if self.config.teacher.weights and "teacher" not in self.absent:
            self.load_external("teacher")
        if self.config.weights:
            load_second_stage(self, self.config.weights)
        if self.config.text.source and not {"text", "fusion"} <= self.absent:
            load_bert(self, self.config.text.source)

    def load_answers(self, pieces: np.ndarray) -> None:
        """Take the pieces of all answers."""
        if "decoder" not in self.absent:
            self.decoder.read_answers(pieces)

    def begin(self, parts: Collection[str]) -> None:
        """Start the decoder as the fusion half, which has its weights by now."""
        if "decoder" in parts and not {"text", "fusion"} & self.absent:
            self.decoder.start_as(self.text, self.fusion, self.word_head)

    def load_external(self, part: str) -> None:
        """Load the teacher's weights."""
        file = self.config.teacher.weights
        assert part == "teacher" and file is not None
        load_strictly(self.teacher, image_weights(read_weights(file)), file)

    # What objectives ask

    def _clips(self, batch: Batch) -> Tensor:
        """Return the scaled clips (V, 3, T, height, width) of a batch."""
        clips: Tensor = self.scale(_single_view(batch), like=self.video.patch_embed.proj.weight)
        return clips

    def watch(self, batch: Batch, visible: Tensor | None = None) -> Watched:
        """Return what is seen of media, of all tokens or of visible ones, int64 (V, n)."""
        clips = self._clips(batch)
        depth, video = self.config.video.depth, self.video
        tapped = range(max(0, depth - self.config.aligned_layers), depth)
        layers = video.layers(video.embed(clips, visible), tapped)
        normed = [video.norm(layer) for layer in layers]
        places = video.positions(clips.shape[2] // self.config.video.tubelet, video.grid)
        places = places.expand(len(clips), -1, -1)
        return Watched(normed[-1], normed, places if visible is None else take(places, visible))

    def imitate(self, watched: Watched) -> Tensor:
        """Return the aligned layers in the teacher's words (K, V, n, C)."""
        aligned: Tensor = self.heads(watched.layers, watched.places)
        return aligned

    def _pictures(self, batch: Batch) -> Tensor:
        """Return the frames of media as the teacher sees them (V·T, 3, height, width)."""
        frames = rearrange(_single_view(batch), "v t ... -> (v t) ...")
        scale = self.scale if self.config.teacher.norm == "shared" else self.clip_scale
        pictures: Tensor = scale(frames, like=self.teacher.conv1.weight)
        # As many tokens as the student has, whatever the teacher's patches: 14 px want 196 px.
        size = self.video.grid * self.config.teacher.patch_px
        if pictures.shape[-1] != size:
            pictures = functional.interpolate(pictures, (size, size), mode="bicubic")
        return pictures

    def encode_picture(self, batch: Batch) -> Tensor:
        """Return the teacher's vector (V, C) of media of one frame each."""
        vector: Tensor = self.teacher(self._pictures(batch))
        return vector

    @torch.inference_mode()
    def learn(self, batch: Batch) -> Lesson:
        """Return what the teacher says of all tokens of media: K x (V, T·N, W), (V, T, N)."""
        lesson = self.teacher.learn(self._pictures(batch), self.config.aligned_layers)
        videos = len(batch["frames"])
        layers = [rearrange(layer, "(v t) n w -> v (t n) w", v=videos) for layer in lesson.layers]
        return Lesson(layers, rearrange(lesson.attention, "(v t) n -> v t n", v=videos))

    @torch.no_grad()
    def teach(self, lesson: Lesson, visible: Tensor) -> Tensor:
        """Return the teacher's words for visible tokens (K, V, n, C)."""
        # Taken before the projection, which then has a fifth of the work.
        taken = torch.stack([take(layer, visible) for layer in lesson.layers])
        return self.teacher.project(taken)

    @property
    def temperature(self) -> Tensor:
        """What similarities are divided by; between 0.001 and 0.5 before each step."""
        # The weight itself, so that it turns back at a bound, where a clamped copy has no gradient.
        # Past autograd, which a second look in one step would otherwise take for a change.
        self.projections.temperature.data.clamp_(LEAST_TEMPERATURE, LARGEST_TEMPERATURE)
        return self.projections.temperature

    def project_video(self, watched: Watched) -> Tensor:
        """Return one vector (V, E) for each medium."""
        # One vector; the released settings of retrieval compare each frame and take the mean.
        pooled = self.projections.norm(watched.tokens.mean(dim=1))  # (V, D)
        vector: Tensor = self.projections.video(pooled)
        return vector

    def project_text(self, states: Tensor) -> Tensor:
        """Return one vector (Q, E) for each caption, of its states (Q, L, D)."""
        vector: Tensor = self.projections.text(states[:, 0])
        return vector

    def encode_video(self, batch: Batch) -> Tensor:
        """Return one vector (V, E) for each medium, of all of its tokens."""
        return self.project_video(self.watch(batch))

    def encode_text(self, batch: Batch) -> Tensor:
        """Return one vector (Q, E) for each caption."""
        return self.project_text(self.text(*self.text.ids(batch["text"], batch["text_length"])))

    def classify(self, batch: Batch) -> Tensor:
        """Return logits (V, A) of all labels for each medium, of all of its tokens."""
        clips = self._clips(batch)
        last = self.config.video.depth - 1
        (tokens,) = self.video.layers(self.video.embed(clips), [last])  # (V, n, D)
        logits: Tensor = self.classifier(tokens)
        return logits

    def unclassified(self) -> list[nn.Module]:
        """Return what `classify` never runs."""
        return self.unused({"classify"})

    def ask(self, batch: Batch) -> tuple[Tensor, Tensor]:
        """Return the states (Q, L, D) of questions beside their clips, and which are words."""
        ids, there = self.text.ids(batch["question"], batch["question_length"])
        tokens = self.watch(batch).tokens[batch["video_index"]]  # (Q, n, width)
        return self.fusion(self.text(ids, there), there, tokens), there

    def match_logits(self, fused: Tensor) -> Tensor:
        """Return whether clip and text belong together: logits (Q, 2) of no and yes."""
        logits: Tensor = self.matching(fused[:, 0])
        return logits

    def word_logits(self, fused: Tensor) -> Tensor:
        """Return which word stands at each place (..., words) of fused states (..., D)."""
        logits: Tensor = self.word_head(fused, self.text.words.weight)
        return logits


class Projections(nn.Module):
    """Linear maps of media and texts into one space, and the temperature of their contrast."""

    def __init__(self, config: UMT.Config) -> None:
        super().__init__()
        self.norm = nn.LayerNorm(config.video.width)
        self.video = nn.Linear(config.video.width, config.projection_width)
        self.text = nn.Linear(config.text.width, config.projection_width)
        self.temperature = nn.Parameter(torch.tensor(config.temperature))


def _single_view(batch: Batch) -> Tensor:
    """Return the frames (V, T, height, width, 3) of media that are seen in one view each."""
    frames = batch["frames"]
    if frames.ndim != 5:
        raise RecipeError(
            [
                "processor: media in several views (views, crops, repeats) are for objective "
                "classification alone: use 1 of each"
            ]
        )
    return frames


def _refuse_unlike_depths(config: UMT.Config) -> None:
    """Refuse student and teacher whose tokens or layers cannot be compared one by one."""
    problems = []
    if config.video.tubelet != 1:
        problems.append(
            f"model.video.tubelet: {config.video.tubelet} frames make a token of the student, 1 "
            "makes one of the teacher: set it to 1"
        )
    for name in ("video", "teacher"):
        depth = getattr(config, name).depth
        if config.aligned_layers > depth:
            problems.append(
                f"model.aligned_layers: {config.aligned_layers} of the {depth} layers of {name}"
            )
    if problems:
        raise RecipeError(problems)
