"""Masks: what a student sees of a few media in training, and what its teacher attends to."""

from pathlib import Path

import numpy as np
import torch
from matplotlib import colormaps

from msvqa.engine.checkpoint import load_checkpoint
from msvqa.engine.prediction import objective_of
from msvqa.models.layers.masking import hidden
from msvqa.models.umt import UMT
from msvqa.objectives.alignment import Alignment
from msvqa.objectives.distillation import Distillation, visible_tokens
from msvqa.objectives.objective import Objective
from msvqa.page.footage import Footage, held_out
from msvqa.page.pictures import Filmstrips, Picture, enlarged, strip
from msvqa.sections import NamedConfig

# Legend: T frames of H x W pixels, P patches across and down, N = P·P, n visible tokens.

MEDIA = 3
FRAMES = 8
LEAST_PX = 96
"""Frames are made so large, that the borders of patches can be seen."""
VEIL, VEILED = 235, 0.12
"""Grey of a hidden patch, and how much of what it hides shines through."""
COLORS, OPAQUE = "inferno", 0.7
"""Of the attention, over what is attended to."""


def has_masks(kind: type[Objective], config: NamedConfig) -> bool:
    """Whether an objective hides tokens in training, or asks a teacher where to look."""
    if issubclass(kind, Alignment):
        assert isinstance(config, Alignment.Config)
        return config.mask.kind != "none"
    return issubclass(kind, Distillation)


def show_masks(checkpoint: str | Path, footage: Footage) -> list[Filmstrips]:
    """Return the first media, by a hash of their names, of a held-out split.

    Frames, what a student of the checkpoint's stage sees of them, and the attention of the teacher
    where the stage has one. The draws are those of evaluation, always the same.

    Raises:
        CheckpointError: it cannot be loaded; so if the teacher's file is not there any more.
    """
    split, media = held_out(footage, MEDIA)
    if split is None or not media:
        return []
    objective = objective_of(load_checkpoint(checkpoint))
    assert isinstance(objective, (Alignment, Distillation)), "no other one has masks"
    kinds = {medium.id: medium.kind for medium in split.media}
    shown = []
    for name in media:
        is_image = kinds[name] == "image"
        # An image is one frame, of which a store may have several.
        frames = footage.clips[name][0][: 1 if is_image else None]
        said = f"{kinds[name]} {name} of {split.name}"
        shown.append(_show(objective, said, frames, is_image))
    return shown


@torch.inference_mode()
def _show(
    objective: Alignment | Distillation, said: str, frames: np.ndarray, is_image: bool
) -> Filmstrips:
    """Return the strips of a medium, of frames (T, H, W, 3)."""
    model = objective.model
    assert isinstance(model, UMT), "masks are for no other model"
    batch = {
        "frames": torch.from_numpy(np.array(frames))[None],
        "is_image": torch.tensor([is_image]),
    }
    times, grid = len(frames), model.video.grid
    has_teacher = "teacher" not in model.absent
    attention = torch.ones(1, times, grid * grid)
    if has_teacher:
        attention = model.learn(batch).attention
    visible = visible_tokens(objective, objective.config.mask.of(batch), attention)  # (1, n)
    covered = hidden(visible, times * grid * grid).view(times, grid, grid).numpy()
    shown = np.linspace(0, times - 1, min(times, FRAMES)).round().astype(int)
    rows = [
        ("frames", _strip(frames[shown])),
        (
            f"what the student sees: {1 - covered.mean():.0%} of the patches",
            _strip(_veiled(frames, covered)[shown]),
        ),
    ]
    if has_teacher:
        weight = attention.view(times, grid, grid).numpy()
        rows.append((_told(weight), _strip(_heated(frames, weight)[shown])))
    else:
        said += ": the stage has no teacher (parts.teacher: absent), so no attention is shown"
    return Filmstrips(said=said, strips=rows)


def _told(attention: np.ndarray) -> str:
    """Describe attention (T, P, P); of the class token, which attends to itself as well."""
    most, even = attention.max(), 1 / attention[0].size
    return f"what the teacher attends to: up to {most:.0%} on one patch ({even:.0%} if even)"


def _strip(frames: np.ndarray) -> Picture:
    return strip(enlarged(frames, LEAST_PX))


def _veiled(frames: np.ndarray, covered: np.ndarray) -> np.ndarray:
    """Return frames (T, H, W, 3) whose covered patches (T, P, P) are nearly grey."""
    veil = (VEILED * frames + (1 - VEILED) * VEIL).astype(np.uint8)
    seen: np.ndarray = np.where(_as_pixels(covered, frames)[..., None], veil, frames)
    return seen


def _heated(frames: np.ndarray, attention: np.ndarray) -> np.ndarray:
    """Return grey frames (T, H, W, 3) under the colours of attention (T, P, P)."""
    grey = frames.mean(axis=-1, keepdims=True)
    scaled = attention / attention.max()
    color = 255 * colormaps[COLORS](_as_pixels(scaled, frames))[..., :3]
    heated: np.ndarray = ((1 - OPAQUE) * grey + OPAQUE * color).astype(np.uint8)
    return heated


def _as_pixels(patches: np.ndarray, frames: np.ndarray) -> np.ndarray:
    """Return values of patches (T, P, P) for each pixel (T, H, W) of frames."""
    height, width = (
        size // count for size, count in zip(frames.shape[1:3], patches.shape[1:], strict=True)
    )
    return patches.repeat(height, axis=1).repeat(width, axis=2)
