"""Marks for some of a test's parameters."""

from collections.abc import Iterable
from typing import Any

import pytest


def again(values: Iterable[Any]) -> list[Any]:
    """Return parameters that `make test-all` tries besides those that are always tried."""
    return [pytest.param(value, marks=pytest.mark.again) for value in values]
