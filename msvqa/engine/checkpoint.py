"""Checkpoints: one directory that is enough to resume and to predict.

    weights.safetensors    all weights of the model
    training_state.pt      optimizer state: plain tensors and numbers
    adapter_config.json  and adapter_model.safetensors, of a model with adapters: what it trains of
                           a language model, for other programs
    recipe.yaml  and the word lists of the lexicon, such as vocabulary.json and answers.json
    checkpoint.json        position, score, sizes, where each part of the model is from, SHA-256 of
                           all files and its own; written last

Random numbers need no state: every step seeds them from (seed, stage, step, worker), see
`engine.loop`.
"""

import hashlib
import json
import logging
import shutil
from collections.abc import Collection, Mapping
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file
from torch import Tensor

from msvqa.cache import fetch
from msvqa.data.examples import EXAMPLES
from msvqa.data.lexicon import Lexicon, file_of
from msvqa.engine.needs import MAX_PROBLEMS_IN_MESSAGE, Needs
from msvqa.engine.origins import (
    Origins,
    load_external_parts,
    names_not_stored,
    plain_origins,
    read_origins,
    with_stored,
)
from msvqa.errors import CheckpointError, IncompleteError
from msvqa.files import hash_file, sync, write_json
from msvqa.models.model import Model, Sizes, build_model
from msvqa.recipe import Recipe, load
from msvqa.run import CHECKPOINT_INFO, Run
from msvqa.sections import resolve
from msvqa.storage import Folder, absolute, is_remote, join, open_folder

logger = logging.getLogger(__name__)

FORMAT = 1
WEIGHTS, TRAINING_STATE = "weights.safetensors", "training_state.pt"


@dataclass(frozen=True, kw_only=True)
class Position:
    """Where in a stage a checkpoint was taken."""

    stage: str
    step: int = 0
    """Optimizer steps done."""
    epoch: int = 0
    step_in_epoch: int = 0
    best_score: float | None = None
    """Best validation score so far, higher is better."""
    epochs_since_best: int = 0


@dataclass(frozen=True)
class Loaded:
    """What a checkpoint holds for prediction."""

    location: str
    recipe: Recipe
    model: Model
    lexicon: Lexicon
    info: Mapping[str, Any]

    @property
    def view(self) -> Recipe:
        """The recipe of the stage that the checkpoint is of, alone."""
        return self.recipe.of_stage(_number_of_stage(self.recipe, self.info))


@dataclass(frozen=True, kw_only=True)
class Content:
    """What goes into a checkpoint."""

    recipe: Recipe
    model: Model
    examples: str
    """The kind of example that the lexicon is of"""
    lexicon: Lexicon
    training_state: Mapping[str, Any]
    position: Position
    score: float | None
    """Validation score of exactly these weights; None within an epoch."""
    finished: bool
    origins: Origins = field(default_factory=dict)
    """Where each part of the model is from"""


def checkpoint_name(step: int) -> str:
    """Return the directory name of a checkpoint; names sort by step."""
    return f"step-{step:08d}"


def save_checkpoint(folder: Path, content: Content) -> None:
    """Write a checkpoint aside and then give it its name: what has the name is whole.

    Raises:
        CheckpointError: it cannot be written; nothing of it is left.
    """
    aside = folder.with_name(f".{folder.name}")
    try:
        shutil.rmtree(aside, ignore_errors=True)
        aside.mkdir(parents=True)
        _write(aside, content)
        for path in (*aside.iterdir(), aside):
            sync(path)
        open_folder(folder.parent).remove(folder.name)
        aside.rename(folder)
        sync(folder.parent)
    except (OSError, SafetensorError) as error:
        raise CheckpointError(f"checkpoint {folder} cannot be written: {error}") from error
    finally:
        shutil.rmtree(aside, ignore_errors=True)


def _write(folder: Path, content: Content) -> None:
    origins = with_stored(content.model, content.origins)
    save_file(
        _stored_weights(content.model, names_not_stored(content.model, origins)), folder / WEIGHTS
    )
    try:
        torch.save(dict(content.training_state), folder / TRAINING_STATE)
    except RuntimeError as error:  # what torch makes of a full disk
        raise OSError(f"{TRAINING_STATE}: {error}") from error
    (folder / "recipe.yaml").write_text(content.recipe.to_yaml(), encoding="utf-8")
    content.lexicon.save(folder)
    content.model.export(folder)
    files = {
        path.name: {"bytes": path.stat().st_size, "sha256": hash_file(path)}
        for path in sorted(folder.iterdir())
    }
    info = {
        "format": FORMAT,
        "model": content.recipe.model.name,
        "position": asdict(content.position),
        "score": content.score,
        "finished": content.finished,
        "examples": content.examples,
        "sizes": dict(content.model.sizes),
        "parts": plain_origins(origins),
        "files": files,
    }
    write_json(folder / CHECKPOINT_INFO, info | {"sha256": _sha256_of_info(info)})


def _stored_weights(model: Model, without: Collection[str]) -> dict[str, Tensor]:
    """Return the weights of a model but for those that stay in files of the user."""
    weights = {name: value for name, value in model.state_dict().items() if name not in without}
    stored, seen = dict[str, Tensor](), set[int]()
    for name, value in weights.items():
        own = value.detach().cpu().contiguous()
        # Tied weights are written once for each of their names, which the format wants.
        stored[name] = own.clone() if own.data_ptr() in seen else own
        seen.add(own.data_ptr())
    return stored


def newest_checkpoint(location: str | Path, *, or_previous: bool = False) -> str | None:
    """Return where the newest checkpoint of a stage is, read from end to end; None for none.

    One whose weights are not finite is as good as a damaged one.

    Args:
        location: the stage's folder.
        or_previous: put a damaged one out of the way and take the one before it.

    Raises:
        CheckpointError: the newest one is damaged; says which, and what can be done.
    """
    stage = open_folder(location)
    files = stage.sizes()
    names = {name.partition("/")[0] for name in files}
    if is_remote(location):
        # Without its marker it was never sent to its end. On a disk it gets its name when whole.
        names = {name for name in names if f"{name}/{CHECKPOINT_INFO}" in files}
    for name in sorted((n for n in names if n.startswith("step-")), reverse=True):
        try:
            read_sound(join(location, name))
        except CheckpointError as error:
            put_aside(stage, name, f".damaged-{name}", error, allowed=or_previous)
        else:
            return join(location, name)
    return None


def put_aside(
    folder: Folder, name: str, new: str, error: CheckpointError, *, allowed: bool
) -> None:
    """Rename a checkpoint that cannot be used, so that the one before it is taken.

    Raises:
        CheckpointError: that is not allowed; says how to allow it.
    """
    if not allowed:
        raise CheckpointError(
            f"{error}\nTo go on from the checkpoint before it: faults.damaged_checkpoint=previous"
        ) from None
    logger.warning("%s\nThe checkpoint before it is taken instead.", error)
    folder.rename(name, new)


def read_info(location: str | Path) -> dict[str, Any]:
    """Return the description of a whole checkpoint.

    Raises:
        CheckpointError: it is missing, incomplete, damaged or made by a newer version.
    """
    folder = _fetched(location)
    path = folder / CHECKPOINT_INFO
    if not path.is_file():
        raise CheckpointError(f"{location} is not a whole checkpoint: {CHECKPOINT_INFO} is missing")
    try:
        info: dict[str, Any] = json.loads(path.read_text(encoding="utf-8"))
        version = int(info["format"])
    except (ValueError, KeyError, TypeError) as error:
        raise CheckpointError(f"{join(location, CHECKPOINT_INFO)} is damaged: {error}") from None
    if version > FORMAT:
        raise CheckpointError(
            f"{location} has format {version}, this version reads up to {FORMAT}: update msvqa"
        )
    # Absent in checkpoints that were made before it was introduced.
    if info.pop("sha256", None) not in (None, _sha256_of_info(info)):
        place = join(location, CHECKPOINT_INFO)
        raise CheckpointError(f"{place} is damaged: its content has changed since it was written")
    try:
        for name, entry in info["files"].items():
            _check_file(folder / name, join(location, name), entry)
    except (CheckpointError, FileNotFoundError):
        if path.is_file():
            raise
        raise CheckpointError(
            f"{location} was removed while it was read, as the training keeps newer ones: give "
            "the command again"
        ) from None
    return info


def _check_file(file: Path, place: str, entry: Mapping[str, Any]) -> None:
    if not file.is_file() or file.stat().st_size != entry["bytes"]:
        found = file.stat().st_size if file.is_file() else 0
        raise CheckpointError(f"{place} is damaged: {found} of {entry['bytes']} bytes")
    if hash_file(file) != entry["sha256"]:
        raise CheckpointError(f"{place} is damaged: its content has changed since it was written")


def read_sound(location: str | Path) -> dict[str, Any]:
    """Return the description of a whole checkpoint whose weights are finite.

    Raises:
        CheckpointError: as `read_info`; or names weights that are not finite.
    """
    info = read_info(location)
    if bad := not_finite(read_weights(location)):
        raise CheckpointError(
            f"{join(location, WEIGHTS)}: weights that are not finite: {bad}; the training had "
            "diverged when they were written"
        )
    return info


def load_checkpoint(location: str | Path) -> Loaded:
    """Load a checkpoint for prediction, on the CPU and in eval mode.

    Raises:
        CheckpointError: damaged, or the weights do not fit the model of its recipe.
    """
    folder, info = _fetched(location), read_info(location)
    lexicon = read_lexicon(location)
    recipe = load(folder / "recipe.yaml")
    absent = recipe.stages[_number_of_stage(recipe, info)].absent
    model = build_model(recipe, Sizes(**info["sizes"]), absent)
    elsewhere = load_external_parts(model, read_origins(info), str(location))
    load_weights(model, read_weights(folder), str(location), elsewhere=elsewhere)
    return Loaded(
        location=str(location),
        recipe=recipe,
        model=model.eval(),
        lexicon=lexicon,
        info=info,
    )


def _number_of_stage(recipe: Recipe, info: Mapping[str, Any]) -> int:
    return [stage.name for stage in recipe.stages].index(info["position"]["stage"])


def read_lexicon(location: str | Path) -> Lexicon:
    """Return the word lists of a checkpoint.

    Raises:
        CheckpointError: it is missing or incomplete.
    """
    info = read_info(location)
    known = [words for name in EXAMPLES for words in resolve(name, EXAMPLES, "").lists]
    # Of any kind: a stage keeps the lists of the stage that it starts from.
    lists = {words.name: words for words in known if file_of(words.name) in info["files"]}
    return Lexicon.load(_fetched(location), list(lists.values()))


def read_weights(location: str | Path) -> dict[str, Tensor]:
    """Return the weights of a checkpoint on the CPU."""
    try:
        return load_file(_fetched(location) / WEIGHTS)
    except (SafetensorError, OSError) as error:
        raise CheckpointError(f"{join(location, WEIGHTS)} cannot be read: {error}") from None


def read_training_state(location: str | Path) -> dict[str, Any]:
    """Return the optimizer state of a checkpoint on the CPU."""
    state: dict[str, Any] = torch.load(
        _fetched(location) / TRAINING_STATE, map_location="cpu", weights_only=True
    )
    return state


def load_weights(
    model: Model,
    weights: Mapping[str, Tensor],
    source: str,
    needs: Needs | None = None,
    elsewhere: Collection[str] = (),
) -> None:
    """Copy weights into a model.

    Args:
        model: the model.
        weights: of a checkpoint.
        source: the checkpoint, for messages.
        needs: what the model needs; None: the same names and shapes on both sides.
        elsewhere: parts that have their weights already.

    Raises:
        CheckpointError: lists what is missing, unknown, of another shape or not finite.
    """
    needs = needs or Needs.of(model)
    given = {name: tuple(value.shape) for name, value in weights.items()}
    if problems := needs.misfits(given, elsewhere):
        raise CheckpointError(f"the weights of {source} do not fit the model: {problems}")
    if bad := not_finite(weights):
        raise CheckpointError(f"the weights of {source} are not finite: {bad}; take another one")
    taken = {name: value for name, value in weights.items() if name in needs.shapes}
    model.load_state_dict(model.state_dict() | taken)


def not_finite(weights: Mapping[str, Tensor]) -> str:
    """Return which weights hold numbers that are not finite; nothing where there are none."""
    bad = [name for name, value in weights.items() if not value.isfinite().all()]
    more = len(bad) - MAX_PROBLEMS_IN_MESSAGE
    shown = ", ".join(bad[:MAX_PROBLEMS_IN_MESSAGE])
    return f"{shown} and {more} more" if more > 0 else shown


def find_initial(init_from: str, run: Run) -> str:
    """Return the checkpoint that `init_from` means: a stage of this run, a run, or a checkpoint.

    Raises:
        CheckpointError, RunError: there is none, it is damaged, or of another model.
    """
    location = locate_initial(init_from, run)
    made_for, wanted = read_sound(location)["model"], run.recipe.model.name
    if made_for != wanted:
        raise CheckpointError(
            f"{location} is a checkpoint of model {made_for!r}, not of {wanted!r}"
        )
    return location


def locate_initial(init_from: str, run: Run) -> str:
    """Return where the checkpoint is that `init_from` means, unread.

    Raises:
        CheckpointError, RunError: there is none.
    """
    if init_from in [stage.name for stage in run.recipe.stages]:
        return run.locate(run.checkpoint(init_from))
    location = absolute(init_from)
    if open_folder(location).get(CHECKPOINT_INFO).is_file():
        return location
    other = Run.open(location)
    return other.locate(other.checkpoint())


def _fetched(location: str | Path) -> Path:
    try:
        return fetch(location, CHECKPOINT_INFO)
    except IncompleteError as error:
        raise CheckpointError(str(error)) from None


def _sha256_of_info(info: Mapping[str, Any]) -> str:
    return hashlib.sha256(json.dumps(info, sort_keys=True).encode()).hexdigest()
