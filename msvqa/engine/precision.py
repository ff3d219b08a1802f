"""Number formats of training and prediction."""

from contextlib import AbstractContextManager
from typing import Literal

import torch

TYPES = {"fp32": torch.float32, "bf16": torch.bfloat16}
"""Number formats by their names in recipes."""


def autocast(
    device: torch.device, precision: Literal["fp32", "bf16"]
) -> AbstractContextManager[None]:
    """Return the context in which a forward pass runs. bf16 needs no loss scaling."""
    return torch.autocast(device.type, dtype=torch.bfloat16, enabled=precision == "bf16")


def name_of(kind: torch.dtype) -> str:
    """Return the name of a number format, such as `float32`."""
    return str(kind).removeprefix("torch.")
