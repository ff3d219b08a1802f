"""R1 to R4: what Ray costs over a plain loop, in Ray Data and under its trainer."""

import math
import random
import threading
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from functools import partial
from itertools import pairwise
from pathlib import Path
from typing import cast

import psutil
import torch
import torch.distributed as dist

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
STARTS, PARTS = 3, 2
"""How often ways start, at least, and the parts of what each does then. A part is a round: starts
take longer, and processes that do the same differ by some hundredths all their life."""
START, VIDEOS, PACED, ENCODED = 4, 16, 24, 8
"""Videos before the first part, since its actor starts; those of a part: of pixels, of pixels that
paced steps wait for (which have one part), and with an encoder"""
FRAMES = 4
LOOK_EVERY_S = 0.005
BY_OBJECT_STORE = 0.4
"""Extra work of a worker whose pixels go through the object store, as a part of the plain loop's"""
WORKERS = 2
WARM_STEPS, STEPS = 20, 60
WAYS = ("trainer", "plain")
TURNS = 3
"""How often each has its turn in one start"""
TURN_LIMIT_S = 120
ABSENT = "nobody has come to"


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
    """Return the CPU seconds of both ways for a part of as many videos, and those of a start."""
    media = _media(setting, PARTS * videos)
    marked = Marked(processor, setting.folder, _begins(videos, PARTS))
    fixed: list[float] = []
    torch.set_num_threads(1)  # as many as an actor has
    before = psutil.Process().children()

    with cluster.connected(), Family() as family:
        of_ray = [child for child in psutil.Process().children() if child not in before]

        def without_ray() -> float:
            # A cluster takes some time also while nobody asks anything of it, in its processes and
            # in other threads of this one.
            return family.seconds(without=of_ray) + time.thread_time()

        def plainly() -> list[float]:
            extractor = processor.extractor()
            for medium in media[:START]:
                extractor.arrays(medium)
            marks = [without_ray()]
            for begin in marked.begins[:-1]:
                for medium in media[begin : begin + videos]:
                    extractor.arrays(medium)
                marks.append(without_ray())
            extractor.close()
            return _differences(marks)

        def streamed() -> list[float]:
            begun = family.seconds_with_own()
            marks = _streamed(media, marked, family.seconds_with_own)
            fixed.append(marks[0] - begun)
            return _differences(marks)

        costs = _by_part({"stream": streamed, "plain": plainly}, _starts(setting, PARTS))
    return costs, min(fixed)


def _starts(setting: Setting, parts: int) -> int:
    """Return how often ways start that do so many parts each time."""
    return setting.size(max(STARTS, math.ceil(setting.rounds / parts)), 1)


def _by_part(methods: dict[str, Callable[[], list[float]]], starts: int) -> Costs:
    """Return the costs of every part of methods that warm up themselves, each first in turn."""
    costs: Costs = {name: [] for name in methods}
    order = list(methods)
    for _ in range(starts):
        for name in order:
            costs[name] += methods[name]()
        order.reverse()
    return costs


def _begins(videos: int, parts: int) -> list[int]:
    """Return at which videos parts of a stream begin, and the one after the last part."""
    return [START + part * videos for part in range(parts + 1)]


def _differences(marks: list[float]) -> list[float]:
    return [later - earlier for earlier, later in pairwise(marks)]


@dataclass(frozen=True)
class Marked:
    """A processor in whose actor the first video of every part leaves a mark."""

    processor: Processor
    folder: Path
    begins: list[int]

    @property
    def marks(self) -> list[Path]:
        """The files that say that a part has begun."""
        return [self.folder / f"begun-{number}" for number in self.begins]

    @property
    def timeout_s(self) -> float:
        """As the processor has it."""
        return self.processor.timeout_s

    def spec(self) -> StoreSpec:
        """Return what the processor makes."""
        return self.processor.spec()

    def extractor(self) -> "MarkingExtractor":
        """Return what makes it."""
        marks = {str(number): mark for number, mark in zip(self.begins, self.marks, strict=True)}
        return MarkingExtractor(self.processor.extractor(), marks)


class MarkingExtractor:
    """Makes arrays, and leaves marks before those of some videos."""

    def __init__(self, extractor: Extractor, marks: dict[str, Path]) -> None:
        self._extractor, self._marks = extractor, marks

    def arrays(self, medium: Medium) -> Arrays:
        """Return the arrays of a medium."""
        if medium.id in self._marks:
            self._marks[medium.id].touch()
        return self._extractor.arrays(medium)

    @property
    def by_pyav(self) -> str:
        """As the extractor has it."""
        return self._extractor.by_pyav


def _media(setting: Setting, videos: int) -> list[Medium]:
    path = barcode_video.write(setting.folder / "video.avi", setting.size(300, 30))
    # One more than are counted: where it begins, the last part ends.
    return [Medium(str(number), str(path)) for number in range(START + videos + 1)]


def waiting(setting: Setting) -> list[Finding]:
    """Return R3: the time of an epoch over that of its steps, with the cores the formula asks for.

    The steps take as long as those of a device that one core of decoding keeps busy, by
    `msvqa.engine.speed`: 0.8 of that core, and 1.4 times the work of a plain loop.
    """
    videos = setting.size(PACED, 4)
    media = _media(setting, videos)
    step_s = (1 + BY_OBJECT_STORE) / UTILISATION * _decode_s(media)
    with cluster.connected():
        costs = {"epoch": [_paced(media[:-1], step_s) for _ in range(setting.rounds)]}
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


def _streamed(media: list[Medium], marked: Marked, clock: Callable[[], float]) -> list[float]:
    """Return the clock's time where each part of a stream begins, and where the last ends."""
    from msvqa.engine.ingest import stream_media

    for mark in marked.marks:
        mark.unlink(missing_ok=True)
    is_over = threading.Event()

    def begin_of(mark: Path) -> float:
        # The actor works ahead: when a video arrives, others are done already.
        while not mark.exists() and not is_over.wait(LOOK_EVERY_S):
            pass
        return clock()

    with ThreadPoolExecutor(1) as thread:
        begun = thread.submit(lambda: [begin_of(mark) for mark in marked.marks])
        try:
            for made in stream_media(media, cast(Processor, marked), workers=1):
                assert made.arrays is not None, made.error
            return begun.result()
        finally:
            is_over.set()  # else a stream that fails would be waited for without end


def steps(setting: Setting) -> list[Finding]:
    """Return R4: the CPU time of a step under the trainer over that of plain processes.

    Both are there at once and take turns: what changes on the machine changes both alike.
    """
    shuffler = random.Random(0)
    costs: Costs = {name: [] for name in WAYS}
    with cluster.connected():
        for start in range(_starts(setting, TURNS)):
            order = [name for _ in range(TURNS) for name in shuffler.sample(WAYS, len(WAYS))]
            turns = Turns(setting.folder / f"turns-{start}", tuple(order))
            for name, found in _in_turns(setting, turns).items():
                costs[name] += found
    return [
        ratio("R4 step under the trainer / plain", costs, "trainer", "plain", "<= 1.02"),
        Fact("R4 ms per step, plain", f"{1e3 * min(costs['plain']):.1f}"),
    ]


def _in_turns(setting: Setting, turns: "Turns") -> Costs:
    turns.folder.mkdir()
    count = setting.size(STEPS, 3)
    # As a stage does; in the main thread Ray would keep the controller for Ctrl-C.
    with ThreadPoolExecutor(len(WAYS)) as threads:
        in_ray = threads.submit(_by_trainer, str(setting.folder), count, turns)
        by_themselves = threads.submit(
            run_in_processes, WORKERS, _steps_of_rank, setting.folder, count, turns
        )
        failures = [e for f in (in_ray, by_themselves) if (e := f.exception())]
    if failures:
        # That of the group which did not come, and not of the one that waited for it.
        raise min(failures, key=lambda failure: ABSENT in str(failure))
    return {"trainer": in_ray.result(), "plain": by_themselves.result()[0]}


@dataclass(frozen=True)
class Turns:
    """Parts of the work of several groups of processes, of which one works at a time."""

    folder: Path
    """Where a file for each part says that it may begin."""
    order: tuple[str, ...]
    """Which group does each part."""

    def take(self, name: str, part: Callable[[], float]) -> list[float]:
        """Do the parts of this process's group, when all groups are here; return what each gives.

        Raises:
            TimeoutError: the others do not come.
        """
        self._touch(name)
        for other in sorted(set(self.order)):
            self._wait_for(other)
        found: list[float] = []
        for number, whose in enumerate(self.order):
            if whose != name:
                continue
            if number:
                self._wait_for(str(number))
            found.append(part())
            self._touch(str(number + 1))
        # Else the end of this group's processes would fall into the others' last part.
        self._wait_for(str(len(self.order)))
        return found

    def _touch(self, name: str) -> None:
        dist.barrier()
        (self.folder / name).touch()

    def _wait_for(self, name: str) -> None:
        until = time.monotonic() + TURN_LIMIT_S
        while not (self.folder / name).exists():
            if time.monotonic() > until:
                raise TimeoutError(f"{ABSENT} {name} of {self.order} in {TURN_LIMIT_S} s")
            time.sleep(LOOK_EVERY_S)


def seconds_per_step(count: int, turns: Turns, name: str) -> list[float]:
    """Train with the other workers; return the mean CPU time that a step takes each, by part.

    Args:
        count: steps of a part.
        turns: when its parts are done.
        name: of the workers, in `turns`.
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
    found = torch.tensor(turns.take(name, lambda: used(count)), dtype=torch.float64)
    dist.all_reduce(found)
    each: list[float] = (found / count / dist.get_world_size()).tolist()
    return each


def _steps_of_rank(rank: int, count: int, turns: Turns) -> list[float]:
    return seconds_per_step(count, turns, "plain")


def _by_trainer(folder: str, count: int, turns: Turns) -> list[float]:
    from ray.train import RunConfig, ScalingConfig

    from msvqa.engine.lean_trainer import LeanTrainer
    from msvqa.engine.process_group import group_config

    train: Callable[[], list[float]] = partial(seconds_per_step, count, turns, "trainer")
    trainer = LeanTrainer(
        train,
        backend_config=group_config("gloo"),
        scaling_config=ScalingConfig(num_workers=WORKERS),
        run_config=RunConfig(name="steps", storage_path=str(Path(folder) / "trainer")),
    )
    found: list[float] = trainer.fit().return_value
    return found
