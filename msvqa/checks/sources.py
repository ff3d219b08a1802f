"""Is every file sound that a recipe names: opened, read, and compared with what the recipe says.

Which fields name files is said by their types (`WeightsFile`, `WordVectorsFile`, `FeaturesFile`,
`DiskPath`), so a model or data set from elsewhere is checked like ours.
"""

import warnings
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, get_args

import torch

from msvqa.content import START_BYTES, stand_in
from msvqa.data.prepared import Prepared
from msvqa.data.processors.processor import processors_of
from msvqa.data.word_vectors import check_word_vectors
from msvqa.engine.inputs import model_sizes
from msvqa.errors import DataError, MSVQAError, RecipeError, WeightsError
from msvqa.models.encoders import ENCODERS
from msvqa.models.encoders.encoder import Encoder
from msvqa.models.model import Model, build_model
from msvqa.models.weight_files import read_weights
from msvqa.recipe import Recipe
from msvqa.sections import Config, resolve
from msvqa.storage import Reads


@dataclass(frozen=True)
class Source:
    """A file that a recipe names."""

    key: str
    path: str
    what: str
    section: Config
    """Where the recipe names it; says also what must be in it."""


def sources(section: Config, place: str = "") -> Iterator[Source]:
    """Yield all files that a section and the sections below it name."""
    for name, field in type(section).model_fields.items():
        value, key = getattr(section, name), f"{place}{name}"
        if isinstance(value, str) and (mark := _mark(field)):
            yield Source(key, value, mark.what, section)
        for inner, part in _sections(value, key):
            yield from sources(part, f"{inner}.")


def _sections(value: Any, key: str) -> list[tuple[str, Config]]:
    """Return the sections in a field with their keys: itself, or the parts of a tuple."""
    if isinstance(value, Config):
        return [(key, value)]
    parts = value if isinstance(value, tuple) else ()
    return [(f"{key}.{n}", part) for n, part in enumerate(parts) if isinstance(part, Config)]


def _mark(field: Any) -> Reads | None:
    """Return the mark of a field's type, also of `X | None`."""
    optional = [mark for kind in get_args(field.annotation) for mark in get_args(kind)[1:]]
    return next((mark for mark in [*field.metadata, *optional] if isinstance(mark, Reads)), None)


def source_problems(recipe: Recipe, within: str = "") -> list[str]:
    """Return what is wrong with the files that a recipe names, as far as it shows without data.

    Args:
        recipe: the recipe.
        within: beginning of the keys that are looked at; by default all.
    """
    encoders = _encoders(recipe)
    problems = []
    for source in sources(recipe):
        if source.key.startswith(within) and (said := _problem(source, encoders)):
            problems.append(f"{source.key}: {said}")
    return problems


def check_pretrained_stages(recipe: Recipe, prepared: Sequence[Prepared]) -> None:
    """Refuse weights of a whole model that do not fit where a stage starts with them.

    Args:
        recipe: the recipe.
        prepared: the prepared folder of every stage.

    Raises:
        RecipeError: says which weights, and what does not fit.
    """
    for view, folder in zip(recipe.views(), prepared, strict=True):
        stage = view.stages[0]
        if stage.init_from is None or stage.fresh:
            check_pretrained(view, folder)


def check_pretrained(recipe: Recipe, prepared: Prepared) -> None:
    """Refuse weights of a whole model that do not fit; its sizes are those of the data.

    Raises:
        RecipeError: says which weights, and what does not fit.
    """
    encoders = _encoders(recipe)
    keys = [
        source.key
        for source in sources(recipe.model, "model.")
        if source.what in ("weights", "a file or folder") and id(source.section) not in encoders
    ]
    if not keys:
        return
    with torch.device("meta"):
        model = build_model(recipe, model_sizes(recipe, prepared), recipe.stages[0].absent)
    if problem := _said(lambda: _load_nowhere(model)):
        raise RecipeError([f"{' and '.join(keys)}: {problem}"])


def _problem(source: Source, encoders: dict[int, Any]) -> str | None:
    path = Path(source.path)
    if not path.exists():
        return f"there is no file {path}"
    if source.what == "weights":
        stat = path.stat()
        encoder = encoders.get(id(source.section))
        return _weights_problem(source, encoder, (stat.st_size, stat.st_mtime_ns))
    if source.what == "word vectors":
        size: int = getattr(source.section, "word_size", 0)
        return _said(lambda: check_word_vectors(path, size))
    if source.what == "features":
        return _said(lambda: _refuse_stand_in(path))
    return None


_looked_at: dict[tuple[Any, ...], str | None] = {}
"""What is said of weights, by file, its state and what reads it."""


def _weights_problem(source: Source, encoder: Any, state: tuple[int, int]) -> str | None:
    """Read weights, and compare them with their encoder; once for each state of the file."""
    # As text: a section of somebody else's encoder may hold what cannot be hashed.
    key = (source.path, state, encoder, source.section.model_dump_json())
    if key not in _looked_at:
        _looked_at[key] = _said(lambda: _look(source, encoder))
    return _looked_at[key]


def _look(source: Source, encoder: Any) -> None:
    if encoder is None:
        read_weights(source.path)
        return
    with torch.device("meta"):
        module = encoder(source.section)
    _load_nowhere(module)


def _load_nowhere(module: Encoder | Model) -> None:
    """Load weights as training does, into a module that has no memory for them."""
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", message=".*which is a no-op")
        module.load_pretrained()


def _refuse_stand_in(path: Path) -> None:
    try:
        with path.open("rb") as file:
            said = stand_in(file.read(START_BYTES))
    except OSError as error:
        said = f"cannot be read: {error.strerror}"
    if said:
        raise DataError(f"{path} {said}")


def _said(look: Callable[[], object]) -> str | None:
    """Return what is said against a file."""
    try:
        look()
    except (WeightsError, DataError) as error:
        return str(error)
    return None


def _encoders(recipe: Recipe) -> dict[int, Any]:
    """Return the class of every encoder by its section; what they are does not depend on data."""
    found: dict[int, Any] = {}
    for processor in processors_of(recipe):
        for section, _ in processor.encoders().values():
            found[id(section)] = resolve(section.name, ENCODERS, "encoder")
    try:
        with torch.device("meta"):
            model = build_model(recipe, model_sizes(recipe, None))
    except (ValueError, MSVQAError):
        # Said by the check of the model; the files are read all the same.
        return found
    encoders = (module for module in model.modules() if isinstance(module, Encoder))
    return found | {id(encoder.config): type(encoder) for encoder in encoders}
