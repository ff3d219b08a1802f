"""Reconstructions: what the decoders of a reconstruction stage make of a few videos."""

from pathlib import Path

import numpy as np
import torch

from msvqa.data.examples.questions import Questions
from msvqa.data.split import Split
from msvqa.data.text import Vocabulary, tokenize
from msvqa.engine.checkpoint import Loaded, load_checkpoint
from msvqa.models.layers.pixels import to_pixels
from msvqa.models.msvqa import MSVQA
from msvqa.page.footage import Footage, held_out
from msvqa.page.pictures import Filmstrips, spread, strip

VIDEOS = 3
FRAMES = 4


def reconstruct(checkpoint: str | Path, footage: Footage) -> list[Filmstrips]:
    """Return reconstructions of the first videos, by a hash of their names, of a held-out split.

    Original, appearance decoder, motion decoder.
    """
    split, videos = held_out(footage, VIDEOS)
    if split is None:
        return []
    loaded = load_checkpoint(checkpoint)
    return [_reconstruct(loaded, split, video, footage.clips[video]) for video in videos]


@torch.inference_mode()
def _reconstruct(loaded: Loaded, split: Split, video: str, clips: np.ndarray) -> Filmstrips:
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
    return Filmstrips(
        said=f"{split.name} video {video}, asked “{asked.question[row]}”",
        strips=[(label, strip(spread(frames, FRAMES))) for label, frames in rows.items()],
    )
