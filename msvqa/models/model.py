"""What every model has in common: config, sizes, parts, weight files."""

from collections.abc import Collection, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
import torch
from torch import nn

from msvqa.errors import RecipeError, one_of
from msvqa.models import MODELS
from msvqa.models.parts import Parts, modules_of, parameters_of
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

    least_examples: ClassVar[int] = 1
    """Fewest examples that a worker can train on at once."""
    optional: ClassVar[tuple[str, ...]] = ()
    """Parts that a stage may leave out; a model that has some takes `absent` when it is built."""
    undecayed: ClassVar[tuple[str, ...]] = ()
    """Parameters that no weight decay is for where vectors have none, whatever their shape."""
    uncut: ClassVar[tuple[str, ...]] = ()
    """Parts of which every worker has the whole, also where it has only a piece of the others, such
    as what runs under `torch.inference_mode`."""
    external: ClassVar[tuple[str, ...]] = ()
    """Parts that come whole from files of the user, such as a language model. Until a stage trains
    them they are in no checkpoint, and are read from `weight_files` again."""

    def __init__(self, config: Config, sizes: Sizes, absent: Collection[str] = ()) -> None:
        super().__init__()
        self.config, self.sizes, self.absent = config, sizes, frozenset(absent)
        self._frozen: frozenset[str] = frozenset()

    def parts(self) -> Parts:
        """Return everything in exactly one named part each, without absent ones; here `rest`."""
        return {"rest": [self]}

    def depth_of(self, name: str) -> int | None:
        """Return in which layer of its part a parameter is, 0 for the first; None: above all."""
        return None

    def freeze(self, parts: Collection[str]) -> None:
        """Leave parts as they are: no gradients, and eval mode in training too.

        Raises:
            RecipeError: the model has no such part, as where its data has no labels or no texts.
        """
        self._frozen = frozenset(parts)
        members = parameters_of(self.parts())
        if unknown := [name for name in parts if name not in members]:
            there = one_of(members)
            raise RecipeError(
                [f"parts.{name}: of this data the model has {there}" for name in unknown]
            )
        for name in parts:
            for parameter in members[name]:
                parameter.requires_grad_(False)

    def train(self, mode: bool = True) -> "Model":
        """Set the mode; frozen parts stay in eval mode."""
        super().train(mode)
        if self._frozen:
            for module in modules_of(self.parts(), self._frozen):
                module.training = False
        return self

    def weight_files(self) -> Mapping[str, Sequence[str]]:
        """Return the files that `load_pretrained` reads, by the part that they are for."""
        return {}

    def load_external(self, part: str) -> None:
        """Load one of the `external` parts from its files, as `load_pretrained` does."""
        raise NotImplementedError(f"{type(self).__name__} does not load part {part!r} alone")

    def load_pretrained(self) -> None:
        """Load the weight files that the config names; called once, before the first stage."""

    def export(self, folder: Path) -> None:
        """Write what other programs read of the model into the folder of a checkpoint."""

    def load_word_vectors(self, vectors: np.ndarray) -> None:
        """Start the word embedding from a (vocabulary, word_size) matrix."""

    def load_answers(self, pieces: np.ndarray) -> None:
        """Take all answers, int64 (answers, L), as pieces of words, -1 after their ends."""

    def begin(self, parts: Collection[str]) -> None:
        """Start parts that are new from other parts; called once these have their weights."""


def build_model(recipe: Recipe, sizes: Sizes, absent: Collection[str] = ()) -> Any:
    """Return the untrained model that a recipe names, without some of its parts.

    Raises:
        RecipeError: it cannot do without one of them.
    """
    kind: type[Model] = resolve(recipe.model.name, MODELS, "model")
    needed = [name for name in absent if name not in kind.optional]
    if needed:
        can = f"may be absent: {one_of(kind.optional)}" if kind.optional else "none may be absent"
        raise RecipeError([f"parts.{name}: model {recipe.model.name}: {can}" for name in needed])
    return _build(kind, recipe.model, sizes, absent)


def untrained(model: Model) -> Model:
    """Return a model like another, with weights of the same shapes that have no values yet."""
    with torch.device("meta"):
        built: Model = _build(type(model), model.config, model.sizes, model.absent)
    return built


def _build(kind: type[Model], config: NamedConfig, sizes: Sizes, absent: Collection[str]) -> Any:
    # Models from elsewhere that have no optional parts need not know of them.
    built: Any = kind
    return built(config, sizes, absent) if absent else built(config, sizes)
