"""T2, G2, M1: a training step's formats, what grouping saves, and what is kept for gradients."""

from collections.abc import Callable
from functools import partial
from typing import Any

import torch

from benchmarks.measure import Count, Fact, has_fast_bf16, ratio
from benchmarks.rows.counting import kept_bytes, operations
from benchmarks.rows.encoders import TYPES, resnet, resnext
from benchmarks.rows.setting import Costs, Finding, Setting
from msvqa.data.batch import Batch
from msvqa.data.processors.frozen_encoder import open_encoder
from msvqa.engine.precision import autocast
from msvqa.models.dualvgr import DualVGR
from msvqa.models.layers.memory_layout import use_channels_last
from msvqa.models.model import Model, Sizes
from msvqa.models.msvqa import MSVQA
from msvqa.objectives.answering import Answering
from msvqa.objectives.objective import Objective

# Legend: V videos, Q questions, C clips, F frames per clip, H x W pixels.

PUBLISHED = Sizes(
    vocabulary=4809, answers=1854, num_clips=8, frames_per_clip=16, size_px=224,
    appearance_width=2048, motion_width=2048, word_size=300,
)  # fmt: skip
TINY = Sizes(
    vocabulary=20, answers=30, num_clips=3, frames_per_clip=4, size_px=16,
    appearance_width=24, motion_width=20, word_size=8,
)  # fmt: skip
GROUPED = 8
STEP_PX = 100
PUBLISHED_MB = {
    ("frame", "float32"): 29, ("clip", "float32"): 168, ("frame", "bf16"): 15, ("clip", "bf16"): 96,
}  # fmt: skip
"""Of one frame and one clip of 16, 100 px: outputs of convolutions, normalisations and ReLU"""


def step(objective: Objective, batch: Batch, precision: str = "fp32") -> None:
    """Run a batch forward and backward; weights stay as they are."""
    with autocast(batch["weight"].device, precision):  # type: ignore[arg-type]
        loss = objective(batch)["loss"]
    objective.zero_grad(set_to_none=True)
    loss.backward()


def lone_step(objective: Objective, batch: Batch, precision: str = "fp32") -> Callable[[], object]:
    """Return a step after which no gradients are left in memory."""

    def run() -> None:
        try:
            step(objective, batch, precision)
        finally:
            objective.zero_grad(set_to_none=True)

    return run


def answering(model: Model, setting: Setting) -> Objective:
    """Return a model that learns to answer, without what answering never runs."""
    objective = Answering(Answering.Config(), model)
    for module in objective.frozen():
        module.requires_grad_(False)
    return objective.train().to(setting.device)


# Formats


def formats(setting: Setting) -> list[Finding]:
    """Return T2: the step as PyTorch makes it over the step as recipes for speed ask for it."""
    batch = pixel_batch(setting)
    plain, fast = (pixel_model(setting) for _ in range(2))
    use_channels_last(fast)
    methods = {
        "plain": lambda: step(plain, batch),
        "channels last": lambda: step(fast, batch),
        "bf16": lambda: step(fast, batch, "bf16"),
    }
    # Where the processor does not multiply bf16 itself, nothing would be gained.
    with_bf16 = setting.on_gpu or has_fast_bf16()
    if not with_bf16:
        del methods["bf16"]
    costs = setting.measure(methods)
    clips, frames, _ = _clip_shape(setting)
    label = f"T2 {clips} clips of {frames} frames, float32"
    found: list[Finding] = [
        ratio(f"{label}: channels first / channels last", costs, "plain", "channels last")
    ]
    if with_bf16:
        target = ">= 1.8" if has_fast_bf16() and not setting.on_gpu else ""
        name = f"{label}, channels first / bf16, channels last"
        found.append(ratio(name, costs, "plain", "bf16", target))
    rate = len(batch["answer"]) / min(min(cost) for cost in costs.values())
    return [*found, Fact("T2 questions per second, fastest", f"{rate:.1f}")]


def pixel_model(setting: Setting, **changes: Any) -> Objective:
    """Return MSVQA with the published encoders and no decoder, or the smallest one.

    Args:
        setting: says which.
        changes: other fields of its config.
    """
    torch.manual_seed(0)
    clips, frames, _ = _clip_shape(setting)
    shapes = dict(TINY if setting.is_tiny else PUBLISHED)
    shapes |= {"num_clips": clips, "frames_per_clip": frames}
    small = {"hidden_size": 16, "heads": 2} if setting.is_tiny else {}
    config = MSVQA.Config(appearance=resnet(setting), motion=resnext(setting), **small, **changes)
    return answering(MSVQA(config, Sizes(**shapes), absent=("decoder",)), setting)


def _clip_shape(setting: Setting) -> tuple[int, int, int]:
    """Return clips, frames and pixels: on a GPU the published ones, else what takes seconds."""
    published = (8, 16, STEP_PX)
    # With less work for each weight, casts of weights and gradients weigh more than in training.
    return setting.size(published if setting.on_gpu else (2, 8, STEP_PX), (2, 4, 32))


def pixel_batch(setting: Setting, videos: int = 1, k: int = 2) -> Batch:
    """Return a batch of videos with k questions each."""
    clips, frames, size = _clip_shape(setting)
    generator = torch.Generator().manual_seed(0)
    shape = (videos, clips, frames, size, size, 3)
    pixels = torch.randint(0, 256, shape, generator=generator, dtype=torch.uint8)
    words = _questions(videos * k, k, setting)
    return {"clips": pixels.to(setting.device), **words}


def _questions(questions: int, k: int, setting: Setting) -> Batch:
    sizes = setting.size(PUBLISHED, TINY)
    generator = torch.Generator().manual_seed(0)
    batch = {
        "question": torch.randint(2, sizes.vocabulary, (questions, 11), generator=generator),
        "question_length": torch.full((questions,), 11),
        "video_index": torch.arange(questions // k).repeat_interleave(k),
        "answer": torch.arange(questions) % (sizes.answers - 2) + 2,
        "weight": torch.ones(questions),
        "normalizer": torch.tensor(float(questions)),
        "workers": torch.tensor(1.0),
    }
    return {name: tensor.to(setting.device) for name, tensor in batch.items()}


# Groups


def feature_model(setting: Setting) -> Objective:
    """Return DualVGR in the published size, or the smallest one."""
    torch.manual_seed(0)
    small = {"hidden_size": 16, "heads": 2} if setting.is_tiny else {}
    return answering(DualVGR(DualVGR.Config(**small), setting.size(PUBLISHED, TINY)), setting)


def feature_batch(questions: int, k: int, setting: Setting) -> Batch:
    """Return random features of videos and k questions about each."""
    sizes = setting.size(PUBLISHED, TINY)
    videos, clips, frames = questions // k, sizes.num_clips, sizes.frames_per_clip
    draw = torch.Generator().manual_seed(0)
    appearance = torch.randn(videos, clips, frames, sizes.appearance_width, generator=draw)
    motion = torch.randn(videos, clips, sizes.motion_width, generator=draw)
    features = {"appearance": appearance, "motion": motion}
    return {
        **{name: tensor.to(setting.device) for name, tensor in features.items()},
        **_questions(questions, k, setting),
    }


def costs_of_groups(questions: int, setting: Setting) -> tuple[Costs, dict[str, float]]:
    """Return the costs of a step over equally many questions, and its operations, by k."""
    objective = feature_model(setting)
    batches = {k: feature_batch(questions, k, setting) for k in (1, GROUPED)}
    methods = {f"k={k}": partial(step, objective, batch) for k, batch in batches.items()}
    counts: dict[str, float] = {}
    with torch.no_grad():
        for k, batch in batches.items():
            # Backward there are twice as many, for both alike.
            forward = partial(objective, batch)
            counts[f"k={k}"] = operations(forward, recurrent=True)
    return setting.measure(methods), counts


def groups(setting: Setting) -> list[Finding]:
    """Return G2: how much of what grouping saves in operations it saves in time."""
    # As many as in `benchmarks.dualvgr`: with 16, what grouping does not save, such as writing the
    # gradients of 24 million weights, weighs more, and the row falls from 0.9 to 0.7.
    questions = setting.size(512 if setting.on_gpu else 64, 16)
    costs, counts = costs_of_groups(questions, setting)
    names = ("k=1", f"k={GROUPED}")
    ideal = counts[names[0]] / counts[names[1]]
    shares = {names[0]: [cost / ideal for cost in costs[names[0]]], names[1]: costs[names[1]]}
    label = f"k = 1 / k = {GROUPED}, {questions} questions"
    return [
        ratio(f"G2 {label}, over the quotient of operations", shares, *names, target=">= 0.8"),
        ratio(f"G2 {label}", costs, *names),
        Fact("G2 quotient of operations", f"{ideal:.2f}"),
    ]


# Memory


def kept(setting: Setting) -> list[Finding]:
    """Return M1: what an encoder keeps for a frame and a clip over what its layers put out."""
    size = setting.size(STEP_PX, 32)
    frames = setting.size(16, 4)
    inputs = {
        "frame": (open_encoder("appearance", resnet(setting), 0), (size, size, 3)),
        "clip": (open_encoder("motion", resnext(setting), 0), (frames, size, size, 3)),
    }
    found: list[Finding] = []
    for kind in TYPES:
        for name, (encoder, shape) in inputs.items():
            encoder.train()
            few, more = (
                _kept_of(encoder, torch.zeros(n, *shape, dtype=torch.uint8), kind, setting)
                for n in (2, 3)
            )
            # What does not grow with the samples, such as weights in bf16, is left out.
            found += _finding(name, kind, (more - few) / 1e6, setting)
    return found


def _kept_of(encoder: torch.nn.Module, pixels: torch.Tensor, kind: str, setting: Setting) -> int:
    with autocast(setting.device, "bf16" if kind == "bf16" else "fp32"):
        return kept_bytes(encoder, pixels.to(setting.device))


def _finding(name: str, kind: str, megabytes: float, setting: Setting) -> list[Finding]:
    found: list[Finding] = [Fact(f"M1 MB kept for a {name}, {kind}", f"{megabytes:.1f}")]
    if not setting.is_tiny:
        share = round(megabytes / PUBLISHED_MB[name, kind], 3)
        found.append(Count(f"M1 bytes kept / published layers, {name}, {kind}", share, "<= 1.1"))
    return found
