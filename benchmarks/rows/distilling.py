"""U1 to U3: a step of UMT's first stage: what the mask saves, its speed, and the teacher's part."""

from functools import partial
from typing import Literal

import torch

from benchmarks.measure import Fact, ratio
from benchmarks.rows.counting import operations
from benchmarks.rows.encoders import product
from benchmarks.rows.setting import Finding, Setting, per_unit
from benchmarks.rows.training import step
from msvqa.data.batch import Batch
from msvqa.engine.precision import autocast
from msvqa.models.model import Sizes
from msvqa.models.umt import UMT
from msvqa.objectives.distillation import Distillation, visible_tokens

# Legend: V media, T frames, H x W pixels, N tokens of a frame, n visible ones of a medium.

HIDDEN = 0.8
"""Which part of the tokens the student does not see, as published"""
ABSENT = ("text", "fusion", "projections", "classifier", "decoder")
TINY = {
    "aligned_layers": 2,
    "video": {"width": 32, "depth": 3, "heads": 4, "patch_px": 8, "drop_path": 0.0},
    "teacher": {"width": 24, "depth": 3, "heads": 4, "patch_px": 8, "output_width": 16},
}


def steps(setting: Setting) -> list[Finding]:
    """Return U1 to U3, of the published base model at a size that the device does in a second."""
    masked, whole = (_distillation(hidden, setting) for hidden in (HIDDEN, 0.0))
    batch = _batch(setting)
    precision: Literal["fp32", "bf16"] = "bf16" if setting.on_gpu else "fp32"
    kind = torch.bfloat16 if setting.on_gpu else torch.float32
    model = masked.model
    visible = visible_tokens(masked, masked.config.mask, model.learn(batch).attention)

    def student() -> None:
        with autocast(setting.device, precision):
            loss = model.imitate(model.watch(batch, visible)).square().mean()
        masked.zero_grad(set_to_none=True)
        loss.backward()

    def teacher() -> None:
        with autocast(setting.device, precision):
            model.teach(model.learn(batch), visible)

    methods = {
        "masked": partial(step, masked, batch, precision),
        "whole": partial(step, whole, batch, precision),
        "student": student,
        "teacher": teacher,
        "product": product(kind, setting),
    }
    work = {name: operations(method) for name, method in methods.items()}
    costs = setting.measure(methods)
    ideal = work["whole"] / work["masked"]
    saved = {"whole": [cost / ideal for cost in costs["whole"]], "masked": costs["masked"]}
    speeds = per_unit(costs, work)
    share = work["teacher"] / work["masked"]
    shares = {"teacher": [cost / share for cost in costs["teacher"]], "step": costs["masked"]}
    rate = len(batch["weight"]) / min(costs["masked"])
    hidden = f"{100 * HIDDEN:g} % hidden"
    fast = ">= 0.45" if setting.on_gpu else ">= 0.6"
    return [
        ratio(f"U1 step, all tokens / {hidden}, over the quotient of operations", saved,
              "whole", "masked", ">= 0.8"),
        ratio(f"U1 step, all tokens / {hidden}", costs, "whole", "masked"),
        ratio("U2 operations per second, student / product", speeds, "product", "student", fast),
        ratio("U3 teacher's share of a step / its share of the operations", shares,
              "teacher", "step", "<= 1.1"),
        Fact("U1 quotient of operations", f"{ideal:.2f}"),
        Fact("U3 teacher's share of the operations", f"{share:.2f}"),
        Fact("U1 clips per second, fastest", f"{rate:.2f}"),
    ]  # fmt: skip


def _distillation(hidden: float, setting: Setting) -> Distillation:
    torch.manual_seed(0)
    config = UMT.Config.model_validate(setting.size({}, TINY))
    frames, size_px = _shape(setting)
    model = UMT(config, Sizes(frames=frames, size_px=size_px), ABSENT)
    mask = {"kind": "attention" if hidden else "none", "ratio": hidden}
    objective = Distillation(Distillation.Config.model_validate({"mask": mask}), model)
    for module in objective.frozen():
        module.requires_grad_(False)
    return objective.train().to(setting.device)


def _shape(setting: Setting) -> tuple[int, int]:
    """Return frames and pixels: on a GPU the published ones, else what takes a second."""
    return setting.size((8, 224) if setting.on_gpu else (4, 112), (4, 32))


def _batch(setting: Setting) -> Batch:
    """Return random clips (V, T, H, W, 3), a row each."""
    frames, size_px = _shape(setting)
    clips = setting.size(32 if setting.on_gpu else 2, 2)
    draw = torch.Generator().manual_seed(0)
    shape = (clips, frames, size_px, size_px, 3)
    batch = {
        "frames": torch.randint(0, 256, shape, generator=draw, dtype=torch.uint8),
        "video_index": torch.arange(clips), "video": torch.arange(clips),
        "row": torch.arange(clips), "weight": torch.ones(clips),
        "normalizer": torch.tensor(float(clips)), "workers": torch.tensor(1.0),
    }  # fmt: skip
    return {name: tensor.to(setting.device) for name, tensor in batch.items()}
