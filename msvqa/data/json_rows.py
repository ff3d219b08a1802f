"""Rows of annotations in JSON: a list in one file, or an object in every line."""

from collections.abc import Iterator
from typing import Any

from msvqa.data.root import SourceFile
from msvqa.errors import DataError, one_of
from msvqa.text_files import parse_json, read_lines, read_text

SUFFIXES = (".json", ".jsonl")


def json_rows(file: SourceFile, what: str, keys: str) -> Iterator[tuple[int, Any]]:
    """Yield the rows with their numbers: elements from 0, lines from 1.

    Args:
        file: ends in one of `SUFFIXES`.
        what: what the rows are, for messages.
        keys: what a row must have, for messages.

    Raises:
        DataError: it is no such file.
    """
    if file.suffix == ".jsonl":
        for number, line in enumerate(read_lines(file.path, file), start=1):
            if line.strip():
                yield number, _parsed(line, f"{file}: line {number}")
        return
    if file.suffix != ".json":
        raise DataError(f"{file}: {what} are in files that end in {one_of(SUFFIXES)}")
    content = _parsed(read_text(file.path, file), str(file))
    if not isinstance(content, list):
        raise DataError(f"{file}: a JSON list of objects with {keys} is needed")
    yield from enumerate(content)


def _parsed(text: str, place: str) -> Any:
    try:
        return parse_json(text)
    except ValueError as error:
        raise DataError(f"{place} is not valid JSON: {error}") from None
