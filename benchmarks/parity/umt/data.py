"""Frames of parts and spans, and learning rates."""

from collections.abc import Iterator

import numpy as np

from benchmarks.parity.recording import EXACT, STORED_AS_FLOAT, Comparison, Recording
from msvqa.data.sampling import middles, parts, within
from msvqa.engine.optim import Moment, lr_factor
from msvqa.recipe import ScheduleConfig


def frame_sampling(recording: Recording) -> Iterator[Comparison]:
    """Parts of media of every recorded length, their middles, and the middles of spans."""
    for length, count in recording["cases"].tolist():
        ranges, name, kept = parts(length, count), f"{length}_{count}", min(length, count)
        yield recording.compare(f"interval_lo_{name}", ranges[:kept, 0], EXACT)
        yield recording.compare(f"interval_last_{name}", ranges[:kept, 1], EXACT)
        yield recording.compare(f"middle_{name}", middles(length, count), EXACT)
    for number, (start, end, fps, frames) in enumerate(recording["clip_cases"].tolist()):
        first, stop = within(np.arange(int(frames)) / fps, start, end)
        found = first + middles(stop - first, 8)
        yield recording.compare(f"clip{number}_middle8", found, EXACT)


def schedules(recording: Recording) -> Iterator[Comparison]:
    """Learning rates of the first stage, and factors of the second and of a fine-tune."""
    epoch, epochs = int(recording["stage1_steps_per_epoch"]), int(recording["stage1_epochs"])
    base, least = 1.5e-4, 1e-5
    warmup = int(recording["stage1_warmup_epochs"]) * epoch
    first = ScheduleConfig(
        name="cosine", warmup_steps=warmup, rise="whole", final_factor=least / base
    )
    found = base * _factors(first, epoch * epochs)
    yield recording.compare("stage1_lr", found, STORED_AS_FLOAT * base)
    for stage in ("stage2", "sft"):
        total, warmup = (
            int(recording[f"{stage}_total_steps"]),
            int(recording[f"{stage}_warmup_steps"]),
        )
        floor = float(recording[f"{stage}_min_mult"])
        schedule = ScheduleConfig(
            name="cosine", warmup_steps=warmup, rise="from_zero", least_factor=floor
        )
        yield recording.compare(f"{stage}_multiplier", _factors(schedule, total), STORED_AS_FLOAT)


def _factors(schedule: ScheduleConfig, total: int) -> np.ndarray:
    return np.array([lr_factor(schedule, Moment(step, 0, total)) for step in range(total)])
