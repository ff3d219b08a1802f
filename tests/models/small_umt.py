"""A small UMT and batches of random clips and captions."""

import numpy as np
import torch

from msvqa.models.model import Sizes
from msvqa.models.umt import UMT

VOCABULARY, LABELS, FRAMES, SIZE_PX, PATCH_PX = 20, 7, 4, 32, 8
TOKENS = (SIZE_PX // PATCH_PX) ** 2
SMALL = {
    "aligned_layers": 2,
    "projection_width": 12,
    "video": {"width": 32, "depth": 3, "heads": 4, "patch_px": PATCH_PX, "drop_path": 0.0},
    "teacher": {
        "width": 24, "depth": 3, "heads": 4, "patch_px": PATCH_PX, "output_width": 16,
        "trained_px": SIZE_PX,
    },
    "text": {"width": 24, "depth": 2, "fusion_depth": 1, "heads": 4, "longest": 9, "dropout": 0.0},
}  # fmt: skip


PIECES = {"text": VOCABULARY, "text_start": 2, "text_end": 3, "text_mask": 4, "answers": 8}
"""Sizes of data whose texts are pieces of words, with answers."""


def make_umt(absent=(), words=None, **changes):
    torch.manual_seed(0)
    words = {"vocabulary": VOCABULARY, "labels": LABELS} if words is None else words
    sizes = Sizes(**words, frames=FRAMES, size_px=SIZE_PX)
    return UMT(UMT.Config.model_validate(SMALL | changes), sizes, absent)


ANSWERS = [[], [], [5], [6, 7], [6, 8], [9, 10, 11, 12], [9, 10, 11, 13], [14]]
"""Pieces of each answer; the first two classes are those of all others."""


def make_answering_umt(absent=(), **changes):
    """Return a model that reads pieces and writes answers."""
    model = make_umt(absent, PIECES, **changes)
    table = np.full((len(ANSWERS), 4), -1)
    for row, pieces in enumerate(ANSWERS):
        table[row, : len(pieces)] = pieces
    model.load_answers(table)
    return model


def make_questions(rows=4, **changes):
    """Return a batch of questions in pieces."""
    batch = make_batch(rows)
    text = torch.cat([torch.full((rows, 1), 2), batch["text"]], dim=1)
    answer = torch.tensor([2, 3, 4, 7, 5, 2, 7, 3][:rows])
    return batch | {
        "question": text, "question_length": batch["text_length"] + 1, "answer": answer,
    } | changes  # fmt: skip


def make_batch(rows=4, seed=1, **changes):
    generator = torch.Generator().manual_seed(seed)
    shape = (rows, FRAMES, SIZE_PX, SIZE_PX, 3)
    return {
        "frames": torch.randint(0, 256, shape, dtype=torch.uint8, generator=generator),
        "text": torch.randint(2, VOCABULARY, (rows, 5), generator=generator),
        "text_length": torch.tensor([5, 3, 4, 5, 2, 1, 5, 4][:rows]),
        "text_id": torch.arange(rows), "label": torch.arange(rows) % LABELS,
        "video": torch.arange(rows), "video_index": torch.arange(rows), "weight": torch.ones(rows),
        "normalizer": torch.tensor(float(rows)), "row": torch.arange(rows), **changes,
    }  # fmt: skip
