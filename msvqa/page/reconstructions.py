"""Reconstructions: what the decoders of a reconstruction stage make of a few videos."""

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch

from msvqa.data.examples.questions import Questions
from msvqa.data.split import Split
from msvqa.data.text import Vocabulary, tokenize
from msvqa.engine.checkpoint import Loaded, load_checkpoint
from msvqa.models.layers.pixels import to_pixels
from msvqa.models.msvqa import MSVQA
from msvqa.page.footage import Footage
from msvqa.page.pictures import Picture, spread, strip

VIDEOS = 3
FRAMES = 4
HELD_OUT = ("val", "test")


@dataclass(frozen=True, kw_only=True)
class Reconstructed:
    """Frames of one video beside what both decoders made of them."""

    split: str
    video_id: str
    question: str
    strips: Sequence[tuple[str, Picture]]
    """Label and frames: original, appearance decoder, motion decoder."""


def reconstruct(checkpoint: str | Path, footage: Footage) -> list[Reconstructed]:
    """Return reconstructions of the first videos, by a hash of their names, of a held-out split."""
    held_out = [split for split in footage.splits() if split.name in HELD_OUT and len(split)]
    if not held_out:
        return []
    split = min(held_out, key=lambda split: HELD_OUT.index(split.name))
    videos = sorted(split.media.id, key=lambda v: hashlib.sha256(v.encode()).hexdigest())[:VIDEOS]
    footage.load(videos)
    loaded = load_checkpoint(checkpoint)
    return [_reconstruct(loaded, split, v, footage.clips[v]) for v in videos if v in footage.clips]


@torch.inference_mode()
def _reconstruct(loaded: Loaded, split: Split, video: str, clips: np.ndarray) -> Reconstructed:
    assert isinstance(loaded.model, MSVQA), "objective reconstruction takes no other model"
    # What is reconstructed depends on the question a little: the video's first one is asked.
    asked = split.of(Questions)
    row = int(np.flatnonzero(asked.medium == split.media.id.index(video))[0])
    words = loaded.lexicon.of(Vocabulary).encode(tokenize(asked.question[row]))
    batch = {
        "clips": torch.from_numpy(np.array(clips))[None],
        "question": torch.tensor([words]),
        "question_length": torch.tensor([len(words)]),
        "video_index": torch.zeros(1, dtype=torch.int64),
    }
    appearance, motion = (
        to_pixels(values[0]).cpu().numpy() for values in loaded.model.reconstruct(batch)
    )
    rows = {"original": clips, "appearance decoder": appearance, "motion decoder": motion}
    return Reconstructed(
        split=split.name,
        video_id=video,
        question=asked.question[row],
        strips=[(label, strip(spread(frames, FRAMES))) for label, frames in rows.items()],
    )
