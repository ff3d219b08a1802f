"""V5: what a step of instruction keeps in memory, the language model frozen and trained."""

from torch import nn

from benchmarks.loops import batches_in_memory
from benchmarks.measure import Count, Fact
from benchmarks.rows.counting import kept_bytes
from benchmarks.rows.setting import Finding, Setting
from benchmarks.rows.small_chat import extract, objective_of, recipe_of
from msvqa.data.batch import Batch
from msvqa.data.processors.processor import store_location
from msvqa.engine.inputs import open_inputs
from msvqa.objectives.generation import Generation
from msvqa.prepare import prepare
from msvqa.recipe import parse

PARTS = {
    "frozen": "stages.0.parts={heads: absent, text: frozen, language: frozen}",
    "trained": "stages.0.parts={heads: absent, text: frozen}",
}
"""Adapters are trained in both."""


def memory(setting: Setting) -> list[Finding]:
    """Return V5: bytes of gradients and of what is kept for them, beside frozen parameters."""
    whole = recipe_of(setting).to_dict()
    recipes = {name: parse(whole, [parts]) for name, parts in PARTS.items()}
    recipe = recipes["frozen"]
    prepared = prepare(recipe.data)
    extract(recipe, prepared)
    inputs = open_inputs(recipe, prepared, str(store_location(recipe)), "train")
    (batch,) = batches_in_memory(inputs, recipe.stages[0].batch, 1)
    objectives = {name: objective_of(of, prepared) for name, of in recipes.items()}
    kept = {name: kept_bytes(objective, batch) for name, objective in objectives.items()}
    gradients = {name: _gradients(objective, batch) for name, objective in objectives.items()}
    chat = objectives["frozen"].chat
    reached = [p for p in chat.parameters() if not p.requires_grad and p.grad is not None]
    chat.video.requires_grad_(False)
    return [
        Count("V5 frozen parameters with a gradient", len(reached), "== 0"),
        Count("V5 bytes that a frozen video encoder keeps",
              kept_bytes(_Watching(objectives["frozen"]), batch), "== 0"),
        Count("V5 bytes kept for gradients, language model frozen / trained",
              kept["frozen"] / kept["trained"], "<= 0.95"),
        Fact("V5 MB kept for gradients", _said(kept)),
        Fact("V5 MB of gradients", _said(gradients)),
    ]  # fmt: skip


class _Watching(nn.Module):
    """The video encoder of an objective, asked for what it sees."""

    def __init__(self, objective: Generation) -> None:
        super().__init__()
        self.chat = objective.chat

    def forward(self, batch: Batch) -> object:
        """Return what is seen of the frames."""
        return self.chat.watch(batch["frames"])


def _gradients(objective: Generation, batch: Batch) -> int:
    objective(batch)["loss"].backward()
    return sum(p.grad.nbytes for p in objective.parameters() if p.grad is not None)


def _said(bytes_of: dict[str, int]) -> str:
    return ", ".join(f"{name} {count / 1e6:.1f}" for name, count in bytes_of.items())
