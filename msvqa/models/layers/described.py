"""What models of titled videos say of each: an embedding, and how much every tag fits."""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

from torch import Tensor, nn

from msvqa.data.batch import Batch
from msvqa.errors import RecipeError
from msvqa.models.language.text_encoder import TextEncoder
from msvqa.models.model import Model, Sizes

# Legend: B videos, T frames, D numbers of a frame, E embedding width, L tags, X experts,
# H width of an expert, or of a transformer, S words, M masked positions, W words of the vocabulary.


@dataclass(frozen=True)
class Experts:
    """Several views of each video, before and after they are mixed."""

    logits: Tensor
    """(X, B, L)"""
    vision: Tensor
    """(X, B, H) what each makes of the frames alone."""
    text: Tensor
    """(B, H)"""


@dataclass(frozen=True)
class Described:
    """What a model says of videos."""

    embedding: Tensor
    """(B, E)"""
    logits: Tensor
    """(B, L)"""
    experts: Experts | None = None
    words: Tensor | None = None
    """(B, S, E) at the words of the title."""
    frames: Tensor | None = None
    """(B, T, H) at the frames."""


class TitledVideoModel(Model):
    """Describes videos from frame features and a title.

    A batch has `vectors` (B, T, D), `num_frames` (B,), `tokens` (B, S) and `token_mask` (B, S).
    """

    text: TextEncoder
    """Reads the titles; a subclass makes it."""

    def __init__(self, config: Model.Config, sizes: Sizes, absent: Iterable[str] = ()) -> None:
        super().__init__(config, sizes, frozenset(absent))
        if not sizes.get("width") or not sizes.get("frames"):
            raise RecipeError(
                [
                    f"model {config.name} reads rows of vectors: `processor: {{name: vectors, "
                    "frames: 32, width: 1536}`"
                ]
            )

    def describe(self, batch: Batch) -> Described:
        """Return what the model says of every video of a batch."""
        raise NotImplementedError

    def predict_words(self, words: Tensor) -> Tensor:
        """Return logits (M, W) of the words that stand at positions (M, E) of `Described.words`."""
        raise NotImplementedError(f"{type(self).__name__} predicts no words")

    @property
    def predicts_words(self) -> bool:
        """Whether the model has what `predict_words` needs."""
        return False

    def predict_frames(self, frames: Tensor) -> Tensor:
        """Return the frames (M, D) that stand at positions (M, H) of `Described.frames`."""
        raise NotImplementedError(f"{type(self).__name__} predicts no frames")

    @property
    def predicts_frames(self) -> bool:
        """Whether the model has what `predict_frames` needs."""
        return False

    @property
    def mixes_experts(self) -> bool:
        """Whether `describe` returns experts."""
        return False

    def fixed(self) -> Iterable[nn.Module]:
        """Return what no stage trains."""
        return self.text.fixed()

    def weight_files(self) -> Mapping[str, Sequence[str]]:
        """Return the file of the language model, if the config names one."""
        return {"text": self.text.weight_files()}

    def load_pretrained(self) -> None:
        """Load the language model that the config names."""
        self.text.load_pretrained()

    def heads(self) -> Mapping[str, nn.Module]:
        """Return what only `predict_words` runs, as `words`, and `predict_frames`, as `frames`."""
        return {}
