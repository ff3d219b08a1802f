"""W1, N1: epochs over features on the device, and the bytes that batches of pixels send there."""

from collections.abc import Iterator, Sequence

import numpy as np
import torch

from benchmarks.measure import Count, Fact, ratio
from benchmarks.rows.forecast import DUALVGR
from benchmarks.rows.grouping import LANES, asked_videos, epoch_of, split_of
from benchmarks.rows.setting import Finding, Setting
from benchmarks.rows.training import GROUPED, PUBLISHED, TINY, feature_model, step
from msvqa.data.batch import Batch
from msvqa.data.buffers import Buffers
from msvqa.data.chance import Chance
from msvqa.data.loader import Prefetched, training_batches
from msvqa.engine.inputs import EmptySource, Inputs
from msvqa.engine.optim import build_optimizer
from msvqa.recipe import OptimizerConfig

# Legend: V videos, C clips, F frames per clip, D width.

CLIPS = (8, 16, 100, 100, 3)
"""Of one video"""
VIDEOS = 1_970
"""Of the whole of MSVD-QA; the features of all of them are on the device"""


def features(setting: Setting) -> list[Finding]:
    """Return W1: how much of an epoch goes by until batches come, which hold no features."""
    split = split_of(asked_videos(setting, tiny=(40, 600)))
    objective, published = feature_model(setting), setting.size(PUBLISHED, TINY)
    adam = OptimizerConfig()
    optimizer = build_optimizer(objective.model, adam)
    trained = [p for group in optimizer.param_groups for p in group["params"]]
    shape = (setting.size(VIDEOS, len(split.media)), published.num_clips)
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
    visits = int((plan.weight.sum(axis=2) > 0).sum())
    gigabytes = sum(array.nbytes for array in inputs.resident.values()) / 1e9
    is_drawn = setting.is_tiny or setting.questions is None
    whose = "drawn" if is_drawn else "of MSVD-QA"
    waits: list[float] = []

    def epoch() -> None:
        batches = Prefetched(lambda: training_batches(split, inputs.source, plan))
        for batch in batches:
            step(objective, inputs.to_device(batch, setting.device))
            torch.nn.utils.clip_grad_norm_(trained, adam.clip_norm or float("inf"))
            optimizer.step()
        waits.append(batches.waiting_s)

    costs = setting.measure({"epoch": epoch})
    costs["waiting"] = waits[1:]
    seconds = min(costs["epoch"])
    return [
        ratio("W1 waiting for batches / epoch", costs, "waiting", "epoch", "<= 0.05"),
        Fact(
            f"W1 questions, {whose}", f"{len(split)}, {visits} visits of {len(split.media)} videos"
        ),
        Fact("W1 seconds per epoch of DualVGR, float32", DUALVGR.beside(seconds)),
        Fact("W1 questions per second", f"{len(split) / seconds:.0f}"),
        Fact(f"W1 GB of features on the device, {shape[0]} videos", f"{gigabytes:.2f}"),
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
