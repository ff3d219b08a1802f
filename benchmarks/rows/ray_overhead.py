"""R1 to R4: what Ray costs over a plain loop, in Ray Data and under its trainer."""

import math
import threading
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import cast

import torch

from benchmarks.measure import Fact, Family, ratio
from benchmarks.rows.setting import Costs, Finding, Setting
from msvqa.data.medium import Medium
from msvqa.data.processors.clips import Clips
from msvqa.data.processors.frame_features import FrameFeatures
from msvqa.data.processors.processor import Extractor, Processor
from msvqa.data.store import Arrays, StoreSpec
from msvqa.engine import cluster
from msvqa.engine.parallel import Replicas
from msvqa.engine.speed import UTILISATION
from msvqa.models.encoders.resnet import ResNet
from msvqa.objectives.answering import Answering
from tests import barcode_video
from tests.engine.gloo import run_in_processes
from tests.models.small import make_batch, make_msvqa, trainable

CLIPS = Clips(Clips.Config())
START, VIDEOS, ENCODED = 4, 36, 10
"""Videos of a stream that are not counted, since its actor starts, those that are, and with an
encoder"""
FRAMES = 4
LOOK_EVERY_S = 0.005
BY_OBJECT_STORE = 0.4
"""Extra work of a worker whose pixels go through the object store, as a part of the plain loop's"""
WORKERS = 2
WARM_STEPS, STEPS = 5, 40
PARTS = 2
"""Of the steps of one start: each counts as a round, since starts take most of the time."""


def stream(setting: Setting) -> list[Finding]:
    """Return R1: the CPU time for a video in a stream of Ray Data over that in a plain loop."""
    videos = setting.size(VIDEOS, 4)
    costs, fixed = _in_ray_and_plainly(setting, CLIPS, videos)
    return [
        ratio("R1 Ray Data / plain loop, pixels", costs, "stream", "plain", "<= 1.5"),
        Fact(f"R1 CPU seconds of a stream's start and first {START} videos", f"{fixed:.1f}"),
    ]


def fused(setting: Setting) -> list[Finding]:
    """Return R2: the same where the actor encodes too, so that features alone travel."""
    depth, size = setting.size((18, 224), (10, 32))
    encoder = ResNet.Config(depth=depth)
    fields = {"encoder_width": 512, "frames": FRAMES, "size_px": size, "fit": "stretch"}
    processor = FrameFeatures(FrameFeatures.Config(encoder=encoder, **fields))
    costs, _ = _in_ray_and_plainly(setting, processor, setting.size(ENCODED, 4))
    name = f"R2 Ray Data / plain loop, decoding and ResNet-{depth} of {FRAMES} frames, {size} px"
    milliseconds = 1e3 * min(costs["plain"]) / setting.size(ENCODED, 4)
    return [
        ratio(name, costs, "stream", "plain", "<= 1.2"),
        Fact("R2 ms per video, plain loop", f"{milliseconds:.0f}"),
    ]


def _in_ray_and_plainly(setting: Setting, processor: Processor, videos: int) -> tuple[Costs, float]:
    """Return the CPU seconds of both ways, and those of a stream's start."""
    media = _media(setting, videos)
    clock = Family().seconds_with_own
    seconds: list[float] = []
    extractor, marked = processor.extractor(), Marked(processor, setting.folder / "begun")
    # As many as an actor has.
    torch.set_num_threads(1)

    def plain() -> None:
        for medium in media[START:]:
            extractor.arrays(medium)

    def streamed() -> None:
        seconds.append(_after_the_start(media, marked, clock))

    with cluster.connected():
        costs = setting.measure({"stream": streamed, "plain": plain}, clock)
    extractor.close()
    # The first is the warm-up.
    each = {"stream": seconds[1:], "plain": costs["plain"]}
    fixed = min(whole - own for whole, own in zip(costs["stream"], seconds[1:], strict=True))
    return each, fixed


@dataclass(frozen=True)
class Marked:
    """A processor in whose actor the first video that counts leaves a mark."""

    processor: Processor
    mark: Path

    @property
    def timeout_s(self) -> float:
        """As the processor has it."""
        return self.processor.timeout_s

    def spec(self) -> StoreSpec:
        """Return what the processor makes."""
        return self.processor.spec()

    def extractor(self) -> "MarkingExtractor":
        """Return what makes it."""
        return MarkingExtractor(self.processor.extractor(), self.mark)


class MarkingExtractor:
    """Makes arrays, and leaves a mark before those of the first video that counts."""

    def __init__(self, extractor: Extractor, mark: Path) -> None:
        self._extractor, self._mark = extractor, mark

    def arrays(self, medium: Medium) -> Arrays:
        """Return the arrays of a medium."""
        if medium.id == str(START):
            self._mark.touch()
        return self._extractor.arrays(medium)

    @property
    def by_pyav(self) -> str:
        """As the extractor has it."""
        return self._extractor.by_pyav


def _media(setting: Setting, videos: int) -> list[Medium]:
    path = barcode_video.write(setting.folder / "video.avi", setting.size(300, 30))
    return [Medium(str(number), str(path)) for number in range(START + videos)]


def waiting(setting: Setting) -> list[Finding]:
    """Return R3: the time of an epoch over that of its steps, with the cores the formula asks for.

    The steps take as long as those of a device that one core of decoding keeps busy, by
    `msvqa.engine.speed`: 0.8 of that core, and 1.4 times the work of a plain loop.
    """
    videos = setting.size(VIDEOS, 4)
    media = _media(setting, videos)
    step_s = (1 + BY_OBJECT_STORE) / UTILISATION * _decode_s(media)
    with cluster.connected():
        costs = {"epoch": [_paced(media, step_s) for _ in range(1 + setting.rounds)][1:]}
    costs["steps"] = [videos * step_s] * setting.rounds
    return [
        ratio("R3 epoch / its steps, one core of decoding", costs, "epoch", "steps", "<= 1.05"),
        Fact("R3 ms per step of one video", f"{1e3 * step_s:.0f}"),
    ]


def _decode_s(media: list[Medium]) -> float:
    """Return the CPU seconds of a video in a plain loop."""
    extractor, clock = CLIPS.extractor(), Family().seconds_with_own
    extractor.arrays(media[0])  # imports
    start = clock()
    for medium in media:
        extractor.arrays(medium)
    used = clock() - start
    extractor.close()
    return used / len(media)


def _paced(media: list[Medium], step_s: float) -> float:
    """Return the seconds from a stream's first videos to the end of the last one's step."""
    from msvqa.engine.ingest import stream_media

    begun = 0.0
    for made in stream_media(media, CLIPS, workers=1):
        if made.index >= START:
            begun = begun or time.perf_counter()
            time.sleep(step_s)
    return time.perf_counter() - begun


def _after_the_start(media: list[Medium], marked: Marked, clock: Callable[[], float]) -> float:
    """Return what a stream costs from the first video that counts to the last one."""
    from msvqa.engine.ingest import stream_media

    marked.mark.unlink(missing_ok=True)
    is_over = threading.Event()

    def begin() -> float:
        # The actor works ahead: when the video arrives, others are done already.
        while not marked.mark.exists() and not is_over.wait(LOOK_EVERY_S):
            pass
        return clock()

    with ThreadPoolExecutor(1) as thread:
        begun = thread.submit(begin)
        try:
            for made in stream_media(media, cast(Processor, marked), workers=1):
                assert made.arrays is not None, made.error
            return clock() - begun.result()
        finally:
            is_over.set()  # else a stream that fails would be waited for without end


def steps(setting: Setting) -> list[Finding]:
    """Return R4: the CPU time of a step under the trainer over that of plain processes."""
    count = setting.size(STEPS, 3)
    seconds: dict[str, list[float]] = {"trainer": [], "plain": []}

    def under_the_trainer() -> None:
        seconds["trainer"] += _by_trainer(str(setting.folder), count)

    def by_themselves() -> None:
        seconds["plain"] += run_in_processes(WORKERS, _steps_of_rank, setting.folder, count)[0]

    starts = replace(setting, rounds=math.ceil(setting.rounds / PARTS))
    with cluster.connected():
        starts.measure({"trainer": under_the_trainer, "plain": by_themselves}, time.perf_counter)
    # The first start of each is the warm-up; the workers themselves say how long a step takes.
    costs = {name: found[PARTS:] for name, found in seconds.items()}
    return [
        ratio("R4 step under the trainer / plain", costs, "trainer", "plain", "<= 1.02"),
        Fact("R4 ms per step, plain", f"{1e3 * min(costs['plain']):.1f}"),
    ]


def seconds_per_step(count: int) -> list[float]:
    """Train with the other workers; return the CPU time of a step in this process, by part.

    Args:
        count: steps of a part.
    """
    torch.set_num_threads(1)
    objective = trainable(Answering(Answering.Config(), make_msvqa()))
    parallel, batch = Replicas(objective, torch.device("cpu")), make_batch()
    optimizer = torch.optim.SGD(objective.parameters(), lr=1e-3)

    def used(steps: int) -> float:
        start = time.process_time()
        for _ in range(steps):
            optimizer.zero_grad()
            parallel(batch)["loss"].backward()
            optimizer.step()
        return time.process_time() - start

    used(WARM_STEPS)
    return [used(count) / count for _ in range(PARTS)]


def _steps_of_rank(rank: int, count: int) -> list[float]:
    return seconds_per_step(count)


def _by_trainer(folder: str, count: int) -> list[float]:
    from ray.train import RunConfig, ScalingConfig

    from msvqa.engine.lean_trainer import LeanTrainer
    from msvqa.engine.process_group import group_config

    train: Callable[[], list[float]] = partial(seconds_per_step, count)
    trainer = LeanTrainer(
        train,
        backend_config=group_config("gloo"),
        scaling_config=ScalingConfig(num_workers=WORKERS),
        run_config=RunConfig(name="steps", storage_path=str(Path(folder) / "trainer")),
    )
    # As a stage does; in the main thread Ray would keep the controller for Ctrl-C.
    with ThreadPoolExecutor(1) as thread:
        found: list[float] = thread.submit(trainer.fit).result().return_value
    return found
