"""The network that DualVGR and MSVQA share: from features and a question to an answer.

Dual visual graph reasoning, Wang, Bao and Xu, IEEE Transactions on Multimedia 2021,
https://doi.org/10.1109/TMM.2021.3097171
"""

from dataclasses import dataclass
from typing import Literal

import numpy as np
import torch
from einops import rearrange
from pydantic import Field, model_validator
from torch import Tensor, nn

from msvqa.data.batch import Batch
from msvqa.errors import DataError, RecipeError
from msvqa.models.layers.answer import AnswerDecoder, BilinearFusion
from msvqa.models.layers.graph import GraphAttention, GraphReadout
from msvqa.models.layers.question import QuestionEncoder
from msvqa.models.layers.reasoning import GraphReasoning, Reasoning, ReasoningSizes
from msvqa.models.layers.recurrent import BidirectionalLSTM
from msvqa.models.model import Model, Sizes

# Legend: V videos, Q questions, C clips, F frames per clip, D hidden size, A answers.

UNPOOLED = (
    ": an extractor at 224 pixels left 4 x 4 positions unpooled; extract at 112 pixels, or set "
    "features.pool_motion: true"
)


@dataclass(frozen=True)
class Reasoned:
    """Logits (Q, A), and the graph outputs (Q, C, D) of every reasoning step for the losses."""

    logits: Tensor
    common_appearance: list[Tensor]
    common_motion: list[Tensor]
    specific_appearance: list[Tensor]
    specific_motion: list[Tensor]


class ClipEncoder(nn.Module):
    """Frames of a clip, in order, to one vector."""

    def __init__(self, input_size: int, hidden_size: int, dropouts: tuple[float, float]) -> None:
        super().__init__()
        self.lstm = BidirectionalLSTM(input_size, hidden_size)
        self.frame_dropout, self.clip_dropout = map(nn.Dropout, dropouts)

    def forward(self, frames: Tensor) -> Tensor:
        """Return (V, C, D) from (V, C, F, input_size)."""
        videos = len(frames)
        frames = rearrange(torch.tanh(self.frame_dropout(frames)), "v c f d -> (v c) f d")
        _, final = self.lstm(frames)  # (V·C, D)
        clips: Tensor = rearrange(self.clip_dropout(final), "(v c) d -> v c d", v=videos)
        return clips


class GraphNetwork(nn.Module):
    """Everything behind the visual features.

    What depends on the video alone (`encode_video`) runs once per video of a batch; the rest once
    per question, through `batch["video_index"]`. So dropout before that index is drawn per video
    and after it per question.
    """

    class Config(Model.Config):
        """Fields of the shared network."""

        hidden_size: int = Field(default=768, ge=8, multiple_of=2)
        units: int = Field(default=2, ge=1, le=16)
        """Reasoning units one after another."""
        heads: int = Field(default=4, ge=1)
        graph_layers: int = Field(default=1, ge=1, le=8)
        """Graph steps inside a unit."""
        dropout: float = Field(default=0.15, ge=0, lt=1)
        state_dropout: float = Field(default=0.18, ge=0, lt=1)
        """Dropout of the final states of the sentence and clip LSTM."""
        self_loops: bool = True
        """Clips attend to themselves too."""
        fusion: Literal["product", "product_and_sum"] = "product"
        """How appearance and motion are joined. `product_and_sum` lets each of them reach the
        answer alone: for encoders that learn from scratch."""
        answer_norm: Literal["batch", "layer"] = "batch"
        """`layer` does not mix questions: for tiny batches."""
        padded_length: int = Field(default=21, ge=1)
        """Length to which the reference pads questions; attention feels it in the fifth digit."""
        reference_graph_layers: bool = False
        """Only for `graph_layers` > 1: reproduce the reference, which picks graphs by unit +
        layer (so that units share graphs and some never train) and feeds the correlated graphs
        from the specific ones."""

        @model_validator(mode="after")
        def _heads_divide_the_width(self) -> "GraphNetwork.Config":
            if self.hidden_size % self.heads:
                raise ValueError(
                    f"hidden_size = {self.hidden_size} is not a multiple of heads = {self.heads}"
                )
            return self

    def __init__(self, config: Config, sizes: Sizes, widths: tuple[int, int]) -> None:
        """Build the network for frame and clip features of the given `widths`."""
        super().__init__()
        if sizes.num_clips == 1 and not config.self_loops:
            raise RecipeError(["model.self_loops: false needs clips.num_clips of 2 or more"])
        self.widths = widths
        hidden, dropout = config.hidden_size, config.dropout
        dropouts = (dropout, config.state_dropout)
        self.question = QuestionEncoder(sizes.vocabulary, sizes.word_size, hidden, dropouts)
        self.appearance = ClipEncoder(widths[0], hidden, dropouts)
        self.motion = nn.Linear(widths[1], hidden)
        self.reasoning = GraphReasoning(_reasoning_sizes(config, sizes))
        self.fusion = BilinearFusion(hidden, config.fusion == "product_and_sum")
        self.readout = GraphReadout(hidden, dropout)
        self.answer = AnswerDecoder(hidden, sizes.answers, dropout, config.answer_norm)
        self.apply(_initialize)

    def encode_video(self, appearance: Tensor, motion: Tensor) -> tuple[Tensor, Tensor]:
        """Return appearance and motion of the clips, both (V, C, D).

        Args:
            appearance: (V, C, F, width) features of frames, of any floating type.
            motion: (V, C, width) features of clips.
        """
        _check_features(appearance, motion, self.widths)
        dtype = self.motion.weight.dtype
        return self.appearance(appearance.to(dtype)), self.motion(motion.to(dtype))

    def reason(self, appearance: Tensor, motion: Tensor, batch: Batch) -> tuple[Reasoning, Tensor]:
        """Return the reasoned clips of every question, and its words (Q, L, W)."""
        index, length = batch["video_index"], batch["question_length"]
        words, contextual = self.question(batch["question"], length)
        clips = (appearance[index], motion[index])
        dtype = self.motion.weight.dtype
        # Never in half precision: the consistency loss compares small differences between clips,
        # and next to the encoders the graphs cost nothing.
        with torch.autocast(index.device.type, enabled=False):
            inputs = (x.to(dtype) for x in (*clips, words, contextual))
            reasoning = self.reasoning(*inputs, length)
        return reasoning, words

    def decode_answer(self, reasoning: Reasoning, words: Tensor, batch: Batch) -> Reasoned:
        """Return the logits of the answers."""
        pooled = self.readout(self.fusion(reasoning.appearance, reasoning.motion))  # (Q, D)
        sentence = self.question.summarize(words, batch["question_length"])
        return Reasoned(
            logits=self.answer(sentence, pooled),
            common_appearance=reasoning.common_appearance,
            common_motion=reasoning.common_motion,
            specific_appearance=reasoning.specific_appearance,
            specific_motion=reasoning.specific_motion,
        )

    def answer_modules(self) -> list[nn.Module]:
        """Return what only the answer needs; nothing else reads the sentence."""
        return [self.fusion, self.readout, self.answer, self.question.sentence]

    def load_word_vectors(self, vectors: np.ndarray) -> None:
        """Start the embedding from a (vocabulary, word_size) matrix."""
        weight = self.question.embedding.weight
        if tuple(vectors.shape) != tuple(weight.shape):
            raise DataError(
                f"word vectors have the shape {tuple(vectors.shape)}, the model needs "
                f"{tuple(weight.shape)} (vocabulary, word_size): prepare the data again"
            )
        with torch.no_grad():
            weight.copy_(torch.from_numpy(np.ascontiguousarray(vectors)))


class GraphModel(Model):
    """A model that answers with the shared network; subclasses say how videos are encoded."""

    network: GraphNetwork

    def encode_video(self, batch: Batch) -> tuple[Tensor, Tensor]:
        """Return appearance and motion of the clips, both (V, C, D), once per video."""
        raise NotImplementedError

    def reason(self, batch: Batch) -> tuple[Reasoning, Tensor]:
        """Return the reasoned clips of every question, and its words (Q, L, W)."""
        return self.network.reason(*self.encode_video(batch), batch)

    def answer(self, batch: Batch) -> Reasoned:
        """Return the logits for every question of the batch."""
        return self.network.decode_answer(*self.reason(batch), batch)

    def unused_in_answering(self) -> list[nn.Module]:
        """Return the modules that `answer` never runs."""
        return self.network.reasoning.unused()

    def load_word_vectors(self, vectors: np.ndarray) -> None:
        """Start the word embedding from a (vocabulary, word_size) matrix."""
        self.network.load_word_vectors(vectors)


def _reasoning_sizes(config: GraphNetwork.Config, sizes: Sizes) -> ReasoningSizes:
    return ReasoningSizes(
        hidden_size=config.hidden_size,
        word_size=sizes.word_size,
        heads=config.heads,
        units=config.units,
        layers=config.graph_layers,
        dropout=config.dropout,
        self_loops=config.self_loops,
        padded_length=config.padded_length,
        reference_layers=config.reference_graph_layers,
    )


def _check_features(appearance: Tensor, motion: Tensor, widths: tuple[int, int]) -> None:
    for kind, features, width, dims in (
        ("appearance", appearance, widths[0], 4),
        ("motion", motion, widths[1], 3),
    ):
        if features.ndim != dims or features.shape[-1] != width:
            hint = UNPOOLED if features.shape[-1] == 16 * width else ""
            raise DataError(
                f"{kind} features of a batch have the shape {tuple(features.shape)}; expected "
                f"{dims} axes, the last one {width} wide{hint}"
            )


def _initialize(module: nn.Module) -> None:
    """Xavier-uniform matrices and zero biases, also for LSTMs (no offset of the forget gate)."""
    if isinstance(module, GraphAttention):
        module.reset_parameters()
    elif isinstance(module, (nn.Linear, nn.LSTM)):
        for parameter in module.parameters():
            if parameter.ndim > 1:
                nn.init.xavier_uniform_(parameter)
            else:
                nn.init.zeros_(parameter)
    elif isinstance(module, nn.Embedding):
        nn.init.uniform_(module.weight, -1, 1)
