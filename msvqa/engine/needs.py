"""What a model needs of a checkpoint: names and shapes of weights, by part."""

from collections import Counter
from collections.abc import Collection, Mapping
from dataclasses import dataclass

import torch

from msvqa.engine.inputs import OF_NO_DATA
from msvqa.models.model import Model, Sizes, build_model
from msvqa.models.parts import parts_of_weights
from msvqa.recipe import Recipe

MAX_PROBLEMS_IN_MESSAGE = 3

Shapes = Mapping[str, tuple[int, ...]]
"""Shapes of weights by their names."""


@dataclass(frozen=True, kw_only=True)
class Needs:
    """The weights of a model; all must be there, and no others, but for what is named here."""

    shapes: Shapes
    part_of: Mapping[str, str]
    fresh: Collection[str] = ()
    """Parts that may be lacking as a whole."""
    dropped: Collection[str] = ()
    """Weights of parts that the stage has no use for."""

    @classmethod
    def of(cls, model: Model) -> "Needs":
        """Return the needs of a model that goes on with its own weights."""
        return cls(shapes=shapes_of(model), part_of=parts_of_weights(model, model.parts()))

    @classmethod
    def at_start(cls, view: Recipe, sizes: Sizes) -> "Needs":
        """Return the needs of the only stage of a recipe where it starts from a checkpoint."""
        (stage,) = view.stages
        with torch.device("meta"):
            model = build_model(view, sizes, stage.absent)
            # The names of all parts, also of those that this data has no words for.
            every = Sizes(**{**OF_NO_DATA, **sizes})
            whole = build_model(view, every) if stage.absent else model
        needs = cls.of(model)
        dropped = [name for name in shapes_of(whole) if name not in needs.shapes]
        return cls(shapes=needs.shapes, part_of=needs.part_of, fresh=stage.fresh, dropped=dropped)

    def lacking(self, given: Collection[str]) -> list[str]:
        """Return the fresh parts of which a checkpoint has nothing."""
        there = {self.part_of[name] for name in given if name in self.part_of}
        return [part for part in self.fresh if part not in there]

    def misfits(self, given: Shapes, elsewhere: Collection[str] = ()) -> str:
        """Return what does not fit in weights of these shapes; nothing where they fit.

        Args:
            given: the weights of a checkpoint.
            elsewhere: parts that come from other places.
        """
        others = {*elsewhere, *self.lacking(given)}
        needed = {n: shape for n, shape in self.shapes.items() if self.part_of[n] not in others}
        used = {n: shape for n, shape in given.items() if n in needed or n not in self.dropped}
        problems = _problems(used, needed)
        more = len(problems) - MAX_PROBLEMS_IN_MESSAGE
        shown = "; ".join([*problems.values()][:MAX_PROBLEMS_IN_MESSAGE])
        said = f"{shown}; and {more} more" if more > 0 else shown
        counts = Counter(self.part_of[name] for name in problems if name in self.part_of)
        if more > 0 and counts:
            by_part = ", ".join(f"{part} {count}" for part, count in counts.items())
            said += f" (by part: {by_part})"
        return said


def _problems(given: Shapes, needed: Shapes) -> dict[str, str]:
    """Return what is wrong with each weight that does not fit."""
    problems = {
        name: f"{name} has shape {given[name]}, needed is {needed[name]}"
        for name in given
        if name in needed and given[name] != needed[name]
    }
    absent = [name for name in needed if name not in given]
    problems |= {name: f"missing {name} of shape {needed[name]}" for name in absent}
    unknown = [name for name in given if name not in needed]
    return problems | {name: f"unknown {name} of shape {given[name]}" for name in unknown}


def shapes_of(model: Model) -> Shapes:
    """Return the names and shapes of all weights of a model."""
    return {name: tuple(value.shape) for name, value in model.state_dict().items()}
