"""T1, G1, G3, S1: what is computed once per video is; nothing is lost or done twice by it."""

import json
from collections.abc import Iterator, Sequence

import numpy as np
import pyarrow as pa
import torch

from benchmarks.measure import Count, Fact
from benchmarks.rows import counting
from benchmarks.rows.setting import Finding, Setting
from msvqa.data.batch import Batch
from msvqa.data.chance import Chance
from msvqa.data.examples.questions import Questions
from msvqa.data.loader import training_batches
from msvqa.data.media import COLUMNS, Media
from msvqa.data.order import EpochPlan, Share, evaluation_order, plan_epoch
from msvqa.data.split import Split
from msvqa.objectives.answering import Answering
from msvqa.objectives.objective import Objective
from msvqa.objectives.reconstruction import Reconstruction
from msvqa.recipe import BatchConfig
from tests.models.small import (
    expand,
    gradients,
    largest_difference,
    make_batch,
    make_dualvgr,
    make_msvqa,
    trainable,
)

VIDEOS, QUESTIONS, FEWEST, MOST = 1161, 30_933, 5, 63
"""The training split of MSVD-QA: videos, questions, and questions of a video at least and most"""
GROUPS = (1, 4, 8, 16)
LANES, WORKERS = 32, 2
NO_DROPOUT = {"dropout": 0.0, "state_dropout": 0.0}


def objectives() -> dict[str, Objective]:
    """Return the objectives of both models of questions, small and without dropout."""
    made = {
        "msvqa answering": Answering(Answering.Config(), make_msvqa(**NO_DROPOUT)),
        "msvqa reconstruction": Reconstruction(Reconstruction.Config(), _without_dropout()),
        "dualvgr answering": Answering(Answering.Config(), make_dualvgr(**NO_DROPOUT)),
    }
    return {name: trainable(objective) for name, objective in made.items()}


def _without_dropout() -> torch.nn.Module:
    model = make_msvqa(**NO_DROPOUT)
    for module in model.modules():
        if isinstance(module, torch.nn.Dropout):
            module.p = 0.0
    return model


def on_device(batch: Batch, setting: Setting) -> Batch:
    """Return a batch on the device of the setting."""
    return {name: tensor.to(setting.device) for name, tensor in batch.items()}


def operators(setting: Setting) -> list[Finding]:
    """Return T1: by how many operators a step grows with the questions of a video."""
    found: list[Finding] = []
    for name, objective in objectives().items():
        objective.to(setting.device)
        few, many = (
            len(_operators_of(objective, on_device(make_batch(per_video=k), setting)))
            for k in (2, 5)
        )
        found.append(Count(f"T1 operators more for 12 questions more, {name}", many - few, "== 0"))
        found.append(Fact(f"T1 operators of a step, {name}", str(few)))
    return found


def _operators_of(objective: Objective, batch: Batch) -> list[str]:
    return counting.operators(lambda: objective(batch)["loss"].backward())


def gradients_once_per_video(setting: Setting) -> list[Finding]:
    """Return G3: how far gradients are from those of encoders that run once per question."""
    found: list[Finding] = []
    for name, objective in objectives().items():
        objective.to(setting.device).double()
        batch = on_device(make_batch(videos=3, per_video=3), setting)
        pair = gradients(objective, batch), gradients(objective, expand(batch))
        found.append(
            Count(f"G3 difference of gradients, {name}", largest_difference(*pair), "<= 1e-9")
        )
    return found


# Epochs


def questions_of_videos(videos: int, questions: int) -> np.ndarray:
    """Return the video of each question, with as many per video as a seed draws."""
    draw = np.random.default_rng(0)
    counts = draw.integers(FEWEST, MOST + 1, videos)
    while (over := int(counts.sum()) - questions) != 0:
        movable = np.flatnonzero(counts > FEWEST if over > 0 else counts < MOST)
        chosen = draw.choice(movable, min(abs(over), len(movable)), replace=False)
        counts[chosen] -= np.sign(over)
    return draw.permutation(np.repeat(np.arange(videos), counts))


def split_of(video_row: np.ndarray) -> Split:
    """Return a split of empty questions about media that have no files."""
    count, videos = len(video_row), int(video_row.max()) + 1
    media = pa.table(
        {
            "id": [str(video) for video in range(videos)],
            "path": [""] * videos,
            "kind": ["video"] * videos,
            "start": pa.array([None] * videos, pa.float64()),
            "end": pa.array([None] * videos, pa.float64()),
        },
        schema=COLUMNS,
    )
    one = pa.FixedSizeListArray.from_arrays(pa.array(video_row, pa.int64()), 1)
    words = pa.array([[2, 3] * 5] * count, pa.list_(pa.int32()))
    answers = pa.array(np.full(count, 2), pa.int64())
    examples = Questions(pa.table({"media": one, "tokens": words, "answer_id": answers}))
    return Split("train", Media(media, ""), examples, count)


def epoch_of(split: Split, k: int) -> EpochPlan:
    """Return the plan of an epoch with k questions per video."""
    batch = BatchConfig(videos=LANES, questions_per_video=k)
    return plan_epoch(split, batch, seed=0, epoch=0)


def asked_videos(setting: Setting, tiny: tuple[int, int] = (70, 1500)) -> np.ndarray:
    """Return the video of each training question of MSVD-QA, or of as many that are drawn.

    Args:
        setting: says which.
        tiny: videos and questions at tiny size.
    """
    if setting.is_tiny or setting.questions is None:
        return questions_of_videos(*setting.size((VIDEOS, QUESTIONS), tiny))
    rows = json.loads(setting.questions.read_text(encoding="utf-8"))
    found: np.ndarray = np.unique([row["video_id"] for row in rows], return_inverse=True)[1]
    return found


def visits(setting: Setting) -> list[Finding]:
    """Return G1: visits that are too many, and runs of the encoders that are no visit."""
    split = split_of(asked_videos(setting))
    counts = np.bincount(split.examples.medium)
    found: list[Finding] = []
    for k in GROUPS:
        plan = epoch_of(split, k)
        visited = int((plan.weight.sum(axis=2) > 0).sum())
        ideal = int(np.ceil(counts / k).sum())
        found.append(Count(f"G1 visits - {ideal}, k = {k}", visited - ideal, "== 0"))
        fillers = plan.media.size - visited
        found.append(Fact(f"G1 visits repeated to fill the last steps, k = {k}", str(fillers)))
    return [*found, _encoder_runs(setting)]


def _encoder_runs(setting: Setting) -> Finding:
    """Count the videos that the encoders of a model see, against those of its batches."""
    model = make_msvqa(**NO_DROPOUT).to(setting.device)
    seen: list[int] = []
    for encoder in (model.appearance_encoder, model.motion_encoder):
        encoder.register_forward_hook(lambda module, inputs, output: seen.append(len(inputs[0])))
    batch = on_device(make_batch(videos=4, per_video=3), setting)
    videos, clips, frames = batch["clips"].shape[:3]
    with torch.no_grad():
        model.answer(batch)
    extra = sum(seen) - videos * clips * (frames + 1)
    return Count("G1 frames and clips encoded - those of the batch's videos", extra, "== 0")


class CountingSource:
    """Gives empty tensors of videos and remembers which were asked for."""

    def __init__(self) -> None:
        self.asked: set[int] = set()

    def batches(
        self, groups: Sequence[Sequence[int]], chance: Chance | None = None
    ) -> Iterator[Batch]:
        """Yield one number for each video."""
        for group in groups:
            self.asked.update(group)
            yield {"clips": torch.zeros(len(group), 1)}


def shares(setting: Setting) -> list[Finding]:
    """Return S1: videos that two workers read in training and evaluation, over videos."""
    split = split_of(asked_videos(setting))
    videos = len(split.media)
    plan = epoch_of(split, 8)
    sources = [CountingSource() for _ in range(WORKERS)]
    owned = 0
    for worker, source in enumerate(sources):
        share = Share(worker, WORKERS)
        lanes = plan.lanes_of(share)
        counting_visits = plan.weight[:, lanes].any(axis=2)
        owned += len(np.unique(plan.media[:, lanes, 0][counting_visits]))
        for _ in training_batches(split, source, plan, share):
            pass
    read = sum(len(source.asked) for source in sources)
    asked = sum(map(len, evaluation_order(split.examples.medium, videos, WORKERS)))
    return [
        Count("S1 videos that count for some worker / videos, training", owned / videos, "== 1"),
        Count("S1 videos read by both workers / videos, evaluation", asked / videos, "== 1"),
        # What fills the last steps is a visit of any video, which another worker may have.
        Fact("S1 the same with what fills the last steps, training", f"{read / videos:.4f}"),
    ]
