"""V4: what of a step is padding, where batches are drawn and where they are made by length."""

import json
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from benchmarks.measure import Count, Fact, ratio
from benchmarks.rows.setting import Finding, Setting, per_unit
from benchmarks.rows.small_chat import ROWS, lessons, objective_of, recipe_of
from msvqa.data.batch import Batch
from msvqa.data.chance import Chance
from msvqa.data.loader import training_batches
from msvqa.data.order import plan_epoch
from msvqa.data.split import Split
from msvqa.objectives.generation import Generation
from msvqa.prepare import prepare

# Legend: B rows, S places of the longest one.

VISUAL = 96
"""Tokens of a medium in the published model, the same in every row."""
TIMED_STEPS = 8
WORDS = ("a", "to", "red", "left", "video", "square", "becomes", "direction")
INSTRUCTION_WORDS = 15
SPREAD = 0.5
"""Of the logarithm of a length, within a group."""
FILE = "talk.json"


@dataclass(frozen=True)
class Group:
    """Conversations of one purpose. How many there are is published, their lengths are ours."""

    rows: int
    """In VideoChat2's instruction data."""
    turns: int
    question: int
    """Words of it, of half of the questions fewer; 0: none, as of captions."""
    answer: int


GROUPS = (
    Group(83_868, 3, 10, 35),  # conversations
    Group(1_112_920, 1, 0, 11),  # simple captions
    Group(48_082, 1, 0, 100),  # detailed captions
    Group(139_919, 1, 30, 3),  # classification
    Group(238_395, 1, 20, 30),  # reasoning
    Group(300_824, 1, 8, 2),  # questions
)


class NoMedia:
    """Gives nothing of the media of conversations that have none."""

    def batches(
        self, groups: Sequence[Sequence[int]], chance: Chance | None = None
    ) -> Iterator[Batch]:
        """Yield nothing for every group."""
        yield from ({} for _ in groups)


def shares(setting: Setting) -> list[Finding]:
    """Return V4: places that are padding, and the cost of a step for each that is none."""
    root, rows = lessons(setting), setting.size(3_200, 1_600)
    _write(root / FILE, rows)
    recipe = recipe_of(setting, [{"file": FILE, "kind": "text"}])
    prepared = prepare(recipe.data)
    objective, split = objective_of(recipe, prepared), prepared.split("train")
    drawn = recipe.stages[0].batch
    ways = {"drawn": drawn, "by length": drawn.model_copy(update={"by_length": True})}
    plans = {name: plan_epoch(split, batch, seed=0, epoch=0) for name, batch in ways.items()}
    batches = {name: _batches(split, plan) for name, plan in plans.items()}
    masks = {name: [_mask(objective, batch) for batch in batches[name]] for name in ways}
    timed = {name: _spread(masks[name], setting.size(TIMED_STEPS, 4)) for name in ways}
    costs = setting.measure(
        {name: _steps(objective, [batches[name][n] for n in timed[name]]) for name in ways}
    )
    there = {name: float(sum(masks[name][n].sum() for n in timed[name])) for name in ways}
    share = {name: _padding(masks[name], 0) for name in ways}
    beside = {name: _padding(masks[name], VISUAL) for name in ways}
    title = f"{rows} conversations in steps of {ROWS}"
    return [
        Count(f"V4 padding by length / drawn, {title}", share["by length"] / share["drawn"],
              "<= 0.5"),
        ratio("V4 step for each token that is there, drawn / by length", per_unit(costs, there),
              "drawn", "by length", ">= 1.2"),
        Fact("V4 padding among the tokens of texts", _said(share)),
        Fact(f"V4 padding with {VISUAL} visual tokens in each row", _said(beside)),
    ]  # fmt: skip


def _said(shares: dict[str, float]) -> str:
    return ", ".join(f"{name} {share:.1%}" for name, share in shares.items())


def _write(path: Path, count: int) -> None:
    chance = np.random.default_rng(0)
    frequency = np.array([group.rows for group in GROUPS], dtype=np.float64)
    of_rows = chance.choice(len(GROUPS), size=count, p=frequency / frequency.sum())
    rows = [{"QA": _turns(GROUPS[group], chance)} for group in of_rows]
    path.write_text(json.dumps(rows), encoding="utf-8")


def _turns(group: Group, chance: np.random.Generator) -> list[dict[str, str]]:
    def text(words: int) -> str:
        drawn = round(words * float(chance.lognormal(0, SPREAD)))
        return " ".join(chance.choice(WORDS, size=max(drawn, 1))) if words else ""

    instruction = text(INSTRUCTION_WORDS)
    return [
        {"i": instruction, "q": text(group.question), "a": text(group.answer)}
        for _ in range(group.turns)
    ]


def _batches(split: Split, plan: Any) -> list[Batch]:
    return list(training_batches(split, NoMedia(), plan))


@torch.inference_mode()
def _mask(objective: Generation, batch: Batch) -> Tensor:
    """Return which places of a step hold a token, bool (B, S)."""
    texts = objective.dialogue.learned(objective.conversations(batch), batch["weight"].device)
    return objective.given(batch, texts).mask


def _spread(masks: Sequence[Tensor], count: int) -> list[int]:
    """Return steps of all sizes, from the smallest to the largest."""
    order = sorted(range(len(masks)), key=lambda n: masks[n].numel())
    return [order[int((number + 0.5) * len(order) / count)] for number in range(count)]


def _steps(objective: Generation, batches: Sequence[Batch]) -> Callable[[], object]:
    def step() -> None:
        for batch in batches:
            objective.loss(batch)["loss"].backward()
            objective.zero_grad(set_to_none=True)

    return step


def _padding(masks: Sequence[Tensor], besides: int) -> float:
    """Return which part of all places is padding, with so many more that are there in each row."""
    there = sum(int(mask.sum()) + besides * len(mask) for mask in masks)
    return 1 - there / sum(mask.numel() + besides * len(mask) for mask in masks)
