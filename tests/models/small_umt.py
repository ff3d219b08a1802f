"""A small UMT and batches of random clips and captions."""

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


def make_umt(absent=(), words=None, **changes):
    torch.manual_seed(0)
    words = {"vocabulary": VOCABULARY, "labels": LABELS} if words is None else words
    sizes = Sizes(**words, frames=FRAMES, size_px=SIZE_PX)
    return UMT(UMT.Config.model_validate(SMALL | changes), sizes, absent)


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
