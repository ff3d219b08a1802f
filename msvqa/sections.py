"""How the sections of a YAML file are read: strictly, with the types that their names stand for.

A section that is unknown, of a wrong type or contradictory is reported with its path; all problems
of a file together.
"""

import importlib
import json
import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import lru_cache
from types import NoneType
from typing import Any, TypeVar, Union, get_args, get_origin

from pydantic import BaseModel, ConfigDict, ValidationError, create_model
from pydantic.fields import FieldInfo
from pydantic_core import ErrorDetails
from typing_extensions import TypedDict, is_typeddict

from msvqa.errors import RecipeError, did_you_mean, one_of
from msvqa.strict_yaml import read_yaml

Section = TypeVar("Section", bound="Config")
_PLAIN_TYPES = ("string_type", "int_type", "float_type")


class Config(BaseModel):
    """Base of every section: immutable, strict about types and unknown keys."""

    model_config = ConfigDict(
        extra="forbid",
        frozen=True,
        strict=True,
        use_attribute_docstrings=True,
        allow_inf_nan=False,
        protected_namespaces=(),
    )


class NamedConfig(Config):
    """A section whose `name` says which class reads it."""

    name: str


@dataclass(frozen=True)
class Role:
    """Marks the field of a section that is read by whatever class its `name` stands for.

    Used as `Annotated[NamedConfig, Role("model", MODELS)]`.
    """

    kind: str
    """What the class is, for messages."""
    table: Mapping[str, str]
    """Classes by name, as `package.module:Class`."""


def typed(
    kind: type[Section], raw: Any, unresolved: dict[str, str], place: str = ""
) -> type[Section]:
    """Return a section's type with the types that the names in `raw` stand for.

    Args:
        kind: type of the section.
        raw: the section as plain data.
        unresolved: gets each name that stands for nothing, by its place, with the reason.
        place: where the section is, with a dot at its end.
    """
    if not isinstance(raw, dict):
        return kind
    types: dict[str, Any] = {}
    for name, field in kind.model_fields.items():
        if name in raw:
            found = _type_of(field, raw[name], f"{place}{name}", unresolved)
            if found is not field.annotation:
                types[name] = found
    return _narrowed(kind, tuple(types.items())) if types else kind


@lru_cache(maxsize=256)
def _narrowed(kind: type[Section], types: tuple[tuple[str, Any], ...]) -> type[Section]:
    """Return a section's type with other types of some fields, made once: a search asks often.

    It has no text of its own, which pydantic would look for in the files of all modules.
    """
    fields: Any = {name: (found, kind.model_fields[name]) for name, found in types}
    plain = {"use_attribute_docstrings": False}
    return create_model(kind.__name__, __base__=kind, __cls_kwargs__=plain, **fields)


def checked(
    kind: Any, raw: Any, problems: list[str], unresolved: Mapping[str, str], source: str
) -> Any:
    """Return `raw` as an instance of `kind`, or raise with old and new problems."""
    problems = problems + [f"{place}: {problem}" for place, problem in unresolved.items()]
    checked = None
    try:
        checked = kind.model_validate_json(json.dumps(raw))
    except ValidationError as error:
        found = error.errors(include_url=False)
        problems += [
            _explain(detail, kind) for detail in found if not _is_below(detail, unresolved)
        ]
    if problems:
        raise RecipeError(problems, source)
    return checked


def resolve(name: str, table: Mapping[str, str], kind: str) -> Any:
    """Return the class of a name in the table, or of a dotted path `package.module:Class`.

    Raises:
        ValueError: no such name, or the path cannot be imported.
    """
    target = table.get(name, name if ":" in name else None)
    if target is None:
        hint = did_you_mean(name, table)
        raise ValueError(f"unknown {kind} {name!r}{hint}; known: {one_of(table)}")
    module, _, attribute = target.partition(":")
    try:
        return getattr(importlib.import_module(module), attribute)
    except (ImportError, AttributeError) as error:
        raise ValueError(f"{kind} {name!r} cannot be imported: {error}") from error


def apply_overrides(raw: dict[str, Any], overrides: Sequence[str]) -> list[str]:
    """Change plain data by `key=value` words; return what is wrong with them."""
    problems = []
    for override in overrides:
        key, equals, text = override.partition("=")
        if not equals or not key:
            problems.append(f"override {override!r} is not of the form key=value")
            continue
        try:
            _set(raw, key.split("."), read_yaml(text, override))
        except KeyError as error:
            problems.append(f"override {key!r}: {error.args[0]}")
        except RecipeError as error:
            problems += [f"override {override!r}: {problem}" for problem in error.problems]
    return problems


def _set(node: Any, keys: list[str], value: Any) -> None:
    """Put a value at a path; a list element is named by its number or by the `name` inside it."""
    for depth, key in enumerate(keys):
        last = depth == len(keys) - 1
        if isinstance(node, list):
            names = [str(item.get("name")) if isinstance(item, dict) else "" for item in node]
            position = (
                int(key) if key.isdigit() else names.index(key) if key in names else len(node)
            )
            if position >= len(node):
                known = ", ".join(f"{n} or {name}" for n, name in enumerate(names))
                raise KeyError(f"there is no {'.'.join(keys[: depth + 1])}; there are {known}")
            key = position  # type: ignore[assignment]
        elif not isinstance(node, dict):
            raise KeyError(f"{'.'.join(keys[:depth])} is not a section")
        if last:
            node[key] = value
        elif isinstance(node, dict) and not isinstance(node.get(key), (dict, list)):
            node[key] = {}
        node = node[key]


def _type_of(field: FieldInfo, raw: Any, place: str, unresolved: dict[str, str]) -> Any:
    """Return the type of a field: its annotation, or a narrower one where a name says so."""
    annotation = field.annotation
    role = next((mark for mark in field.metadata if isinstance(mark, Role)), None)
    item: Any = get_args(annotation)[0] if get_origin(annotation) is tuple else None
    if _is_section(item) and isinstance(raw, list):
        items = [typed(item, part, unresolved, f"{place}.{n}.") for n, part in enumerate(raw)]
        narrower = any(kind is not item for kind in items)
        return tuple[tuple(items)] if narrower else annotation  # type: ignore[misc]
    if get_origin(annotation) is dict and _is_section(get_args(annotation)[1]):
        return _mapping_of(annotation, raw, place, unresolved)
    section = _inner(annotation, _is_section)
    if not _is_section(section):
        return annotation
    named = _named(section, role, raw, place, unresolved) if role else section
    found = typed(named, raw, unresolved, f"{place}.")
    if found is section:
        return annotation
    return found | None if NoneType in get_args(annotation) else found


def _mapping_of(annotation: Any, raw: Any, place: str, unresolved: dict[str, str]) -> Any:
    """Return the type of sections by name, where the names in one of them say more of its type."""
    section = get_args(annotation)[1]
    if not isinstance(raw, dict):
        return annotation
    kinds = {key: typed(section, raw[key], unresolved, f"{place}.{key}.") for key in raw}
    if all(kind is section for kind in kinds.values()):
        return annotation
    return _mapping(tuple(kinds.items()))


@lru_cache(maxsize=256)
def _mapping(kinds: tuple[tuple[str, Any], ...]) -> Any:
    return TypedDict("Sections", dict(kinds))  # type: ignore[operator]


def _is_section(kind: Any) -> bool:
    return isinstance(kind, type) and issubclass(kind, Config)


def _named(
    base: type["Config"], role: Role, section: Any, place: str, unresolved: dict[str, str]
) -> Any:
    """Return the type of a named section; a name without a meaning is noted in `unresolved`."""
    if not isinstance(section, dict) or not isinstance(section.get("name"), str):
        return base
    try:
        return resolve(section["name"], role.table, role.kind).Config
    except (ValueError, AttributeError) as error:
        unresolved[f"{place}.name"] = str(error)
        return base


def _is_below(detail: ErrorDetails, unresolved: Mapping[str, str]) -> bool:
    """Whether an error follows only from a name that stands for nothing."""
    place = ".".join(str(part) for part in detail["loc"])
    return any(place.startswith(name.removesuffix("name")) for name in unresolved)


def _explain(detail: ErrorDetails, recipe_class: type[BaseModel]) -> str:
    # The tag of a union's member is no key.
    location = tuple(part for part in detail["loc"] if not str(part).startswith("<"))
    place = ".".join(str(part) for part in location)
    if detail["type"] == "extra_forbidden":
        known = _keys_at(recipe_class, location[:-1])
        hint = did_you_mean(str(location[-1]), known)
        return f"{place}: unknown key{hint}; allowed here: {one_of(known)}"
    if detail["type"] == "missing":
        return f"{place}: is missing"
    message = detail["msg"].removeprefix("Value error, ")
    if detail["type"] == "literal_error":
        allowed = re.findall(r"'([^']*)'", detail.get("ctx", {}).get("expected", ""))
        message += did_you_mean(str(detail["input"]), allowed)
    if detail["type"] == "value_error":
        return f"{place}: {message}" if place else message
    return f"{place}: {message} (got {detail['input']!r}){_advice(detail['type'], detail['input'])}"


def _advice(wanted: str, given: Any) -> str:
    """Say what to write where YAML has read a value as something else than was meant."""
    if isinstance(given, bool):
        words = "yes, on and true as true" if given else "no, off and false as false"
        what = "put text in quotes" if wanted == "string_type" else "write a number"
        return f"; YAML reads {words}: {what}" if wanted in _PLAIN_TYPES else ""
    if wanted == "string_type" and isinstance(given, (int, float)):
        return "; put text in quotes that looks like a number"
    if wanted == "int_type" and isinstance(given, float) and given.is_integer():
        return f"; write {int(given)}"
    if wanted == "bool_type":
        return "; write true or false"
    if wanted in _PLAIN_TYPES and isinstance(given, str):
        number = re.sub(r"[,_' ]", "", given)
        if re.fullmatch(r"[-+]?\d+\.?\d*([eE][-+]?\d+)?", number):
            return f"; write {number}, without quotes, commas and spaces"
    return ""


def _keys_at(kind: Any, location: Sequence[int | str]) -> list[str]:
    """Return the keys that a section allows, following a path through nested types."""
    for part in location:
        kind = _inner(kind, lambda t: hasattr(t, "model_fields") or get_origin(t) is tuple)
        if get_origin(kind) is tuple and isinstance(part, int):
            kind = get_args(kind)[min(part, len(get_args(kind)) - 1)]
        elif get_origin(kind) in (dict, Mapping):
            kind = get_args(kind)[1]
        elif is_typeddict(kind):
            kind = kind.__annotations__[part]
        elif hasattr(kind, "model_fields") and part in kind.model_fields:
            kind = kind.model_fields[part].annotation
    kind = _inner(kind, lambda t: hasattr(t, "model_fields"))
    return list(getattr(kind, "model_fields", {}))


def _inner(kind: Any, wanted: Callable[[Any], bool]) -> Any:
    """Return the wanted member of a union such as `X | None`, or the type itself."""
    if get_origin(kind) is Union or type(kind).__name__ == "UnionType":
        return next((member for member in get_args(kind) if wanted(member)), kind)
    return kind


def flatten(value: Any, prefix: str = "") -> Iterator[tuple[str, Any]]:
    """Yield every leaf of nested plain data with its dotted key."""
    if isinstance(value, dict) and value:
        for key, inner in value.items():
            yield from flatten(inner, f"{prefix}.{key}" if prefix else str(key))
    elif isinstance(value, list) and value:
        for position, inner in enumerate(value):
            yield from flatten(inner, f"{prefix}.{position}")
    else:
        yield prefix, value
