"""YAML files that people write, read strictly: a mistake is an error that says where it is.

Anchors, aliases and merge keys (`<<`) work. What YAML 1.1 turns into something else than it looks
like (`010`, `12:30`, dates) is refused with what to write in its place.
"""

import re
from collections import Counter
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import yaml

from msvqa.errors import DataError, RecipeError, did_you_mean
from msvqa.text_files import read_text

MAX_BYTES = 1_000_000
MAX_VALUES = 100_000
"""Aliases may repeat values to so many in all; a few lines can stand for billions."""
MAX_DIGITS = 18
_TAG = "tag:yaml.org,2002:"
_PLAIN_TAGS = {f"{_TAG}{kind}" for kind in ("str", "int", "float", "bool", "null", "map", "seq")}
_EXPONENT = re.compile(r"^[-+]?(\d[\d_]*\.?[\d_]*|\.\d[\d_]*)[eE][-+]?\d+$")
_MISREAD: tuple[tuple[str, re.Pattern[str], str], ...] = (
    ("int", re.compile(r"^[-+]?0b"), "a binary number"),
    ("int", re.compile(r"^[-+]?0x"), "a hexadecimal number"),
    ("int", re.compile(r".*:"), "a number of base 60"),
    ("float", re.compile(r".*:"), "a number of base 60"),
    ("int", re.compile(r"^[-+]?0[0-7_]"), "an octal number"),
    ("timestamp", re.compile(r"\d"), "a date"),
)
"""Kinds of values that YAML 1.1 makes of text without quotes, and what they are."""


class _Loader(yaml.SafeLoader):
    """Safe YAML that reads `1e-4` as a number and text such as `<<` or `=` as text.

    Keys such as `on` are words too, which YAML 1.1 alone takes for true.
    """

    def compose_mapping_node(self, anchor: Any) -> yaml.MappingNode:
        """Return the node of a section."""
        node = super().compose_mapping_node(anchor)
        for key, _ in node.value:
            if key.tag == f"{_TAG}bool" and key.style is None:
                key.tag = f"{_TAG}str"
        return node


class _Dumper(yaml.SafeDumper):
    """Safe YAML that puts text in quotes which `_Loader` would read as a number."""


for _kind in (_Loader, _Dumper):
    _kind.add_implicit_resolver(f"{_TAG}float", _EXPONENT, list("-+0123456789."))
for _tag in ("merge", "value"):
    _Loader.add_constructor(f"{_TAG}{_tag}", lambda _, node: node.value)


def read_yaml(text: str, source: str) -> Any:
    """Parse YAML text.

    Raises:
        RecipeError: the text is not YAML, or some of it is not what it looks like; says where.
    """
    loader = _Loader("")
    try:
        loader = _Loader(text)
        node = loader.get_single_node()
        if node is None:
            return None
        if problems := list(_Examination().problems(node)):
            raise RecipeError(problems, source)
        return loader.construct_document(node)
    except yaml.YAMLError as error:
        raise RecipeError([f"not valid YAML: {_explain(error, text)}"], source) from None
    except RecursionError:
        problem = "not valid YAML: values are nested too deeply"
        raise RecipeError([problem], source) from None
    finally:
        loader.dispose()


def read_file(path: Path) -> Any:
    """Return the content of a YAML file as plain data.

    Raises:
        RecipeError: there is no such file, it is too large, empty, or not YAML.
    """
    if not path.is_file():
        nearby = sorted(str(p) for p in path.parent.glob("*.yaml")) if path.parent.is_dir() else []
        hint = did_you_mean(str(path), nearby) or (
            f" (there: {', '.join(nearby)})" if nearby else ""
        )
        raise RecipeError([f"no such file{hint}"], str(path))
    size = path.stat().st_size
    if size > MAX_BYTES:
        raise RecipeError([f"larger than {MAX_BYTES} bytes; this is not a recipe"], str(path))
    try:
        content = read_yaml(read_text(path, "the file") if size else "", str(path))
    except DataError as error:
        raise RecipeError([str(error)], str(path)) from None
    if content is None:
        raise RecipeError(["the file is empty, or holds comments alone"], str(path))
    return content


def write_yaml(content: Any, *, ascii_only: bool = False) -> str:
    """Return plain data as YAML that `read_yaml` reads back equal, in the order it is in."""
    unicode = not ascii_only
    return yaml.dump(content, Dumper=_Dumper, sort_keys=False, allow_unicode=unicode, width=110)


class _Examination:
    """Walks over parsed YAML before anything is made of it."""

    def __init__(self) -> None:
        self._sizes: dict[int, int] = {}
        """Values below each node, with what aliases repeat."""

    def problems(self, node: yaml.Node) -> Iterator[str]:
        """Yield what is wrong, each with the path of its key."""
        found: list[str] = []
        self._walk(node, "", found.append)
        yield from found
        if not found and self._sizes[id(node)] > MAX_VALUES:
            yield f"aliases repeat values to more than {MAX_VALUES} in all"

    def _walk(self, node: yaml.Node, place: str, refuse: Callable[[str], None]) -> int:
        known = self._sizes.get(id(node))
        if known == 0:
            refuse(f"{place}: line {_line(node)}: an alias stands for something that it is part of")
        if known is not None:
            return known
        self._sizes[id(node)] = 0  # is being walked over
        for problem in _node_problems(node):
            # Those of a section's keys have lines of their own.
            line = "" if isinstance(node, yaml.MappingNode) else f"line {_line(node)}: "
            refuse(f"{place}: {line}{problem}" if place else problem)
        size = 1
        for name, child in _children(node):
            size += self._walk(child, f"{place}.{name}" if place else name, refuse)
        self._sizes[id(node)] = size
        return size


def _children(node: yaml.Node) -> Iterator[tuple[str, yaml.Node]]:
    if isinstance(node, yaml.SequenceNode):
        yield from ((str(number), child) for number, child in enumerate(node.value))
    elif isinstance(node, yaml.MappingNode):
        yield from ((str(key.value), child) for key, child in node.value)


def _node_problems(node: yaml.Node) -> Iterator[str]:
    """Yield what is wrong with a value itself, or with the keys of a section."""
    tag = node.tag.removeprefix(_TAG)
    if isinstance(node, yaml.MappingNode):
        yield from _key_problems(node)
    if not isinstance(node, yaml.ScalarNode):
        if node.tag not in _PLAIN_TAGS:
            yield f"not valid YAML: the tag {node.tag!r} is not read; write the values alone"
        return
    text: str = node.value
    if any(0xD800 <= ord(letter) < 0xE000 or letter == "\0" for letter in text):
        yield "holds a character that is none (NUL, or half of a pair)"
    for kind, pattern, meaning in _MISREAD:
        if tag == kind and node.style is None and pattern.match(text):
            yield _advice(text, meaning)
            return
    if node.tag not in {*_PLAIN_TAGS, f"{_TAG}merge", f"{_TAG}value"}:
        yield f"not valid YAML: the tag {node.tag!r} is not read; write the value alone"
    elif tag == "int" and len(text) > MAX_DIGITS:
        yield f"the number {text[:MAX_DIGITS]}… has more than {MAX_DIGITS} digits"
    elif tag in ("int", "float", "bool") and not _is_readable(tag, text):
        yield f"not valid YAML: {text[:40]!r} is not what its tag !!{tag} says"


def _is_readable(kind: str, text: str) -> bool:
    """Whether a value with a tag of its own (`!!int x`) can be what the tag says."""
    if kind == "bool":
        return text.lower() in yaml.SafeLoader.bool_values
    try:
        float(text.replace("_", "").lower().replace(".inf", "inf").replace(".nan", "nan"))
    except ValueError:
        return False
    return kind == "float" or re.fullmatch(r"[-+]?[\d_]+", text) is not None


def _advice(text: str, meaning: str) -> str:
    advice = f"for text put it in quotes: '{text}'"
    if re.fullmatch(r"[-+]?0[0-7_]+", text):
        advice += f"; for a number write {int(text.replace('_', ''))}"
    return f"YAML reads {text} as {meaning}; {advice}"


def _key_problems(node: yaml.MappingNode) -> Iterator[str]:
    counts: Counter[str] = Counter()
    for key, _ in node.value:
        if not isinstance(key, yaml.ScalarNode):
            yield f"not valid YAML: line {_line(key)}: a key must be a text"
            continue
        counts[key.value] += 1
        kind = key.tag.removeprefix(_TAG)
        if kind not in ("str", "merge"):
            yield (
                f"key {key.value!r}: line {_line(key)}: YAML reads it as {kind}, not as text; "
                f"put it in quotes: '{key.value}'"
            )
        elif counts[key.value] == 2:
            advice = "; merge several with <<: [*a, *b]" if kind == "merge" else ""
            yield f"not valid YAML: key given twice: {key.value} (line {_line(key)}){advice}"


def _line(node: yaml.Node) -> int:
    return int(node.start_mark.line) + 1


def _explain(error: yaml.YAMLError, text: str) -> str:
    """Return what the parser says, with its line, and what is often the reason."""
    if isinstance(error, yaml.reader.ReaderError):
        line = text.count("\n", 0, error.position) + 1
        return f"line {line}: the character {chr(int(error.character))!r} is not allowed"
    if not isinstance(error, yaml.MarkedYAMLError) or error.problem_mark is None:
        return " ".join(str(error).split())
    line = error.problem_mark.line + 1
    if error.context == "expected a single document in the stream":
        return f"line {line}: a second document begins (---), a file holds one"
    lines = text.splitlines()
    written = lines[line - 1] if line <= len(lines) else ""
    if "\t" in written[: len(written) - len(written.lstrip())]:
        return f"line {line}: begins with a tab; YAML is indented by spaces"
    place = f"line {line}, column {error.problem_mark.column + 1}"
    context = f" {error.context}" if error.context else ""
    return f"{place}: {error.problem}{context}" + (
        f", in {written.strip()[:80]!r}" if written else ""
    )
