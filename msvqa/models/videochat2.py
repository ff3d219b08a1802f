"""VideoChat2: a querying transformer between a video encoder and a language model.

Paper: Li et al., "MVBench: A Comprehensive Multi-modal Video Understanding Benchmark", CVPR 2024,
https://arxiv.org/abs/2311.17005, section 4.
"""

from collections.abc import Collection, Mapping, Sequence
from pathlib import Path
from typing import Any, ClassVar, Literal

import torch
from pydantic import Field
from torch import Tensor, nn
from torch.nn import functional
from transformers import AutoConfig, AutoModelForCausalLM

from msvqa.data.batch import Batch
from msvqa.errors import RecipeError, WeightsError
from msvqa.models.layers.adapters import AdapterConfig, adapt, adapter_modules
from msvqa.models.layers.language_input import LanguageInput, Text, assemble
from msvqa.models.layers.qformer import LAYER_NORM_EPS, QFormer, QFormerConfig
from msvqa.models.model import Model, Sizes
from msvqa.models.parts import Member, Parts
from msvqa.sections import Config
from msvqa.storage import DiskPath

# Legend: V media, T frames, N tokens of a frame, W their width, B pairs or rows, Q queries, D width
# of the Q-Former, E of the common space, H of the language model, L words.

LEAST_TEMPERATURE, LARGEST_TEMPERATURE = 0.001, 0.5
INIT_STD = 0.02
Pooling = Literal["none", "add", "cat"]
Aggregate = Literal["mean", "max"]
KNOWN: dict[str, Any] = {"local_files_only": True, "trust_remote_code": False}
"""Nothing is fetched, and no code in a folder is run."""

STAGES: Mapping[str, Mapping[str, tuple[str, ...]]] = {
    "align": {"frozen": (), "absent": ("extra_queries", "projection", "language", "adapter")},
    "connect": {"frozen": ("language", "text"), "absent": ("heads", "adapter")},
    "instruct": {"frozen": ("language",), "absent": ("heads",)},
}
"""What each stage leaves as it is, and does without; all else is trained.

The released program deletes in its second stage what only texts go through, so that the third has
to read two checkpoints. Here it stays, frozen, and one is enough.
"""


class HeadsConfig(Config):
    """What only the first stage needs."""

    width: int = Field(default=768, ge=1)
    """E: where queries and texts are compared."""
    pooling: Pooling = "cat"
    """What says whether medium and text match: queries, with the text's first state added to them,
    or beside them."""
    temperature: float = Field(default=0.07, ge=LEAST_TEMPERATURE, le=LARGEST_TEMPERATURE)
    """At the start; it is learned."""


class Heads(nn.Module):
    """Projections into one space, the temperature of their contrast, and the matching head."""

    def __init__(self, config: HeadsConfig, width: int) -> None:
        super().__init__()
        self.pooling = config.pooling
        self.vision, self.text = nn.Linear(width, config.width), nn.Linear(width, config.width)
        self.matching = nn.Linear(2 * width if config.pooling == "cat" else width, 2)
        self.temperature = nn.Parameter(torch.tensor(config.temperature))

    def pooled(self, queries: Tensor, words: Tensor) -> Tensor:
        """Return one vector (B, D or 2·D) of queries (B, Q, D) and words (B, L, D)."""
        mean, first = queries.mean(dim=1), words[:, 0]
        if self.pooling == "cat":
            return torch.cat([mean, first], dim=1)
        return mean + first if self.pooling == "add" else mean


class VideoChat2(Model):
    """Norm of the visual tokens, Q-Former, projection, language model and its adapters."""

    class Config(Model.Config):
        """Sizes and sources."""

        name: str = "videochat2"
        vision_width: int = Field(default=1024, ge=1)
        frames: int = Field(default=4, ge=1)
        """Frames that the temporal embedding of the first stage is for."""
        qformer: QFormerConfig = QFormerConfig()
        heads: HeadsConfig = HeadsConfig()
        language: DiskPath | None = None
        """Folder of a language model, as `transformers` saves it, with its tokenizer."""
        adapter: AdapterConfig = AdapterConfig()
        begin_id: int = Field(default=1, ge=0)
        """Token that begins every sequence of the language model (BOS)."""

    config: Config
    optional: ClassVar[tuple[str, ...]] = (
        "heads", "extra_queries", "projection", "language", "adapter",
    )  # fmt: skip
    external: ClassVar[tuple[str, ...]] = ("language",)

    def __init__(self, config: Config, sizes: Sizes, absent: Collection[str] = ()) -> None:
        super().__init__(config, sizes, absent)
        width = config.qformer.width

        def has(part: str) -> bool:
            return part not in self.absent

        self.norm = nn.LayerNorm(config.vision_width, eps=LAYER_NORM_EPS)
        self.qformer = QFormer(config.qformer, config.vision_width, extra=has("extra_queries"))
        if has("heads"):
            # Stages 2 and 3 of the paper have no temporal embedding.
            self.frame_places = nn.Parameter(torch.empty(1, config.frames, 1, config.vision_width))
            nn.init.normal_(self.frame_places, std=INIT_STD)
            self.heads = Heads(config.heads, width)
        if has("language"):
            self.language = self._build_language()
            if has("projection"):
                self.projection = nn.Linear(
                    width, self.language.config.get_text_config().hidden_size
                )
            if has("adapter"):
                self.language = adapt(self.language, config.adapter)
        elif has("projection") or has("adapter"):
            raise RecipeError(
                ["parts.language: projection and adapter need it; make them absent too"]
            )

    def _build_language(self) -> Any:
        folder = self.config.language
        if folder is None or not (Path(folder) / "config.json").is_file():
            raise RecipeError(
                [f"model.language: {folder}: not a folder of a language model, which has a file "
                 "config.json"]
            )  # fmt: skip
        library: Any = AutoModelForCausalLM
        try:
            found = AutoConfig.from_pretrained(folder, **KNOWN)
            return library.from_config(found, trust_remote_code=False)
        except (OSError, ValueError, KeyError) as error:
            raise RecipeError([f"model.language: {folder}: {error}"]) from None

    def parts(self) -> Parts:
        """Return what stages train, freeze or leave out."""
        found: dict[str, Sequence[Member]] = {
            "qformer": [self.qformer, self.norm], "text": self.qformer.text_branch(),
        }  # fmt: skip
        if "heads" not in self.absent:
            found["heads"] = [self.heads, self.frame_places]
        if self.qformer.extra_queries is not None:
            found["extra_queries"] = [self.qformer.extra_queries]
        if "projection" not in self.absent:
            found["projection"] = [self.projection]
        if "language" not in self.absent:
            found["language"] = [self.language]
            if "adapter" not in self.absent:
                found["adapter"] = adapter_modules(self.language)
        return found

    # Weights

    def weight_files(self) -> Mapping[str, Sequence[str]]:
        """Return the files of the language model."""
        if self.config.language is None or "language" in self.absent:
            return {}
        return {
            "language": [str(p) for p in sorted(Path(self.config.language).glob("*.safetensors"))]
        }

    def load_pretrained(self) -> None:
        """Load the language model, if there is one."""
        if "language" not in self.absent:
            self.load_external("language")

    def load_external(self, part: str) -> None:
        """Load the weights of the language model.

        Raises:
            WeightsError: its folder has other weights than its config says, or none.
        """
        assert part == "language"
        folder = self.config.language
        library: Any = AutoModelForCausalLM
        try:
            loaded, told = library.from_pretrained(
                folder, use_safetensors=True, output_loading_info=True, **KNOWN
            )
        except (OSError, ValueError, KeyError) as error:
            raise WeightsError(f"{folder}: {error}") from None
        missing = [*told["missing_keys"], *told["mismatched_keys"]]
        if missing:
            raise WeightsError(f"{folder}: lacks {len(missing)} weights, such as {missing[0]}")
        plain = self.language if "adapter" in self.absent else self.language.get_base_model()
        own = {_without_wrapper(name): tensor for name, tensor in plain.state_dict().items()}
        with torch.no_grad():
            for name, tensor in loaded.state_dict().items():
                own[name].copy_(tensor)

    def save_adapter(self, folder: Path) -> None:
        """Write the adapters in the format of `peft`."""
        self.language.save_pretrained(folder, safe_serialization=True)

    # What objectives ask

    def see(self, batch: Batch) -> Tensor:
        """Return the visual tokens (V, T·N, W) of media, of `vision` (V, T, N, W).

        In the first stage each frame has a place of its own; an image has the first one. (The
        released program adds all of them to an image, which then has T times its tokens.)
        """
        vision = batch["vision"]
        if "heads" not in self.absent:
            frames = vision.shape[1]
            if frames > self.config.frames:
                raise RecipeError(
                    [f"model.frames: places for {self.config.frames} frames, media have {frames}"]
                )
            vision = vision + self.frame_places[:, :frames]
        normed: Tensor = self.norm(vision.flatten(1, 2))
        return normed

    @property
    def temperature(self) -> Tensor:
        """What similarities are divided by; between 0.001 and 0.5 before each step."""
        with torch.no_grad():
            self.heads.temperature.clamp_(LEAST_TEMPERATURE, LARGEST_TEMPERATURE)
        return self.heads.temperature

    def encode_video(self, queries: Tensor) -> Tensor:
        """Return vectors of length 1 (B, Q, E) of queries (B, Q, D)."""
        return functional.normalize(self.heads.vision(queries), dim=-1)

    def encode_text(self, words: Tensor) -> Tensor:
        """Return a vector of length 1 (B, E) of words (B, L, D)."""
        return functional.normalize(self.heads.text(words[:, 0]), dim=-1)

    def match_logits(self, tokens: Tensor, ids: Tensor, mask: Tensor) -> Tensor:
        """Return whether media and texts belong together: logits (B, 2) of no and yes.

        Losses and evaluators ask this very method, whatever the pooling.

        Args:
            tokens: (B, T·N, W), see `see`.
            ids: int64 (B, L) of the texts.
            mask: bool (B, L).
        """
        logits: Tensor = self.heads.matching(
            self.heads.pooled(*self.qformer.join(tokens, ids, mask))
        )
        return logits

    def visual(self, tokens: Tensor, reading: Text | None = None) -> Tensor:
        """Return what the language model sees of media (B, Q, H).

        Args:
            tokens: (B, T·N, W), see `see`.
            reading: the instructions that the queries read meanwhile; a row whose mask is empty
                has none.
        """
        if reading is None or not reading.ids.shape[1]:
            queries = self.qformer.look(tokens)
        else:
            queries, _ = self.qformer.join(tokens, reading.ids, reading.mask)
        projected: Tensor = self.projection(queries)
        return projected

    def language_input(self, before: Text, visual: Tensor | None, after: Text) -> LanguageInput:
        """Return what the language model is given, see `assemble`."""
        words = self.language.get_input_embeddings()
        return assemble(words, self.config.begin_id, before, visual, after)


def query_similarity(queries: Tensor, texts: Tensor, aggregate: Aggregate = "mean") -> Tensor:
    """Return how alike media and texts are (V, B), over queries (V, Q, E), of texts (B, E).

    BLIP-2 takes the query that is most alike, VideoChat2 the mean of all.
    """
    each = torch.einsum("vqe,be->vbq", queries, texts)
    return each.mean(dim=2) if aggregate == "mean" else each.amax(dim=2)


def _without_wrapper(name: str) -> str:
    """Return the name that a weight has without adapters."""
    return name.replace(".base_layer.", ".")
