"""Answers that have no end, so that every row has as many tokens."""

from typing import Any


def endless(tokenizer: Any, count: int) -> dict[str, Any]:
    """Return what makes `generate` write so many tokens, none of which ends a text or a turn."""
    return {
        "max_new_tokens": count,
        "min_new_tokens": count,
        "suppress_tokens": [tokenizer.convert_tokens_to_ids("###")],
    }
