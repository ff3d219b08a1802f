"""Small models and batches of random data."""

import torch

from msvqa.models.dualvgr import DualVGR
from msvqa.models.model import Sizes
from msvqa.models.msvqa import MSVQA

VOCABULARY, ANSWERS, CLIPS, FRAMES, SIZE_PX = 20, 11, 3, 4, 16
APPEARANCE_WIDTH, MOTION_WIDTH = 24, 20

ENCODER = {"base_width": 4, "stem": "small", "scale": "unit"}
SMALL_MSVQA = {
    "hidden_size": 16,
    "heads": 2,
    "appearance": {"depth": 10, **ENCODER},
    "motion": {"depth": 14, "groups": 2, **ENCODER},
    "decoder": {"layer2": 16, "layer3": 16, "layer4": 16, "inner_dim": 16, "grid_px": 8},
}


def make_sizes(**changes):
    sizes = {
        "vocabulary": VOCABULARY,
        "answers": ANSWERS,
        "num_clips": CLIPS,
        "frames_per_clip": FRAMES,
        "size_px": SIZE_PX,
        "word_size": 8,
    }
    return Sizes(**(sizes | changes))


def make_msvqa(**changes):
    torch.manual_seed(0)
    config = MSVQA.Config.model_validate(SMALL_MSVQA | changes)
    return MSVQA(config, make_sizes())


def make_dualvgr(**changes):
    torch.manual_seed(0)
    sizes = make_sizes(appearance_width=APPEARANCE_WIDTH, motion_width=MOTION_WIDTH)
    return DualVGR(DualVGR.Config(**({"hidden_size": 16, "heads": 2} | changes)), sizes)


def make_batch(videos=4, per_video=2, seed=0, words=6):
    """Return a batch with pixels and features; questions are grouped by video."""
    g = torch.Generator().manual_seed(seed)
    questions = videos * per_video
    length = torch.randint(1, words + 1, (questions,), generator=g)
    length[0] = words
    question = torch.randint(2, VOCABULARY, (questions, words), generator=g)
    pixels = (videos, CLIPS, FRAMES, SIZE_PX, SIZE_PX, 3)
    return {
        "clips": torch.randint(0, 256, pixels, generator=g, dtype=torch.uint8),
        "appearance": torch.randn((videos, CLIPS, FRAMES, APPEARANCE_WIDTH), generator=g),
        "motion": torch.randn((videos, CLIPS, MOTION_WIDTH), generator=g),
        "video": torch.arange(videos),
        "question": question * (torch.arange(words) < length[:, None]),
        "question_length": length,
        "video_index": torch.arange(videos).repeat_interleave(per_video),
        "answer": torch.randint(2, ANSWERS, (questions,), generator=g),
        "weight": torch.ones(questions),
        "row": torch.arange(questions),
        "normalizer": torch.tensor(float(questions)),
        "workers": torch.tensor(1.0),
    }


def expand(batch):
    """Return the same questions with one copy of the video for each."""
    index = batch["video_index"]
    per_video = {k: batch[k][index] for k in ("clips", "appearance", "motion", "video")}
    return batch | per_video | {"video_index": torch.arange(len(index))}


def gradients(objective, batch):
    """Return the gradients of the loss by parameter name."""
    objective.zero_grad()
    objective(batch)["loss"].backward()
    return {n: p.grad.clone() for n, p in objective.named_parameters() if p.grad is not None}


def largest_difference(first, second):
    """Return the largest difference between two dictionaries of tensors with the same names."""
    assert first.keys() == second.keys()
    return max(float((first[name] - second[name]).abs().max()) for name in first)


def trainable(objective):
    """Freeze what the objective leaves unchanged; return it in training mode."""
    for module in objective.frozen():
        module.requires_grad_(False)
    return objective.train()
