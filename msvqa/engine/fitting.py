"""Whether checkpoints fit the model of a recipe, from their heads: no tensor is read."""

import json
from collections.abc import Mapping
from dataclasses import dataclass

import torch

from msvqa.data.prepared import Prepared
from msvqa.engine.checkpoint import (
    WEIGHTS,
    Shapes,
    locate_initial,
    misfits,
    put_aside,
    read_info,
    shapes_of,
)
from msvqa.engine.inputs import model_sizes
from msvqa.errors import CheckpointError
from msvqa.models.model import build_model
from msvqa.recipe import Recipe
from msvqa.run import Run
from msvqa.storage import Folder, join, open_folder

MAX_HEAD_BYTES = 100_000_000
"""What the format allows; a damaged length may say anything."""


@dataclass(frozen=True)
class Fit:
    """The names and shapes that the weights of a run must have."""

    run: Run
    needed: Shapes

    @classmethod
    def of(cls, recipe: Recipe, prepared: Prepared) -> "Fit":
        """Build the model without memory; the words and answers of the data give it its sizes."""
        with torch.device("meta"):
            model = build_model(recipe, model_sizes(recipe, prepared))
        return cls(Run(recipe.run_location, recipe), shapes_of(model))

    def check_own(self, stage: str) -> None:
        """Refuse what lies in the folder of a stage and is of another model, or put it aside.

        Raises:
            CheckpointError: says which checkpoint, what in it does not fit, and what can be done.
        """
        run = self.run
        for path, info in run.checkpoints(stage):
            location, name = run.locate(path), f"{stage}/{path.name}"
            problem = self._problem(run.folder, f"{name}/{WEIGHTS}", info)
            if problem is None or _is_damaged(location):
                continue
            error = CheckpointError(
                f"{problem}\nIt lies in the folder of stage {stage!r}, but is of another model or "
                "of other data: take it out of there"
            )
            allowed = run.recipe.faults.damaged_checkpoint == "previous"
            put_aside(run.folder, name, f"{stage}/.foreign-{path.name}", error, allowed=allowed)

    def check_initial(self, number: int) -> None:
        """Refuse what a stage starts from, outside the run, where it is of another model.

        Raises:
            CheckpointError: says which checkpoint, what in it does not fit, and what can be done.
        """
        init_from = self.run.recipe.stages[number].init_from
        assert init_from is not None
        location = locate_initial(init_from, self.run)
        if problem := self._problem(open_folder(location), WEIGHTS, {}):
            raise CheckpointError(
                f"stages.{number}.init_from: {problem}\nName a checkpoint of this model and data, "
                f"or make `model` and `data` as they are in {join(location, 'recipe.yaml')}"
            )

    def _problem(self, folder: Folder, file: str, info: Mapping[str, object]) -> str | None:
        place, wanted = join(folder.location, file), self.run.recipe.model.name
        try:
            found = misfits(_read_shapes(folder, file), self.needed)
        except (OSError, ValueError, TypeError, LookupError, AttributeError) as error:
            return f"{place} cannot be read: {error}"
        if not found:
            return None
        made_for = info.get("model", wanted)
        also = f" (a checkpoint of model {made_for!r}, not of {wanted!r})"
        return f"{place} does not fit the model{also if made_for != wanted else ''}: {found}"


def _read_shapes(folder: Folder, file: str) -> Shapes:
    """Return the shapes that the head of a safetensors file lists."""
    length = int.from_bytes(folder.read_start(file, 8), "little")
    head = json.loads(folder.read_start(file, 8 + min(length, MAX_HEAD_BYTES))[8:])
    return {name: tuple(head[name]["shape"]) for name in head if name != "__metadata__"}


def _is_damaged(location: str) -> bool:
    """Whether it is damaged or gone: then it is refused as that where it is needed."""
    try:
        read_info(location)
    except CheckpointError:
        return True
    return False
