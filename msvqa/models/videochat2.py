"""VideoChat2: a querying transformer between a video encoder and a language model.

Paper: Li et al., "MVBench: A Comprehensive Multi-modal Video Understanding Benchmark", CVPR 2024,
https://arxiv.org/abs/2311.17005, section 4.
"""

from collections.abc import Collection, Mapping, Sequence
from functools import cached_property
from pathlib import Path
from typing import Any, ClassVar, Literal

import torch
from pydantic import Field, model_validator
from safetensors import SafetensorError
from torch import Tensor, nn
from torch.nn import functional
from transformers import AutoConfig, AutoModelForCausalLM, AutoTokenizer
from transformers.utils.logging import disable_progress_bar

from msvqa.data.batch import Batch
from msvqa.errors import RecipeError, WeightsError
from msvqa.models.layers.adapters import AdapterConfig, adapt, adapter_modules
from msvqa.models.layers.language_input import LanguageInput, Text, Visual, assemble
from msvqa.models.layers.pixels import IMAGENET_MEAN, IMAGENET_STD, PixelScale
from msvqa.models.layers.qformer import LAYER_NORM_EPS, QFormer, QFormerConfig, of_bert
from msvqa.models.layers.video_transformer import (
    VideoTransformer,
    VideoTransformerConfig,
    load_published,
)
from msvqa.models.model import Model, Sizes
from msvqa.models.parts import Member, Parts
from msvqa.models.weight_files import read_weights
from msvqa.sections import Config
from msvqa.storage import DiskPath, WeightsFile

# Legend: V media, T frames, N tokens of a frame, W their width, B pairs or rows, Q queries, D width
# of the Q-Former, E of the common space, H of the language model, L words.

LEAST_TEMPERATURE, LARGEST_TEMPERATURE = 0.001, 0.5
INIT_STD = 0.02
Pooling = Literal["none", "add", "cat"]
Aggregate = Literal["mean", "max"]
KNOWN: dict[str, Any] = {"local_files_only": True, "trust_remote_code": False}
"""Nothing is fetched, and no code in a folder is run."""
BERT_FILES = ("model.safetensors", "pytorch_model.bin")
TOKENIZER_FILES = ("tokenizer.json", "tokenizer_config.json")

STAGES: Mapping[str, Mapping[str, tuple[str, ...]]] = {
    "align": {
        "frozen": ("video",), "absent": ("extra_queries", "projection", "language", "adapter"),
    },
    "connect": {"frozen": ("language", "text"), "absent": ("heads", "adapter")},
    "instruct": {"frozen": ("language",), "absent": ("heads",)},
}  # fmt: skip
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


class SourcesConfig(Config):
    """Where the parts that others have trained come from; nothing is fetched."""

    video: WeightsFile | None = None
    """Published weights of UMT, of either stage; its last layer and norm are left out."""
    qformer: DiskPath | None = None
    """Folder of a BERT: its tokenizer, and where it has weights what the Q-Former starts with."""
    language: DiskPath | None = None
    """Folder of a language model with its tokenizer, as `transformers` saves it."""


class VideoChat2(Model):
    """Video encoder, norm of its tokens, Q-Former, projection, language model and its adapters."""

    class Config(Model.Config):
        """Sizes and sources."""

        name: str = "videochat2"
        sources: SourcesConfig = SourcesConfig()
        video: VideoTransformerConfig = VideoTransformerConfig(preset="large", trained_frames=4)
        """That of UMT as it was trained; its last layer does not run."""
        frames: int = Field(default=4, ge=1)
        """Frames that the temporal embedding of the first stage is for."""
        qformer: QFormerConfig = QFormerConfig()
        heads: HeadsConfig = HeadsConfig()
        adapter: AdapterConfig = AdapterConfig()

        @model_validator(mode="after")
        def _is_deep_enough(self) -> "VideoChat2.Config":
            if self.video.depth < 2:
                raise ValueError("video.depth: at least 2, of which the last layer does not run")
            return self

    config: Config
    optional: ClassVar[tuple[str, ...]] = (
        "heads", "extra_queries", "projection", "language", "adapter",
    )  # fmt: skip
    external: ClassVar[tuple[str, ...]] = ("language",)
    undecayed: ClassVar[tuple[str, ...]] = (
        "qformer.queries", "qformer.extra_queries", "frame_places",
    )  # fmt: skip

    def __init__(self, config: Config, sizes: Sizes, absent: Collection[str] = ()) -> None:
        super().__init__(config, sizes, absent)
        width = config.qformer.width

        def has(part: str) -> bool:
            return part not in self.absent

        self.scale = PixelScale(IMAGENET_MEAN, IMAGENET_STD)
        self.video = _without_last_layer(config.video, sizes)
        self.norm = nn.LayerNorm(config.video.width, eps=LAYER_NORM_EPS)
        self.qformer = QFormer(config.qformer, config.video.width, extra=has("extra_queries"))
        if has("heads"):
            # Stages 2 and 3 of the paper have no temporal embedding.
            self.frame_places = nn.Parameter(torch.empty(1, config.frames, 1, config.video.width))
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
        folder = self._folder("language", ("config.json",))
        library: Any = AutoModelForCausalLM
        try:
            found = AutoConfig.from_pretrained(folder, **KNOWN)
            return library.from_config(found, trust_remote_code=False)
        except (OSError, ValueError, KeyError) as error:
            raise RecipeError([f"model.sources.language: {folder}: {error}"]) from None

    def _folder(self, source: str, files: Sequence[str]) -> Path:
        """Return a folder that the recipe names, which has one of some files."""
        named = getattr(self.config.sources, source)
        if named is None:
            raise RecipeError([f"model.sources.{source}: name a folder, which this stage needs"])
        folder = Path(named)
        if not any((folder / file).is_file() for file in files):
            raise RecipeError(
                [f"model.sources.{source}: {folder}: there is no file {' and no '.join(files)}"]
            )
        return folder

    @cached_property
    def tokenizer(self) -> Any:
        """That of the language model."""
        return self._tokenizer("language")

    @cached_property
    def reader(self) -> Any:
        """The tokenizer of the texts that the Q-Former reads and writes."""
        return self._tokenizer("qformer")

    def _tokenizer(self, source: str) -> Any:
        folder = self._folder(source, TOKENIZER_FILES)
        library: Any = AutoTokenizer
        try:
            return library.from_pretrained(folder, **KNOWN)
        except (OSError, ValueError, KeyError) as error:
            raise RecipeError([f"model.sources.{source}: {folder}: {error}"]) from None

    def parts(self) -> Parts:
        """Return what stages train, freeze or leave out."""
        found: dict[str, Sequence[Member]] = {
            "video": [self.video], "qformer": [self.qformer, self.norm],
            "text": self.qformer.text_branch(),
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
        """Return the files of the video encoder, the Q-Former and the language model."""
        sources, found = self.config.sources, dict[str, Sequence[str]]()
        if sources.video:
            found["video"] = [sources.video]
        if file := self._bert():
            found["qformer"] = [str(file)]
        if sources.language and "language" not in self.absent:
            files = sorted(Path(sources.language).glob("*.safetensors"))
            found["language"] = [str(file) for file in files]
        return found

    def _bert(self) -> Path | None:
        folder = self.config.sources.qformer
        places = [Path(folder) / file for file in BERT_FILES] if folder else []
        return next((place for place in places if place.is_file()), None)

    def load_pretrained(self) -> None:
        """Load what the config names.

        Raises:
            WeightsError: a file does not fit, with all names that differ.
        """
        file = self.config.sources.video
        if file:
            load_published(self.video, file, ignored=("norm.",))
        if bert := self._bert():
            of_bert(self.qformer, read_weights(bert), str(bert))
        if "language" not in self.absent:
            self.load_external("language")

    def load_external(self, part: str) -> None:
        """Load the weights of the language model.

        Raises:
            WeightsError: its folder has other weights than its config says, or none.
        """
        assert part == "language"
        folder = self._folder("language", ("config.json",))
        if not any(folder.glob("*.safetensors")):
            raise WeightsError(f"{folder}: there is no file *.safetensors")
        if next(self.language.parameters()).is_meta:
            return  # where recipes are checked, billions of weights are not read for it
        library: Any = AutoModelForCausalLM
        quiet: Any = disable_progress_bar
        quiet()
        try:
            loaded, told = library.from_pretrained(
                folder, use_safetensors=True, output_loading_info=True, **KNOWN
            )
        except (OSError, ValueError, KeyError, RuntimeError, SafetensorError) as error:
            raise WeightsError(f"{folder}: {error}") from None
        if missing := [*told["missing_keys"]]:
            raise WeightsError(f"{folder}: lacks {len(missing)} weights, such as {missing[0]}")
        plain = self.language if "adapter" in self.absent else self.language.get_base_model()
        own = {_without_wrapper(name): tensor for name, tensor in plain.state_dict().items()}
        with torch.no_grad():
            for name, tensor in loaded.state_dict().items():
                own[name].copy_(tensor)

    def export(self, folder: Path) -> None:
        """Write the adapters in the format of `peft`, for other programs, where there are any."""
        if not {"language", "adapter"} & self.absent:
            self.save_adapter(folder)
            (folder / "README.md").unlink(missing_ok=True)  # an empty form of the library

    def save_adapter(self, folder: Path) -> None:
        """Write the adapters in the format of `peft`."""
        # Not the words of the language model, which the library would add or look for on its hub.
        self.language.save_pretrained(folder, safe_serialization=True, save_embedding_layers=False)

    # What objectives ask

    def watch(self, frames: Tensor) -> Tensor:
        """Return what the video encoder sees (V, T, N, W) of frames uint8 (V, T, H, W, 3).

        That is the output of the last but one layer, without a norm: of 24 layers 23 run.
        """
        clips = self.scale(frames, like=self.video.patch_embed.proj.weight)
        (found,) = self.video.layers(self.video.embed(clips), [len(self.video.blocks) - 1])
        seen: Tensor = found.unflatten(1, (clips.shape[2] // self.config.video.tubelet, -1))
        return seen

    def see(self, batch: Batch) -> Tensor:
        """Return the visual tokens (V, T·N, W) of media, of `frames` uint8 (V, T, H, W, 3).

        In the first stage each frame has a place of its own; an image is one frame, and has the
        first place. (The released program adds all of them to an image, which then has T times its
        tokens.)
        """
        frames = batch["frames"]
        if frames.ndim != 5:
            raise RecipeError(["processor.views: model videochat2 sees one view of a medium"])
        images = batch.get("is_image")
        if images is None or not bool(images.any()):
            return self.placed(self.watch(frames))
        alone = self.placed(self.watch(frames[images, :1]))
        if bool(images.all()):
            return alone
        others = self.placed(self.watch(frames[~images]))
        tokens = others.new_empty((len(frames), *others.shape[1:]))
        # As often as a video has frames: what attends to equal tokens sees one of them.
        tokens[~images], tokens[images] = others, alone.repeat(1, frames.shape[1], 1)
        return tokens

    def placed(self, vision: Tensor) -> Tensor:
        """Return the visual tokens (V, T·N, W) of what is seen (V, T, N, W), see `see`."""
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

    def language_input(
        self, before: Text, visual: Tensor | Visual | None, after: Text
    ) -> LanguageInput:
        """Return what the language model is given, see `assemble`."""
        words = self.language.get_input_embeddings()
        return assemble(words, self.begin_id, before, visual, after)

    @property
    def begin_id(self) -> int:
        """The token that begins every sequence of the language model (BOS)."""
        found = self.tokenizer.bos_token_id
        # Some models, such as Qwen's, have none; what separates texts then begins one.
        return int(self.tokenizer.eos_token_id if found is None else found)


def query_similarity(queries: Tensor, texts: Tensor, aggregate: Aggregate = "mean") -> Tensor:
    """Return how alike media and texts are (V, B), over queries (V, Q, E), of texts (B, E).

    BLIP-2 takes the query that is most alike, VideoChat2 the mean of all.
    """
    each = torch.einsum("vqe,be->vbq", queries, texts)
    return each.mean(dim=2) if aggregate == "mean" else each.amax(dim=2)


def _without_last_layer(config: VideoTransformerConfig, sizes: Sizes) -> VideoTransformer:
    """Return a video encoder whose last layer and norm are not built."""
    depth = config.depth - 1
    # The others drop paths as often as they do below that layer.
    drop_path = config.drop_path * (depth - 1) / depth
    shorter = config.model_copy(update={"depth": depth, "drop_path": drop_path})
    video = VideoTransformer(shorter, sizes.frames, sizes.size_px)
    video.norm = nn.Identity()  # type: ignore[assignment]
    return video


def _without_wrapper(name: str) -> str:
    """Return the name that a weight has without adapters."""
    return name.replace(".base_layer.", ".")
