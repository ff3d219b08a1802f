"""What every model has in common: config, sizes, parameter groups, weight files."""

from collections.abc import Iterator, Mapping
from typing import Any

import numpy as np
from torch import nn

from msvqa.errors import one_of
from msvqa.models import MODELS
from msvqa.recipe import Recipe
from msvqa.sections import NamedConfig, resolve


class UnknownSizeError(AttributeError, ValueError):
    """A model asks for a size that its data does not have."""


class Sizes(Mapping[str, Any]):
    """What a model must know of its data: a number for each name, None where there is none.

    The lexicon gives the lengths of its lists (`vocabulary`, `answers`, ...), the processor what
    it makes of a medium (`num_clips`, `frames_per_clip`, `size_px`, ...). All are attributes too.
    """

    def __init__(self, **sizes: int | None) -> None:
        self._sizes = sizes

    def __getitem__(self, name: str) -> int | None:
        return self._sizes[name]

    def __getattr__(self, name: str) -> Any:
        if name.startswith("_"):
            raise AttributeError(name)
        if name not in self._sizes:
            raise UnknownSizeError(
                f"the model needs the size {name!r} of its data, which gives {one_of(self)}"
            )
        return self._sizes[name]

    def __iter__(self) -> Iterator[str]:
        return iter(self._sizes)

    def __len__(self) -> int:
        return len(self._sizes)

    def __repr__(self) -> str:
        return f"Sizes({', '.join(f'{name}={size}' for name, size in self.items())})"


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
