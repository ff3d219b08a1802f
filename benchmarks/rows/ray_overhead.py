"""R1, R4: what Ray costs over a plain loop, in Ray Data and under its trainer."""

import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from pathlib import Path

import torch

from benchmarks.measure import Fact, Family, ratio
from benchmarks.rows.setting import Finding, Setting
from msvqa.data.medium import Medium
from msvqa.data.processors.clips import Clips
from msvqa.engine import cluster
from msvqa.engine.parallel import Replicas
from msvqa.objectives.answering import Answering
from tests import barcode_video
from tests.engine.gloo import run_in_processes
from tests.models.small import make_batch, make_msvqa, trainable

CLIPS = Clips(Clips.Config())
START, VIDEOS = 4, 60
"""Videos of a stream that are not counted, since its actor starts, and those that are"""
WORKERS = 2
WARM_STEPS, STEPS = 5, 40


def stream(setting: Setting) -> list[Finding]:
    """Return R1: the CPU time for a video in a stream of Ray Data over that in a plain loop."""
    path = barcode_video.write(setting.folder / "video.avi", setting.size(300, 30))
    videos = setting.size(VIDEOS, 4)
    media = [Medium(str(number), str(path)) for number in range(START + videos)]
    clock = Family().seconds_with_own
    seconds: list[float] = []
    extractor = CLIPS.extractor()

    def plain() -> None:
        for medium in media[START:]:
            extractor.arrays(medium)

    with cluster.connected():
        methods = {
            "stream": lambda: seconds.append(_after_the_start(media, clock)),
            "plain": plain,
        }
        costs = setting.measure(methods, clock)
    extractor.close()
    # The first is the warm-up.
    each = {"stream": seconds[1:], "plain": costs["plain"]}
    whole = zip(costs["stream"], seconds[1:], strict=True)
    fixed = min(every - own for every, own in whole)
    return [
        ratio("R1 Ray Data / plain loop, pixels", each, "stream", "plain", "<= 1.5"),
        Fact(f"R1 CPU seconds of a stream's start and first {START} videos", f"{fixed:.1f}"),
    ]


def _after_the_start(media: list[Medium], clock: Callable[[], float]) -> float:
    """Return what a stream costs from its first videos, when its actor is there, to its last.

    What the actor has done ahead by then is not counted: a few of the videos.
    """
    from msvqa.engine.ingest import stream_media

    begun = 0.0
    for made in stream_media(media, CLIPS, workers=1):
        assert made.arrays is not None, made.error
        if made.index == START - 1:
            begun = clock()
        if made.index == len(media) - 1:
            return clock() - begun
    raise RuntimeError("the stream ended early")


def steps(setting: Setting) -> list[Finding]:
    """Return R4: the CPU time of a step under the trainer over that of plain processes."""
    count = setting.size(STEPS, 3)
    seconds: dict[str, list[float]] = {"trainer": [], "plain": []}

    def under_the_trainer() -> None:
        seconds["trainer"].append(_by_trainer(str(setting.folder), count))

    def by_themselves() -> None:
        found = run_in_processes(WORKERS, _step_of_rank, setting.folder, count)
        seconds["plain"].append(found[0])

    with cluster.connected():
        setting.measure({"trainer": under_the_trainer, "plain": by_themselves}, time.perf_counter)
    # The first of each is the warm-up; the workers themselves say how long a step takes.
    costs = {name: found[1:] for name, found in seconds.items()}
    return [
        ratio("R4 step under the trainer / plain", costs, "trainer", "plain", "<= 1.05"),
        Fact("R4 ms per step, plain", f"{1e3 * min(costs['plain']):.1f}"),
    ]


def seconds_per_step(count: int) -> float:
    """Train for some steps with the other workers; return the CPU time of one in this process."""
    torch.set_num_threads(1)
    objective = trainable(Answering(Answering.Config(), make_msvqa()))
    parallel, batch = Replicas(objective, torch.device("cpu")), make_batch()
    optimizer = torch.optim.SGD(objective.parameters(), lr=1e-3)
    start = 0.0
    for number in range(WARM_STEPS + count):
        if number == WARM_STEPS:
            start = time.process_time()
        optimizer.zero_grad()
        parallel(batch)["loss"].backward()
        optimizer.step()
    return (time.process_time() - start) / count


def _step_of_rank(rank: int, count: int) -> float:
    return seconds_per_step(count)


def _by_trainer(folder: str, count: int) -> float:
    from ray.train import RunConfig, ScalingConfig

    from msvqa.engine.lean_trainer import LeanTrainer
    from msvqa.engine.process_group import group_config

    train: Callable[[], float] = partial(seconds_per_step, count)
    trainer = LeanTrainer(
        train,
        backend_config=group_config("gloo"),
        scaling_config=ScalingConfig(num_workers=WORKERS),
        run_config=RunConfig(name="steps", storage_path=str(Path(folder) / "trainer")),
    )
    # As a stage does; in the main thread Ray would keep the controller for Ctrl-C.
    with ThreadPoolExecutor(1) as thread:
        return float(thread.submit(trainer.fit).result().return_value)
