"""Q1, W1, N1: training steps on a GPU against its matrix product, waiting, and what is sent."""

from collections.abc import Iterator, Sequence
from functools import partial

import numpy as np
import torch

from benchmarks.measure import Count, Fact, ratio
from benchmarks.rows.counting import operations
from benchmarks.rows.encoders import product
from benchmarks.rows.grouping import LANES, epoch_of, questions_of_videos, sizes, split_of
from benchmarks.rows.setting import Finding, Setting, per_unit
from benchmarks.rows.training import (
    GROUPED,
    PUBLISHED,
    TINY,
    feature_model,
    pixel_batch,
    pixel_model,
    step,
)
from msvqa.data.batch import Batch
from msvqa.data.buffers import Buffers
from msvqa.data.chance import Chance
from msvqa.data.loader import Prefetched, training_batches
from msvqa.engine.inputs import EmptySource, Inputs
from msvqa.engine.precision import use_channels_last
from msvqa.objectives.objective import Objective

# Legend: V videos, C clips, F frames per clip, D width.

QUESTIONS = 8
"""Of a step; as many videos with k = 1, which take 22 GB in bf16"""
CLIPS = (8, 16, 100, 100, 3)
"""Of one video"""
CHUNK = 8
"""Clips that an encoder passes at once where it repeats its passes"""


def pixels(setting: Setting) -> list[Finding]:
    """Return Q1: the speed of the step over that of a product, with and without savings."""
    # In bf16 on a GPU alone, see T2.
    kind, precision = (torch.bfloat16, "bf16") if setting.on_gpu else (torch.float32, "fp32")
    kept = pixel_model(setting)
    repeated = pixel_model(setting, encoder_chunk=CHUNK, checkpoint_activations=True)
    batches = {k: pixel_batch(setting, QUESTIONS // k, k) for k in (1, GROUPED)}
    for objective in (kept, repeated):
        use_channels_last(objective)
    methods = {
        "k=1": partial(step, kept, batches[1], precision),
        f"k={GROUPED}": partial(step, kept, batches[GROUPED], precision),
        f"k={GROUPED}, repeated": partial(step, repeated, batches[GROUPED], precision),
    }
    memory = {name: _peak_gb(work, setting) for name, work in methods.items()}
    work = {"k=1": 3 * _forward(kept, batches[1]), "product": operations(product(kind, setting))}
    costs = setting.measure({**methods, "product": product(kind, setting)})
    rates = {name: QUESTIONS / min(costs[name]) for name in methods}
    speeds = per_unit(costs, work)
    return [
        ratio("Q1 operations per second, k = 1 / product", speeds, "product", "k=1"),
        ratio(f"Q1 step, k = 1 / k = {GROUPED}", costs, "k=1", f"k={GROUPED}"),
        ratio("Q1 step, passes repeated / kept", costs, f"k={GROUPED}, repeated", f"k={GROUPED}"),
        *(Fact(f"Q1 questions per second, {name}", f"{rate:.1f}") for name, rate in rates.items()),
        *(Fact(f"Q1 peak memory, GB, {name}", f"{gb:.1f}") for name, gb in memory.items()),
    ]


def _forward(objective: Objective, batch: Batch) -> float:
    with torch.no_grad():
        return operations(partial(objective, batch))


def _peak_gb(work: "partial[None]", setting: Setting) -> float:
    if not setting.on_gpu:
        return 0.0
    torch.cuda.reset_peak_memory_stats(setting.device)
    work()
    return torch.cuda.max_memory_allocated(setting.device) / 1e9


def features(setting: Setting) -> list[Finding]:
    """Return W1: how much of an epoch goes by until batches come, which hold no features."""
    split = split_of(questions_of_videos(*setting.size(sizes(setting), (40, 600))))
    objective, published = feature_model(setting), setting.size(PUBLISHED, TINY)
    optimizer = torch.optim.Adam(objective.parameters(), lr=1e-4)
    shape = (len(split.media), published.num_clips)
    resident = {
        "appearance": (*shape, published.frames_per_clip, published.appearance_width),
        "motion": (*shape, published.motion_width),
    }
    inputs = Inputs(
        split=split,
        source=EmptySource(),
        resident={
            key: torch.rand(size, dtype=torch.float16, device=setting.device)
            for key, size in resident.items()
        },
    )
    plan = epoch_of(split, GROUPED)
    waits: list[float] = []

    def epoch() -> None:
        batches = Prefetched(lambda: training_batches(split, inputs.source, plan))
        for batch in batches:
            step(objective, inputs.to_device(batch, setting.device))
            optimizer.step()
        waits.append(batches.waiting_s)

    costs = setting.measure({"epoch": epoch})
    costs["waiting"] = waits[1:]
    return [
        ratio("W1 waiting for batches / epoch", costs, "waiting", "epoch", "<= 0.05"),
        Fact(f"W1 seconds per epoch of {len(split)} questions", f"{min(costs['epoch']):.2f}"),
    ]


class MemorySource:
    """Gives every video the same clips, through the buffers that batches are made in."""

    def __init__(self, clips: np.ndarray) -> None:
        self._arrays, self._buffers = {"clips": clips}, Buffers()

    def batches(
        self, groups: Sequence[Sequence[int]], chance: Chance | None = None
    ) -> Iterator[Batch]:
        """Yield the clips (V, C, F, H, W, 3) of one group of videos after another."""
        for group in groups:
            yield self._buffers.stack([self._arrays] * len(group))


def bytes_of_batches(setting: Setting) -> list[Finding]:
    """Return N1: what is sent to the device for a batch over the pixels of its videos."""
    split = split_of(np.repeat(np.arange(LANES), GROUPED))
    clips = np.zeros(setting.size(CLIPS, (2, 4, 100, 100, 3)), np.uint8)
    sent = videos = 0
    for batch in training_batches(split, MemorySource(clips), epoch_of(split, GROUPED)):
        sent += sum(tensor.nbytes for tensor in batch.values())
        videos += len(batch["video"])
    share = round(sent / (videos * clips.nbytes), 6)
    return [Count("N1 bytes of batches / pixels in uint8", share, "<= 1.01")]
