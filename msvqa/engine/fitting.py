"""Whether checkpoints fit the model of a stage, from their heads: no tensor is read."""

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch

from msvqa.data.prepared import Prepared
from msvqa.engine.checkpoint import WEIGHTS, locate_initial, put_aside, read_info
from msvqa.engine.inputs import model_sizes
from msvqa.engine.needs import Needs, Shapes
from msvqa.engine.origins import read_origins
from msvqa.engine.words import read_with_its_words
from msvqa.errors import CheckpointError
from msvqa.models.model import build_model
from msvqa.recipe import Recipe
from msvqa.run import CHECKPOINT_INFO, Run
from msvqa.storage import Folder, join, open_folder

MAX_HEAD_BYTES = 100_000_000
"""What the format allows; a damaged length may say anything."""


@dataclass(frozen=True)
class Fit:
    """What the checkpoints of one stage of a run must have, and those that it starts from."""

    run: Run
    number: int
    own: Needs
    initial: Needs

    @classmethod
    def of(cls, recipe: Recipe, number: int, prepared: Sequence[Prepared]) -> "Fit":
        """Build the model without memory; the words and answers of the data give it its sizes.

        Args:
            recipe: the whole recipe.
            number: the stage.
            prepared: the prepared folder of every stage.
        """
        view, run = recipe.of_stage(number), Run(recipe.run_location, recipe)
        sizes = model_sizes(view, read_with_its_words(run, number, prepared))
        with torch.device("meta"):
            model = build_model(view, sizes, view.stages[0].absent)
        return cls(run, number, Needs.of(model), Needs.at_start(view, sizes))

    def check_own(self) -> None:
        """Refuse what lies in the folder of the stage and is of another model, or put it aside.

        Raises:
            CheckpointError: says which checkpoint, what in it does not fit, and what can be done.
        """
        run, stage = self.run, self.run.recipe.stages[self.number].name
        for path, info in run.checkpoints(stage):
            location, name = run.locate(path), f"{stage}/{path.name}"
            problem = self._problem(self.own, run.folder, f"{name}/{WEIGHTS}", info)
            if problem is None or _is_damaged(location):
                continue
            error = CheckpointError(
                f"{problem}\nIt lies in the folder of stage {stage!r}, but is of another model or "
                "of other data: take it out of there"
            )
            allowed = run.recipe.faults.damaged_checkpoint == "previous"
            put_aside(run.folder, name, f"{stage}/.foreign-{path.name}", error, allowed=allowed)

    def check_initial(self) -> None:
        """Refuse what the stage starts from, outside the run, where it is of another model.

        Raises:
            CheckpointError: says which checkpoint, what in it does not fit, and what can be done.
        """
        init_from = self.run.recipe.stages[self.number].init_from
        assert init_from is not None
        location = locate_initial(init_from, self.run)
        folder = open_folder(location)
        # Its other fields are those of the checkpoint's own model.
        info = {"parts": _read_parts(folder)}
        if problem := self._problem(self.initial, folder, WEIGHTS, info):
            raise CheckpointError(
                f"stages.{self.number}.init_from: {problem}\nName a checkpoint of this model and "
                "data, name parts that may be new in `fresh`, or make `model` and `data` as they "
                f"are in {join(location, 'recipe.yaml')}"
            )

    def _problem(
        self, needs: Needs, folder: Folder, file: str, info: Mapping[str, object]
    ) -> str | None:
        place, wanted = join(folder.location, file), self.run.recipe.model.name
        left_out = [part for part, origin in read_origins(info).items() if not origin.stored]
        try:
            found = needs.misfits(_read_shapes(folder, file), left_out)
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


def _read_parts(folder: Folder) -> dict[str, Any]:
    """Return what a checkpoint says of its parts; one that cannot be read is refused elsewhere."""
    try:
        info = json.loads(folder.get(CHECKPOINT_INFO).read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return {}
    parts: dict[str, Any] = info.get("parts", {})
    return parts


def _is_damaged(location: str) -> bool:
    """Whether it is damaged or gone: then it is refused as that where it is needed."""
    try:
        read_info(location)
    except CheckpointError:
        return True
    return False
