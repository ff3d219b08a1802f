"""CLIP's image transformer, as a teacher: what its last layers say of every patch.

Paper: Radford et al., "Learning Transferable Visual Models From Natural Language Supervision",
2021. The names of weights are those of OpenAI's files, without `visual.`.
"""

import re
from collections.abc import Mapping
from typing import Any, Literal, NamedTuple, cast

import torch
from einops import rearrange
from pydantic import Field, model_validator
from torch import Tensor, nn
from torch.nn import functional

from msvqa.models.layers import positions
from msvqa.models.layers.presets import with_preset
from msvqa.sections import Config
from msvqa.storage import WeightsFile

# Legend: I images, P patches across and down, N = P·P, K last layers, W width, C output width.

PRESETS = {
    "b16": {"width": 768, "depth": 12, "heads": 12, "patch_px": 16, "output_width": 512},
    "l14": {"width": 1024, "depth": 24, "heads": 16, "patch_px": 14, "output_width": 768},
}
FIRST_STD = 0.02


class ClipTowerConfig(Config):
    """Size of the tower; the preset gives what is not said."""

    preset: Literal["b16", "l14"] = "b16"
    width: int = Field(default=768, ge=4)
    depth: int = Field(default=12, ge=1, le=64)
    heads: int = Field(default=12, ge=1)
    patch_px: int = Field(default=16, ge=2)
    output_width: int = Field(default=512, ge=1)
    trained_px: int = Field(default=224, ge=2)
    """Height and width of the images that the weights were trained on."""
    first_std: float = Field(default=FIRST_STD, gt=0)
    """Of positions and class token at the start, without weights. Of few patches a shape is known
    by where its parts are, which so small numbers hardly say: 0.3 teaches shapes sooner."""
    norm: Literal["shared", "clip"] = "shared"
    """Scale of the pixels. UMT shows the teacher what the student sees, on ImageNet's scale;
    `clip` is the scale that CLIP was trained on."""
    weights: WeightsFile | None = None
    """File with weights in OpenAI's layout or that of `transformers`; null: from chance."""

    @model_validator(mode="before")
    @classmethod
    def _fill(cls, values: Any) -> Any:
        return with_preset(values, PRESETS)


class Lesson(NamedTuple):
    """What a teacher says of images."""

    layers: list[Tensor]
    """K x (I, N, W), outputs of the last layers, before norm and projection."""
    attention: Tensor
    """(I, N), how much the class token of the last layer attends to each patch, mean over heads;
    rows do not sum to 1, for the class token attends to itself too."""


class ClipTower(nn.Module):
    """Pre-norm transformer over the patches of an image and a class token."""

    def __init__(self, config: ClipTowerConfig) -> None:
        super().__init__()
        self.config = config
        width, patch = config.width, config.patch_px
        own = (config.trained_px // patch) ** 2 + 1
        self.conv1 = nn.Conv2d(3, width, patch, patch, bias=False)
        self.class_embedding = nn.Parameter(torch.randn(width) * config.first_std)
        self.positional_embedding = nn.Parameter(torch.randn(own, width) * config.first_std)
        self.ln_pre = nn.LayerNorm(width)
        self.transformer = nn.ModuleDict(
            {"resblocks": nn.ModuleList(_Block(width, config.heads) for _ in range(config.depth))}
        )
        self.ln_post = nn.LayerNorm(width)
        self.proj = nn.Parameter(torch.randn(width, config.output_width) * width**-0.5)

    def learn(self, images: Tensor, last: int) -> Lesson:
        """Return what the last so many layers say of images (I, 3, height, width)."""
        tokens = self._embed(images)  # (I, 1 + N, W)
        layers: list[Tensor] = []
        blocks = self._blocks()
        for number, block in enumerate(blocks, start=1):
            if number == len(blocks):
                attention = block.class_attention(tokens)
            tokens = block(tokens)
            if number > len(blocks) - last:
                layers.append(tokens[:, 1:])
        return Lesson(layers, attention)

    def project(self, tokens: Tensor) -> Tensor:
        """Return normed and projected tokens (..., C) of tokens (..., W)."""
        projected: Tensor = self.ln_post(tokens) @ self.proj
        return projected

    def forward(self, images: Tensor) -> Tensor:
        """Return CLIP's vector (I, C) of images (I, 3, height, width)."""
        tokens = self._embed(images)
        for block in self._blocks():
            tokens = block(tokens)
        return self.project(tokens[:, 0])

    def _blocks(self) -> list["_Block"]:
        return [cast(_Block, block) for block in self.transformer["resblocks"].children()]

    def _embed(self, images: Tensor) -> Tensor:
        patches = self.conv1(images)
        grid = patches.shape[-1]
        tokens = rearrange(patches, "i w h x -> i (h x) w")
        first = self.class_embedding.to(tokens.dtype).expand(len(tokens), 1, -1)
        table = self.positional_embedding
        places = positions.resize_grid(table[None, 1:], grid)[0]
        tokens = torch.cat([first, tokens], dim=1) + torch.cat([table[:1], places])
        normed: Tensor = self.ln_pre(tokens)
        return normed


class _Attention(nn.Module):
    def __init__(self, width: int, heads: int) -> None:
        super().__init__()
        self.heads = heads
        self.in_proj_weight = nn.Parameter(torch.empty(3 * width, width))
        self.in_proj_bias = nn.Parameter(torch.zeros(3 * width))
        self.out_proj = nn.Linear(width, width)
        nn.init.xavier_uniform_(self.in_proj_weight)

    def split(self, tokens: Tensor) -> Tensor:
        """Return queries, keys and values (3, I, H, n, W/H)."""
        mixed = functional.linear(tokens, self.in_proj_weight, self.in_proj_bias)
        return rearrange(mixed, "i n (k h d) -> k i h n d", k=3, h=self.heads)

    def forward(self, tokens: Tensor) -> Tensor:
        seen = functional.scaled_dot_product_attention(*self.split(tokens))
        output: Tensor = self.out_proj(rearrange(seen, "i h n d -> i n (h d)"))
        return output


class _Perceptron(nn.Module):
    def __init__(self, width: int) -> None:
        super().__init__()
        self.c_fc, self.c_proj = nn.Linear(width, 4 * width), nn.Linear(4 * width, width)

    def forward(self, tokens: Tensor) -> Tensor:
        inner = self.c_fc(tokens)
        # OpenAI's approximation of GELU.
        output: Tensor = self.c_proj(inner * torch.sigmoid(1.702 * inner))
        return output


class _Block(nn.Module):
    def __init__(self, width: int, heads: int) -> None:
        super().__init__()
        self.ln_1, self.attn = nn.LayerNorm(width), _Attention(width, heads)
        self.ln_2, self.mlp = nn.LayerNorm(width), _Perceptron(width)

    def forward(self, tokens: Tensor) -> Tensor:
        tokens = tokens + self.attn(self.ln_1(tokens))
        output: Tensor = tokens + self.mlp(self.ln_2(tokens))
        return output

    def class_attention(self, tokens: Tensor) -> Tensor:
        """Return how the class token attends to the patches (I, N), mean over heads.

        Of one row only, so that the rest may take the fast way, which gives no probabilities. In
        single precision at least: in half precision most of them would be 0.
        """
        query, key, _ = self.attn.split(self.ln_1(tokens))
        query, key = (v.to(torch.promote_types(v.dtype, torch.float32)) for v in (query, key))
        with torch.autocast(tokens.device.type, enabled=False):
            scores = query[:, :, :1] @ key.transpose(2, 3) / query.shape[-1] ** 0.5
        attention: Tensor = scores.softmax(dim=-1).mean(dim=1)[:, 0, 1:]  # (I, N)
        return attention


_TRANSFORMERS = (
    (r"vision_model\.embeddings\.class_embedding", "class_embedding"),
    (r"vision_model\.embeddings\.patch_embedding\.weight", "conv1.weight"),
    (r"vision_model\.embeddings\.position_embedding\.weight", "positional_embedding"),
    (r"vision_model\.pre_layrnorm\.(\w+)", r"ln_pre.\1"),
    (r"vision_model\.post_layernorm\.(\w+)", r"ln_post.\1"),
    (r"vision_model\.encoder\.layers\.(\d+)\.layer_norm([12])\.(\w+)",
     r"transformer.resblocks.\1.ln_\2.\3"),
    (r"vision_model\.encoder\.layers\.(\d+)\.self_attn\.([qkv])_proj\.(\w+)",
     r"transformer.resblocks.\1.attn.in_proj_\3/\2"),
    (r"vision_model\.encoder\.layers\.(\d+)\.self_attn\.out_proj\.(\w+)",
     r"transformer.resblocks.\1.attn.out_proj.\2"),
    (r"vision_model\.encoder\.layers\.(\d+)\.mlp\.fc1\.(\w+)",
     r"transformer.resblocks.\1.mlp.c_fc.\2"),
    (r"vision_model\.encoder\.layers\.(\d+)\.mlp\.fc2\.(\w+)",
     r"transformer.resblocks.\1.mlp.c_proj.\2"),
    (r"visual_projection\.weight", "proj"),
)  # fmt: skip
"""Names of `transformers`, and ours; behind `/` which third of a weight it is."""


def image_weights(weights: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Return the image tower's weights in a file of OpenAI's layout or that of `transformers`.

    A whole CLIP has a text tower too, which is left out.
    """
    if any(name.startswith("vision_model.") for name in weights):
        return _from_transformers(weights)
    if any(name.startswith("visual.") for name in weights):
        weights = {n[len("visual.") :]: v for n, v in weights.items() if n.startswith("visual.")}
    return dict(weights)


def _from_transformers(weights: Mapping[str, Tensor]) -> dict[str, Tensor]:
    beside = re.compile(r"text_|logit_scale|.*position_ids")
    found: dict[str, Tensor] = {}
    for name, value in weights.items():
        rule = next(((p, ours) for p, ours in _TRANSFORMERS if re.fullmatch(p, name)), None)
        if rule:
            found[re.sub(*rule, name)] = value
        elif not beside.match(name):
            found[name] = value  # refused by its name
    if "proj" in found:
        found["proj"] = found["proj"].T
    for name in [name for name in found if name.endswith("/q")]:
        thirds = [found.pop(name.replace("/q", f"/{part}"), None) for part in "qkv"]
        if all(third is not None for third in thirds):
            found[name.removesuffix("/q")] = torch.cat([t for t in thirds if t is not None])
    return found
