"""The memory of a GPU that steps take; those that do not fit are left out."""

from collections.abc import Callable, Mapping

import torch

from benchmarks.measure import Fact
from benchmarks.rows.setting import Finding, Setting


def peaks(steps: Mapping[str, Callable[[], object]], setting: Setting) -> dict[str, float]:
    """Return the GB that each step takes at most beyond what is there before, if it fits.

    Args:
        steps: each leaves nothing behind, as gradients would be.
        setting: without a GPU nothing is run, and all are there with 0.
    """
    if not setting.on_gpu:
        return dict.fromkeys(steps, 0.0)
    found: dict[str, float] = {}
    for name, step in steps.items():
        try:
            step()  # what is made once, such as compiled kernels, is not counted
            found[name] = _peak(step, setting.device)
        except torch.OutOfMemoryError:
            torch.cuda.empty_cache()
    return found


def _peak(step: Callable[[], object], device: torch.device) -> float:
    before = torch.cuda.memory_allocated(device)
    torch.cuda.reset_peak_memory_stats(device)
    step()
    return (torch.cuda.max_memory_allocated(device) - before) / 1e9


def memory_facts(
    row: str, steps: Mapping[str, object], found: Mapping[str, float]
) -> list[Finding]:
    """Return what `peaks` found of steps, where it found anything.

    Args:
        row: identifier of the row.
        steps: all that there are.
        found: the GB of those that fit; all are 0 without a GPU.
    """
    label = f"{row} GB that a step takes beyond the weights, "
    facts = [Fact(label + name, f"{gigabytes:.1f}") for name, gigabytes in found.items()]
    absent = [
        Fact(label + name, "left out: more than there is") for name in steps if name not in found
    ]
    return [*(facts if any(found.values()) else ()), *absent]
