"""The templates of pages, whose every value is escaped."""

from collections.abc import Callable, Mapping
from typing import Any

from jinja2 import Environment, PackageLoader, StrictUndefined


def fill(
    name: str, filters: Mapping[str, Callable[..., Any]] | None = None, /, **values: Any
) -> str:
    """Return the page that a template of this package gives with these values."""
    environment = Environment(
        loader=PackageLoader("msvqa"),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.filters |= filters or {}
    return environment.get_template(name).render(values)
