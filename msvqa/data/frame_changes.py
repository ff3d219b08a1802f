"""Changes of colour and shape that a whole clip may go through, by torchvision.

Strengths are those of the programs that VideoMAE and UMT are fine-tuned by, at a strength of 1 the
largest: 30 degrees, a shear of 0.3, a shift by 0.45 of a side, 0.9 more or less of a colour.
"""

from collections.abc import Callable, Mapping

import numpy as np
import torch
from torch import Tensor
from torchvision.transforms.v2 import functional

# Legend: T frames of H x W pixels.

GREY = (124.0, 116.0, 104.0)
"""What comes in from outside: the mean colour of ImageNet."""


def _moved(frames: Tensor, shift: tuple[float, float], shear: tuple[float, float]) -> Tensor:
    height, width = frames.shape[-2:]
    found: Tensor = functional.affine(
        frames, angle=0.0, translate=[shift[0] * width, shift[1] * height], scale=1.0,
        shear=[float(np.degrees(np.arctan(s))) for s in shear], fill=[*GREY],
        interpolation=functional.InterpolationMode.BILINEAR,
    )  # fmt: skip
    return found


def _brighter_darks(frames: Tensor, amount: float) -> Tensor:
    """Add to what is darker than the middle."""
    raised = (frames.to(torch.int16) + int(amount)).clamp(0, 255).to(torch.uint8)
    return torch.where(frames < 128, raised, frames)


def _signed(change: Callable[[Tensor, float], Tensor]) -> Callable[[Tensor, float, int], Tensor]:
    return lambda frames, part, sign: change(frames, sign * part)


def _plain(change: Callable[[Tensor, float], Tensor]) -> Callable[[Tensor, float, int], Tensor]:
    return lambda frames, part, sign: change(frames, part)


CHANGES: Mapping[str, Callable[[Tensor, float, int], Tensor]] = {
    "autocontrast": _plain(lambda frames, part: functional.autocontrast(frames)),
    "equalize": _plain(lambda frames, part: functional.equalize(frames)),
    "invert": _plain(lambda frames, part: functional.invert(frames)),
    "rotate": _signed(
        lambda frames, part: functional.rotate(
            frames, 30 * part, functional.InterpolationMode.BILINEAR, fill=[*GREY]
        )
    ),
    "posterize": _plain(lambda frames, part: functional.posterize(frames, 4 - int(4 * part))),
    "solarize": _plain(lambda frames, part: functional.solarize(frames, 255 * (1 - part))),
    "solarize_add": _plain(lambda frames, part: _brighter_darks(frames, 110 * part)),
    "color": _signed(lambda frames, part: functional.adjust_saturation(frames, 1 + 0.9 * part)),
    "contrast": _signed(lambda frames, part: functional.adjust_contrast(frames, 1 + 0.9 * part)),
    "brightness": _signed(
        lambda frames, part: functional.adjust_brightness(frames, 1 + 0.9 * part)
    ),
    "sharpness": _signed(lambda frames, part: functional.adjust_sharpness(frames, 1 + 0.9 * part)),
    "shear_x": _signed(lambda frames, part: _moved(frames, (0, 0), (0.3 * part, 0))),
    "shear_y": _signed(lambda frames, part: _moved(frames, (0, 0), (0, 0.3 * part))),
    "translate_x": _signed(lambda frames, part: _moved(frames, (0.45 * part, 0), (0, 0))),
    "translate_y": _signed(lambda frames, part: _moved(frames, (0, 0.45 * part), (0, 0))),
}
"""Each takes frames uint8 (T, 3, H, W), its strength from 0 to 1 and a sign."""
