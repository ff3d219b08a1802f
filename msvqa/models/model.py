"""What every model has in common: config, sizes, parameter groups, weight files."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
from torch import nn

from msvqa.models import MODELS
from msvqa.recipe import Recipe
from msvqa.sections import NamedConfig, resolve


@dataclass(frozen=True, kw_only=True)
class Sizes:
    """What a model must know of its data."""

    vocabulary: int
    """Number of word ids, with padding and unknown."""
    answers: int
    """Number of answer classes, with the unknown ones."""
    num_clips: int
    frames_per_clip: int
    size_px: int
    """Height and width of a frame."""
    appearance_width: int | None = None
    """Width of given frame features; None where the model encodes pixels."""
    motion_width: int | None = None
    word_size: int = 300


class Model(nn.Module):
    """Base of the models. They never choose a device; objectives call named methods."""

    class Config(NamedConfig):
        """Fields that every model has."""

    def __init__(self, config: Config, sizes: Sizes) -> None:
        super().__init__()
        self.config, self.sizes = config, sizes

    def parameter_groups(self) -> Mapping[str, list[nn.Parameter]]:
        """Return all parameters by group, for learning rates of their own; here `rest`."""
        return {"rest": list(self.parameters())}

    def load_pretrained(self) -> None:
        """Load the weight files that the config names; called once, before the first stage."""

    def load_word_vectors(self, vectors: np.ndarray) -> None:
        """Start the word embedding from a (vocabulary, word_size) matrix."""


def build_model(recipe: Recipe, sizes: Sizes) -> Any:
    """Return the untrained model that a recipe names."""
    return resolve(recipe.model.name, MODELS, "model")(recipe.model, sizes)
