"""Presets: published sizes of a network under one word, of which single fields may differ."""

from collections.abc import Mapping
from typing import Any


def with_preset(values: Any, presets: Mapping[str, Mapping[str, Any]]) -> Any:
    """Return the values of a section, with those of the preset that it names where it has none."""
    if not isinstance(values, Mapping):
        return values
    return {**presets.get(values.get("preset", ""), {}), **values}
