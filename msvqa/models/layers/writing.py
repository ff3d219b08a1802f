"""Writing answers: tokens one after another, until an end symbol."""

from collections.abc import Sequence
from typing import Any

import torch
from pydantic import Field
from torch import Tensor
from transformers import StoppingCriteria, StoppingCriteriaList

from msvqa.models.layers.language_input import LanguageInput, padded_left
from msvqa.sections import Config

# Legend: B rows, n new tokens.


class WritingConfig(Config):
    """How answers are written."""

    max_tokens: int = Field(default=256, ge=1)
    """Longest answer."""
    temperature: float = Field(default=0.0, ge=0)
    """0: always the likeliest token; else tokens are drawn."""
    top_p: float = Field(default=0.9, gt=0, le=1)
    """Drawn are the likeliest tokens that have so much of the probability together."""
    stop: tuple[str, ...] = ()
    """Texts that end an answer and are no part of it, besides what ends a turn."""


@torch.inference_mode()
def write_answers(
    language: Any, tokenizer: Any, given: LanguageInput, config: WritingConfig, **besides: Any
) -> list[str]:
    """Return an answer for each row; rows of other lengths beside it do not change it.

    Args:
        language: the language model.
        tokenizer: its tokenizer.
        given: what comes before the answers.
        config: how they are written.
        besides: of the library's `generate`, such as a streamer, which sees one row alone.
    """
    left = padded_left(given)
    end = tokenizer.eos_token_id
    options: dict[str, Any] = {
        "do_sample": False, "num_beams": 1, "max_new_tokens": config.max_tokens,
        "eos_token_id": end, "pad_token_id": end,
    }  # fmt: skip
    if config.temperature:
        options |= {"do_sample": True, "temperature": config.temperature, "top_p": config.top_p}
    stopping = [_Stops(tokenizer, config.stop), *besides.pop("stopping_criteria", ())]
    # With embeddings as inputs, only new tokens are returned.
    tokens = language.generate(
        inputs_embeds=left.embeddings, attention_mask=left.mask.long(),
        stopping_criteria=StoppingCriteriaList(stopping), **(options | besides),
    )  # fmt: skip
    return [_until_stop(_text(tokenizer, row, end), config.stop) for row in tokens.tolist()]


class _Stops(StoppingCriteria):
    """Says of every row whether its text has one of the stops."""

    def __init__(self, tokenizer: Any, stops: Sequence[str]) -> None:
        self._tokenizer, self._stops = tokenizer, stops
        # A token is at least a byte: so many of them hold every stop that has just been completed.
        self._window = max((len(stop.encode()) for stop in stops), default=0) + 4

    def __call__(self, input_ids: Tensor, scores: Tensor, **_: Any) -> Tensor:
        texts = [self._tokenizer.decode(row) for row in input_ids[:, -self._window :].tolist()]
        done = [any(stop in text for stop in self._stops) for text in texts]
        return torch.tensor(done, dtype=torch.bool, device=input_ids.device)


def _text(tokenizer: Any, tokens: list[int], end: int) -> str:
    text: str = tokenizer.decode(tokens[: tokens.index(end)] if end in tokens else tokens)
    return text


def _until_stop(text: str, stops: Sequence[str]) -> str:
    found = [place for stop in stops if (place := text.find(stop)) >= 0]
    return text[: min(found)].strip() if found else text.strip()
