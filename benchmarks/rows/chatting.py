"""V1 to V3: a step of instruction and writing answers, against what they are made of."""

import random
from collections.abc import Callable, Sequence
from functools import partial
from typing import Any

import torch

from benchmarks.loops import batches_in_memory, first_stage, our_loop, plain_loop
from benchmarks.measure import Fact, ratio
from benchmarks.rows.setting import Finding, Setting, per_unit
from benchmarks.rows.small_chat import ROWS, STEPS, extract, objective_of, recipe_of
from benchmarks.rows.writing import endless
from msvqa.data.batch import Batch
from msvqa.data.conversations.conversation import Conversation, Turn
from msvqa.data.processors.processor import store_location
from msvqa.engine.inputs import open_inputs
from msvqa.models.layers.language_input import padded_left
from msvqa.objectives.generation import Generation
from msvqa.prepare import prepare
from msvqa.recipe import Recipe

# Legend: V media, B rows.

TOKENS, AT_ONCE = 32, 8
ANSWERS = 6
"""How often each is written in one measurement: once is too short for the clock"""
QUESTION = "What happens in the video?"


def steps(setting: Setting) -> list[Finding]:
    """Return V1: a step of our loop over that of a plain one, batches in memory."""
    recipe = recipe_of(setting)
    prepared = prepare(recipe.data)
    extract(recipe, prepared)
    inputs = open_inputs(recipe, prepared, str(store_location(recipe)), "train")
    batches = batches_in_memory(inputs, recipe.stages[0].batch, STEPS)
    costs: dict[str, list[float]] = {"ours": [], "plain": []}
    ways = {
        "ours": partial(our_loop, first_stage(recipe, prepared)),
        "plain": lambda: plain_loop(objective_of(recipe, prepared), batches),
    }
    order, shuffler = list(ways), random.Random(0)
    for _ in range(setting.rounds + 1):
        shuffler.shuffle(order)
        for way in order:
            costs[way].append(ways[way]())
    costs = {name: found[1:] for name, found in costs.items()}
    name = f"V1 step, our loop from a store / plain loop over {ROWS} rows in memory"
    return [
        ratio(name, costs, "ours", "plain", "<= 1.05"),
        Fact("V1 conversations per second, fastest", f"{1 / min(costs['ours']):.1f}"),
    ]


def writing(setting: Setting) -> list[Finding]:
    """Return V2 and V3: answers against `generate` alone, and eight at once against one."""
    recipe = recipe_of(setting)
    prepared = prepare(recipe.data)
    torch.use_deterministic_algorithms(False)
    objective = objective_of(recipe, prepared).eval()
    count, times = setting.size(TOKENS, 4), setting.size(ANSWERS, 1)
    tokenizer = objective.chat.tokenizer
    ends = endless(tokenizer, count)
    given = {n: _asked(recipe, n) for n in (1, AT_ONCE)}
    inputs = {n: _inputs(objective, *given[n]) for n in given}
    language = objective.chat.language

    @torch.inference_mode()
    def alone() -> None:
        for _ in range(times):
            language.generate(
                **inputs[AT_ONCE],
                do_sample=False,
                num_beams=1,
                eos_token_id=tokenizer.eos_token_id,
                pad_token_id=tokenizer.eos_token_id,
                **ends,
            )

    def ours(rows: int) -> Callable[[], object]:
        return lambda: [objective.respond(*given[rows], **ends) for _ in range(times)]

    costs = setting.measure({"alone": alone, "ours": ours(AT_ONCE), "one": ours(1)})
    rows = {"alone": AT_ONCE, "ours": AT_ONCE, "one": 1}
    costs = per_unit(costs, {name: times * number for name, number in rows.items()})
    rate = count / min(costs["ours"])
    return [
        ratio(f"V2 tokens per second, ours / generate alone, {AT_ONCE} rows", costs,
              "alone", "ours", ">= 0.95"),
        ratio(f"V3 tokens per second, {AT_ONCE} rows / 1", costs, "one", "ours", ">= 2"),
        Fact("V2 tokens per second, fastest", f"{rate:.0f}"),
    ]  # fmt: skip


def _asked(recipe: Recipe, rows: int) -> tuple[Batch, list[Conversation]]:
    """Return videos (V, T, H, W, 3) of noise, and a question about each."""
    draw = torch.Generator().manual_seed(0)
    shape = (rows, 8, 32, 32, 3)
    frames = torch.randint(0, 256, shape, generator=draw, dtype=torch.uint8)
    batch = {"frames": frames, "video_index": torch.arange(rows)}
    return batch, [Conversation("video", (Turn(QUESTION, ""),), "")] * rows


@torch.inference_mode()
def _inputs(objective: Generation, batch: Batch, asked: Sequence[Conversation]) -> dict[str, Any]:
    texts = objective.dialogue.asked(asked, batch["frames"].device)
    left = padded_left(objective.given(batch, texts))
    return {"inputs_embeds": left.embeddings, "attention_mask": left.mask.long()}
