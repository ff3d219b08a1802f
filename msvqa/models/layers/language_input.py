"""What a language model is given: text, visual tokens and text again, and the rows it learns from.

Sequences are: one token that begins them (BOS), the text before, visual tokens, the text behind.
"""

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn
from torch.nn import functional

# Legend: B rows, L words of a text, Q visual tokens, S = 1 + L + Q + L places, D width, n targets,
# V words.

IGNORED = -100


class Text(NamedTuple):
    """Texts of a batch, padded anywhere; masks decide, never an id."""

    ids: Tensor
    """int64 (B, L)."""
    mask: Tensor
    """bool (B, L), which ids are there."""
    targets: Tensor | None = None
    """bool (B, L), which are learned; None: none."""


class Visual(NamedTuple):
    """Visual tokens of a batch in which some rows have no medium."""

    tokens: Tensor
    """(B, Q, D)."""
    there: Tensor
    """bool (B,), which rows have one."""


class LanguageInput(NamedTuple):
    """Sequences of embeddings, all padding at one end."""

    embeddings: Tensor
    """(B, S, D)."""
    mask: Tensor
    """bool (B, S)."""
    labels: Tensor
    """int64 (B, S), the id that each place holds where it is learned, else -100."""


def assemble(
    embedding: nn.Module, bos: int, before: Text, visual: Tensor | Visual | None, after: Text
) -> LanguageInput:
    """Return the sequences of a batch, padded on the right and without places that none needs.

    The reference puts the number of BOS in place of its embedding in stage 3; here it is embedded.

    Args:
        embedding: the word embeddings of the language model.
        bos: the id of the token that begins a sequence.
        before: the text in front of the visual tokens.
        visual: (B, Q, D), or `Visual` where some rows have a medium; None where no row has one.
        after: the text behind them.
    """
    start = before.ids.new_full((len(before.ids), 1), bos)
    pieces = [Text(start, torch.ones_like(start, dtype=torch.bool)), before, after]
    # An id of padding need not be one of the model's words.
    embedded = [embedding(text.ids.masked_fill(~text.mask.bool(), bos)) for text in pieces]
    masks = [text.mask.bool() for text in pieces]
    labels = [_labels(text) for text in pieces]
    if visual is not None:
        every = torch.ones_like(start[:, 0], dtype=torch.bool)
        visual, there = visual if isinstance(visual, Visual) else (visual, every)
        embedded.insert(2, visual.to(embedded[0].dtype))
        masks.insert(2, there[:, None].expand(visual.shape[:2]))
        labels.insert(2, start.new_full(visual.shape[:2], IGNORED))
    whole = LanguageInput(torch.cat(embedded, 1), torch.cat(masks, 1), torch.cat(labels, 1))
    return padded_right(whole)


def _labels(text: Text) -> Tensor:
    if text.targets is None:
        return torch.full_like(text.ids, IGNORED)
    return text.ids.masked_fill(~(text.targets.bool() & text.mask.bool()), IGNORED)


def padded_right(given: LanguageInput) -> LanguageInput:
    """Return the sequences with their padding on the right, to train on."""
    return _ordered(given, (~given.mask).long(), slice(0, int(given.mask.sum(dim=1).max())))


def padded_left(given: LanguageInput) -> LanguageInput:
    """Return the sequences with their padding on the left, to go on writing."""
    longest = int(given.mask.sum(dim=1).max())
    return _ordered(given, given.mask.long(), slice(given.mask.shape[1] - longest, None))


def _ordered(given: LanguageInput, key: Tensor, kept: slice) -> LanguageInput:
    order = key.argsort(dim=1, stable=True)[:, kept]  # (B, S)
    width = given.embeddings.shape[2]
    return LanguageInput(
        given.embeddings.gather(1, order[..., None].expand(-1, -1, width)),
        given.mask.gather(1, order),
        given.labels.gather(1, order),
    )


def target_logits(language: Any, given: LanguageInput) -> tuple[Tensor, Tensor]:
    """Return logits (n, V) at the places that predict targets, and these targets, int64 (n,).

    Rows are in the order of their places, sample by sample. Logits of other places are never made:
    at 32,000 words they would take more memory than all else.
    """
    predicted = given.labels[:, 1:]
    learned = predicted != IGNORED  # (B, S - 1)
    places = functional.pad(learned, (0, 1), value=False)  # (B, S)
    with _only(language.get_output_embeddings(), places):
        found = language(
            inputs_embeds=given.embeddings, attention_mask=given.mask.long(), use_cache=False
        )
    return found.logits[0], predicted[learned]


def next_logits(language: Any, given: LanguageInput) -> Tensor:
    """Return logits (B, V) of the token that comes next in each row."""
    given = padded_right(given)
    last = given.mask & ~functional.pad(given.mask[:, 1:], (0, 1), value=False)  # (B, S)
    with _only(language.get_output_embeddings(), last):
        found = language(
            inputs_embeds=given.embeddings, attention_mask=given.mask.long(), use_cache=False
        )
    logits: Tensor = found.logits[0]
    return logits


@contextmanager
def _only(head: nn.Module, places: Tensor) -> Iterator[None]:
    """Let the output layer of a language model see some places (B, S) alone, as one row."""

    def select(_: nn.Module, given: tuple[Tensor]) -> tuple[Tensor]:
        return (given[0][places][None],)

    handle = head.register_forward_pre_hook(select)
    try:
        yield
    finally:
        handle.remove()
