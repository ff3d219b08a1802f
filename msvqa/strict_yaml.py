"""YAML files that people write, read strictly: a mistake is an error that says where it is."""

import re
from pathlib import Path
from typing import Any

import yaml

from msvqa.errors import RecipeError, did_you_mean

MAX_BYTES = 1_000_000


class _Loader(yaml.SafeLoader):
    """Safe YAML that reads `1e-4` as a number and refuses a key given twice."""


_Loader.add_implicit_resolver(
    "tag:yaml.org,2002:float",
    re.compile(r"^[-+]?(\d+\.?\d*|\.\d+)[eE][-+]?\d+$"),
    list("-+0123456789."),
)


def _mapping_without_duplicates(loader: _Loader, node: yaml.MappingNode) -> dict[Any, Any]:
    keys = [loader.construct_object(key) for key, _ in node.value]
    twice = sorted({str(key) for key in keys if keys.count(key) > 1})
    if twice:
        raise yaml.constructor.ConstructorError(
            None, None, f"key given twice: {', '.join(twice)}", node.start_mark
        )
    return yaml.SafeLoader.construct_mapping(loader, node, deep=True)


_Loader.add_constructor("tag:yaml.org,2002:map", _mapping_without_duplicates)


def read_yaml(text: str, source: str) -> Any:
    """Parse YAML text.

    Raises:
        RecipeError: the text is not YAML; says the line.
    """
    try:
        return yaml.load(text, Loader=_Loader)
    except yaml.YAMLError as error:
        raise RecipeError([f"not valid YAML: {' '.join(str(error).split())}"], source) from None


def read_file(path: Path) -> Any:
    """Return the content of a YAML file as plain data.

    Raises:
        RecipeError: there is no such file, it is too large, or it is not YAML.
    """
    if not path.is_file():
        nearby = sorted(str(p) for p in path.parent.glob("*.yaml")) if path.parent.is_dir() else []
        hint = did_you_mean(str(path), nearby) or (
            f" (there: {', '.join(nearby)})" if nearby else ""
        )
        raise RecipeError([f"no such file{hint}"], str(path))
    if path.stat().st_size > MAX_BYTES:
        raise RecipeError([f"larger than {MAX_BYTES} bytes; this is not a recipe"], str(path))
    try:
        text = path.read_text(encoding="utf-8")
    except UnicodeDecodeError as error:
        raise RecipeError([f"not valid YAML: {error}"], str(path)) from None
    return read_yaml(text, str(path))
