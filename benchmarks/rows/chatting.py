"""V1 to V3: a step of instruction and writing answers, against what they are made of."""

import random
from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path
from typing import Any

import torch

from benchmarks.loops import batches_in_memory, first_stage, our_loop, plain_loop
from benchmarks.measure import Fact, ratio
from benchmarks.rows.setting import Finding, Setting, per_unit
from msvqa.data.batch import Batch
from msvqa.data.conversations.conversation import Conversation, Turn
from msvqa.data.prepared import Prepared
from msvqa.data.processors.processor import processor_of, store_location
from msvqa.data.store import write_index, write_shard
from msvqa.engine.inputs import model_sizes, open_inputs
from msvqa.engine.stage_model import choose_trained
from msvqa.extract import videos_of
from msvqa.models.layers.language_input import padded_left
from msvqa.models.model import build_model
from msvqa.mvbench.lessons import LEAST, make_lessons
from msvqa.objectives.generation import Generation
from msvqa.prepare import prepare
from msvqa.recipe import Recipe, parse

# Legend: V media, B rows.

STEPS, ROWS = 6, 16
TOKENS, AT_ONCE = 32, 8
QUESTION = "What happens in the video?"


def steps(setting: Setting) -> list[Finding]:
    """Return V1: a step of our loop over that of a plain one, batches in memory."""
    recipe = _recipe(setting)
    prepared = prepare(recipe.data)
    _extract(recipe, prepared)
    inputs = open_inputs(recipe, prepared, str(store_location(recipe)), "train")
    batches = batches_in_memory(inputs, recipe.stages[0].batch, STEPS)
    costs: dict[str, list[float]] = {"ours": [], "plain": []}
    ways = {
        "ours": partial(our_loop, first_stage(recipe, prepared)),
        "plain": lambda: plain_loop(_objective(recipe, prepared), batches),
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
    recipe = _recipe(setting)
    prepared = prepare(recipe.data)
    torch.use_deterministic_algorithms(False)
    objective = _objective(recipe, prepared).eval()
    count = setting.size(TOKENS, 4)
    # No end, neither of a text nor of a turn: every row has as many tokens.
    tokenizer = objective.chat.tokenizer
    ends = {"max_new_tokens": count, "min_new_tokens": count,
            "suppress_tokens": [tokenizer.convert_tokens_to_ids("###")]}  # fmt: skip
    given = {n: _asked(recipe, n) for n in (1, AT_ONCE)}
    inputs = {n: _inputs(objective, *given[n]) for n in given}
    language = objective.chat.language

    @torch.inference_mode()
    def alone() -> None:
        language.generate(
            **inputs[AT_ONCE],
            do_sample=False,
            num_beams=1,
            eos_token_id=tokenizer.eos_token_id,
            pad_token_id=tokenizer.eos_token_id,
            **ends,
        )

    def ours(rows: int) -> Callable[[], object]:
        return lambda: objective.respond(*given[rows], **ends)

    costs = setting.measure({"alone": alone, "ours": ours(AT_ONCE), "one": ours(1)})
    costs = per_unit(costs, {"alone": AT_ONCE, "ours": AT_ONCE, "one": 1})
    rate = count / min(costs["ours"])
    return [
        ratio(f"V2 tokens per second, ours / generate alone, {AT_ONCE} rows", costs,
              "alone", "ours", ">= 0.95"),
        ratio(f"V3 tokens per second, {AT_ONCE} rows / 1", costs, "one", "ours", ">= 2"),
        Fact("V2 tokens per second, fastest", f"{rate:.0f}"),
    ]  # fmt: skip


def _recipe(setting: Setting) -> Recipe:
    """Return the last stage of a small VideoChat2, of which all is trained, with its data."""
    root = setting.folder / "lessons"
    if not root.exists():
        make_lessons(root, items=LEAST, tested=1)
    width, layers = setting.size((256, 4), (32, 2))
    _widen(root / "language", width, layers)
    video = {"width": 96, "depth": 4, "heads": 4, "patch_px": 16, "mlp_ratio": 2.0}
    qformer = {"width": 96, "layers": 1, "heads": 4, "feed_forward": 192, "words": 512}
    return parse(
        {
            "name": "benchmark",
            "runs": str(setting.folder / "runs"),
            "data": {
                "name": "instructions",
                "root": str(root),
                "prepared": str(setting.folder / "prepared"),
                "sources": [{"file": "instructions.json"}],
            },
            "processor": {"name": "frames", "frames": 8, "size_px": 32, "draw": "mvbench"},
            "model": {
                "name": "videochat2", "frames": 8, "video": video,
                "sources": {"qformer": str(root / "qformer"), "language": str(root / "language")},
                "qformer": {**qformer, "max_words": 64, "queries": 12, "extra_queries": 12},
            },
            "stages": [
                {
                    "name": "instruct",
                    "objective": {"name": "generation", "dialogue": {"reading": "none"}},
                    "parts": {"heads": "absent", "adapter": "absent", "text": "frozen"},
                    "steps": STEPS,
                    "batch": {"examples": ROWS},
                    "log_every_steps": 1_000_000,
                }
            ],
        }
    )  # fmt: skip


def _widen(folder: Path, width: int, layers: int) -> None:
    """Put a language model of another size into a folder, with the words that it has."""
    from transformers import AutoConfig, LlamaForCausalLM

    library: Any = AutoConfig
    config = library.from_pretrained(folder)
    config.update(
        {"hidden_size": width, "num_hidden_layers": layers, "intermediate_size": 3 * width}
    )
    config.head_dim = width // config.num_attention_heads
    torch.manual_seed(0)
    LlamaForCausalLM(config).save_pretrained(folder)


def _extract(recipe: Recipe, prepared: Prepared) -> None:
    processor, place = processor_of(recipe), store_location(recipe)
    spec, extractor, media = processor.spec(), processor.extractor(), videos_of(prepared)
    size = spec.videos_per_shard
    shards = [
        write_shard(place, n, spec, map(extractor.extract, media[start : start + size]), {})
        for n, start in enumerate(range(0, len(media), size))
    ]
    write_index(place, spec, shards, {})


def _objective(recipe: Recipe, prepared: Prepared) -> Generation:
    torch.manual_seed(0)
    (stage,) = recipe.stages
    model = build_model(recipe, model_sizes(recipe, prepared), stage.absent)
    objective = Generation(stage.objective, model)
    choose_trained(model, objective, stage)
    return objective


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
