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
from msvqa.engine.distributed import wrap
from msvqa.objectives.answering import Answering
from tests import barcode_video
from tests.engine.gloo import run_in_processes
from tests.models.small import make_batch, make_msvqa, trainable

FEW, MANY = 4, 64
"""Videos of two streams: what the second costs more is the cost of videos alone"""
WORKERS = 2
WARM_STEPS, STEPS = 5, 40


def stream(setting: Setting) -> list[Finding]:
    """Return R1: the CPU time for a video in a stream of Ray Data over that in a plain loop."""
    from msvqa.engine.ingest import stream_media

    path = barcode_video.write(setting.folder / "video.avi", setting.size(300, 30))
    clips = Clips(Clips.Config())
    many = setting.size(MANY, 2 * FEW)

    def streamed(count: int) -> None:
        media = [Medium(str(number), str(path)) for number in range(count)]
        for made in stream_media(media, clips, workers=1):
            assert made.arrays is not None, made.error

    extractor = clips.extractor()

    def plain() -> None:
        for number in range(many - FEW):
            extractor.arrays(Medium(str(number), str(path)))

    with cluster.connected():
        methods = {
            "few": lambda: streamed(FEW),
            "many": lambda: streamed(many),
            "plain": plain,
        }
        costs = setting.measure(methods, Family().seconds_with_own)
    extractor.close()
    both = zip(costs["many"], costs["few"], strict=True)
    costs["stream"] = [more - less for more, less in both]
    fixed = min(costs["few"]) - FEW * min(costs["plain"]) / (many - FEW)
    return [
        ratio("R1 Ray Data / plain loop, pixels", costs, "stream", "plain", "<= 1.5"),
        Fact("R1 CPU seconds that a stream costs before its videos", f"{fixed:.1f}"),
    ]


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
    parallel, batch = wrap(objective, torch.device("cpu")), make_batch()
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
