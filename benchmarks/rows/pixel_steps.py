"""Q1: a training step of MSVQA from pixels: speed and memory of each way to save some."""

from dataclasses import dataclass
from functools import partial
from typing import Literal

import torch

from benchmarks.measure import Fact, ratio
from benchmarks.rows import forecast
from benchmarks.rows.compiling import compile_for, hindrance, left_out
from benchmarks.rows.counting import operations
from benchmarks.rows.encoders import product
from benchmarks.rows.memory import memory_facts, peaks
from benchmarks.rows.setting import Finding, Setting, per_unit
from benchmarks.rows.training import GROUPED, lone_step, pixel_batch, pixel_model
from msvqa.data.batch import Batch
from msvqa.engine.precision import TYPES
from msvqa.models.layers.memory_layout import use_channels_last
from msvqa.objectives.objective import Objective

# Legend: V videos, C clips, F frames per clip, H x W pixels.

VIDEOS = 4
"""Of a step; of 8 clips they keep 11 GB in bf16 and 20 GB in float32"""
CHUNK = 8
"""Clips that an encoder passes at once where it repeats its passes"""
REPEATED = {"encoder_chunk": CHUNK, "checkpoint_activations": True}


@dataclass(frozen=True)
class Way:
    """One way to make the step."""

    k: int
    """Questions per video."""
    precision: str = "bf16"
    model: Literal["kept", "repeated", "compiled"] = "kept"
    """Whether activations are `kept`, or passes of the encoders `repeated`; or `compiled`."""


WAYS = {
    "k=1": Way(1),
    f"k={GROUPED}": Way(GROUPED),
    f"k={GROUPED}, float32": Way(GROUPED, precision="fp32"),
    f"k={GROUPED}, repeated": Way(GROUPED, model="repeated"),
    f"k={GROUPED}, compiled": Way(GROUPED, model="compiled"),
}
"""In bf16 where nothing else is said"""
BESIDE = f"k={GROUPED}"
"""What the other ways are compared with"""


def pixels(setting: Setting) -> list[Finding]:
    """Return Q1: each way's speed over a product's, its time over that of bf16, and its memory."""
    ways = {n: way for n, way in WAYS.items() if way.model != "compiled" or not hindrance(setting)}
    models = {name: _objective(name, setting) for name in {way.model for way in ways.values()}}
    batches = {k: pixel_batch(setting, VIDEOS, k) for k in (1, GROUPED)}
    steps = {
        name: lone_step(models[way.model], batches[way.k], way.precision)
        for name, way in ways.items()
    }
    memory = peaks(steps, setting)
    products = {precision: product(kind, setting) for precision, kind in TYPES.items()}
    costs = setting.measure({name: steps[name] for name in memory} | products)
    # What is repeated is no work: the passes that a step needs are counted, backward as two more.
    needed = {k: 3 * _forward(models["kept"], batch) for k, batch in batches.items()}
    work = {name: needed[way.k] for name, way in ways.items()}
    work |= {precision: operations(method) for precision, method in products.items()}
    speeds = per_unit(costs, work)
    questions = per_unit(costs, {name: VIDEOS * way.k for name, way in ways.items()})
    rates = {name: 1 / min(questions[name]) for name in memory}
    return [
        *(ratio(f"Q1 operations per second, {name} / product", speeds, ways[name].precision, name)
          for name in memory),
        *(ratio(f"Q1 seconds for a question, {name} / {BESIDE}", questions, name, BESIDE)
          for name in memory if name != BESIDE and BESIDE in memory),
        *(Fact(f"Q1 questions per second, {name}", f"{rate:.1f}") for name, rate in rates.items()),
        *memory_facts("Q1", steps, memory),
        *_epochs({name: min(costs[name]) / VIDEOS for name in memory}, setting),
        *left_out("Q1", setting),
    ]  # fmt: skip


def _epochs(seconds_per_visit: dict[str, float], setting: Setting) -> list[Finding]:
    """Return what follows for whole epochs; clips are smaller on processors, of which none does."""
    if not (setting.on_gpu or setting.is_tiny):
        return []
    hours = {
        name: forecast.hours_of_epoch(seconds, WAYS[name].k)
        for name, seconds in seconds_per_visit.items()
    }
    return [
        Fact(f"Q1 hours for an epoch of MSVD-QA, {name}", forecast.MSVQA.beside(epoch))
        for name, epoch in hours.items()
    ]


def _objective(name: str, setting: Setting) -> Objective:
    """Return MSVQA, whose activations are `kept` or `repeated`, or whose step is `compiled`."""
    objective = pixel_model(setting, **(REPEATED if name == "repeated" else {}))
    use_channels_last(objective)
    if name == "compiled":
        compile_for(setting, objective)
    return objective


def _forward(objective: Objective, batch: Batch) -> float:
    with torch.no_grad():
        return operations(partial(objective, batch))
