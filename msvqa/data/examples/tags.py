"""Tagged videos: one medium each, with its title and its tags.

Legend: b examples of a batch, S places of a title.
"""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import pyarrow as pa
import torch

from msvqa.data.batch import Batch
from msvqa.data.chance import Chance
from msvqa.data.examples.titled import Titled
from msvqa.data.masking import Draws, corrupt


class Tags(Titled):
    """n videos with the tags that people gave them, if any."""

    name = "tags"

    def tensors(self, rows: np.ndarray, chance: Chance | None = None) -> Batch:
        """Return what `Titled` does; in training titles with hidden pieces too.

        These are `masked_tokens` (b, S) and `token_labels` (b, S), other ones in every epoch.
        """
        batch = super().tensors(rows, chance)
        masking = self.masking
        if chance is None or not masking.probability:
            return batch
        ids, mask = batch["tokens"].numpy(), batch["token_mask"].numpy()
        length = ids.shape[1]
        drawn = [
            Draws.of(chance.of_example(row), length, masking.vocabulary) for row in rows.tolist()
        ]
        draws = Draws(*(np.stack(numbers) for numbers in zip(*map(_numbers, drawn), strict=True)))
        # What begins and ends a title, and all after that.
        last = mask.sum(axis=1, keepdims=True) - 1
        place = np.arange(length)
        hidden, labels = corrupt(
            ids,
            (place == 0) | (place >= last),
            draws,
            probability=masking.probability,
            mask_id=masking.mask_id,
        )
        return batch | {
            "masked_tokens": torch.from_numpy(hidden),
            "token_labels": torch.from_numpy(labels),
        }

    def shown(self, rows: np.ndarray) -> Mapping[str, Sequence[Any]]:
        """Return the titles of some videos."""
        titles = self.table["titles"].take(pa.array(rows, type=pa.int64())).to_pylist()
        return {"title": [title for (title,) in titles]}


def _numbers(draws: Draws) -> tuple[np.ndarray, ...]:
    return draws.select, draws.replace, draws.random, draws.words
