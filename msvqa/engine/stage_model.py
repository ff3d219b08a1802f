"""The model of a stage: what it starts with, and which of its parts the stage trains."""

from pathlib import Path

from msvqa.data.pieces import answer_pieces
from msvqa.data.prepared import Prepared
from msvqa.engine.checkpoint import load_weights, read_info, read_weights
from msvqa.engine.inputs import model_sizes
from msvqa.engine.needs import Needs
from msvqa.engine.origins import Origin, born, inherited, load_external_parts, read_origins
from msvqa.models.model import Model, build_model
from msvqa.objectives.objective import Objective
from msvqa.recipe import Recipe, StageConfig


def start_model(
    view: Recipe, prepared: Prepared, init_from: str | Path | None, *, resumes: bool = False
) -> tuple[Model, dict[str, Origin]]:
    """Return the model of a stage with its first weights, and where these are from.

    Args:
        view: the recipe of the stage alone.
        prepared: the data of the stage; its lexicon gives the model its sizes.
        init_from: the checkpoint that the stage starts from; None: weight files and chance.
        resumes: the checkpoint is of this very stage.

    Raises:
        CheckpointError: the checkpoint does not fit.
    """
    (stage,) = view.stages
    sizes = model_sizes(view, prepared)
    model: Model = build_model(view, sizes, stage.absent)
    if init_from is None:
        _load_as_at_birth(model, prepared)
        model.begin([*model.parts()])
        return model, born(model)
    source, origins = str(init_from), read_origins(read_info(init_from))
    weights = read_weights(init_from)
    needs = Needs.of(model) if resumes else Needs.at_start(view, sizes)
    new = needs.lacking(weights)
    if new:
        _load_as_at_birth(model, prepared)
    elsewhere = [*new, *load_external_parts(model, origins, source)]
    load_weights(model, weights, source, needs, elsewhere)
    if not resumes:
        # A decoder from elsewhere may have had another list of answers, as long as this one.
        _load_answers(model, prepared)
    model.begin(new)
    if resumes and origins:
        return model, origins
    known = inherited(model.parts(), origins, source)
    at_birth = born(model) if new else {}
    return model, known | {part: at_birth[part] for part in new}


def _load_as_at_birth(model: Model, prepared: Prepared) -> None:
    model.load_pretrained()
    vectors = prepared.word_vectors()
    if vectors is not None:
        model.load_word_vectors(vectors)
    _load_answers(model, prepared)


def _load_answers(model: Model, prepared: Prepared) -> None:
    pieces = answer_pieces(prepared.lexicon)
    if pieces is not None:
        model.load_answers(pieces)


def choose_trained(model: Model, objective: Objective, stage: StageConfig) -> None:
    """Give gradients to what a stage trains, and to nothing else."""
    model.requires_grad_(True)
    for module in objective.frozen():
        module.requires_grad_(False)
    model.freeze(stage.frozen)
