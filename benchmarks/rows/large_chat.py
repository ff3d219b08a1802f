"""V7, V8: a VideoChat2 that fills a GPU of 24 GB, of random weights: instruction, and answers."""

import copy
import json
from collections.abc import Callable
from typing import Any

import torch
from transformers import LlamaConfig

from benchmarks.measure import Fact, ratio
from benchmarks.rows.counting import operations
from benchmarks.rows.encoders import product
from benchmarks.rows.memory import memory_facts, peaks
from benchmarks.rows.setting import Finding, Setting, per_unit
from benchmarks.rows.training import lone_step
from benchmarks.rows.writing import endless
from msvqa.data.batch import Batch
from msvqa.data.conversations.conversation import Conversation, Turn
from msvqa.data.texts import as_tensor
from msvqa.engine.precision import autocast
from msvqa.models.model import Sizes
from msvqa.models.videochat2 import STAGES, VideoChat2
from msvqa.objectives.generation import Generation
from tests.models.small_videochat2 import reading_folder, word_tokenizer

# Legend: V media, T frames, H x W pixels, N tokens of a frame, B rows, S places.

LANGUAGE: dict[str, Any] = {
    "vocab_size": 32_000, "hidden_size": 2048, "num_hidden_layers": 22, "num_attention_heads": 32,
    "num_key_value_heads": 4, "intermediate_size": 5632,
}  # fmt: skip
"""1.1 billion weights, those of a Llama of that size"""
TINY_LANGUAGE: dict[str, Any] = {
    "vocab_size": 64, "hidden_size": 32, "num_hidden_layers": 2, "num_attention_heads": 4,
    "num_key_value_heads": 2, "intermediate_size": 48,
}  # fmt: skip
VIDEO = {"preset": "large", "trained_frames": 4, "recompute": True}
"""That of the published model. Its layers are repeated, so that 8 rows keep 8.2 GB for gradients"""
TINY_VIDEO = {"width": 24, "depth": 3, "heads": 4, "patch_px": 8, "recompute": True}
TINY_QFORMER = {
    "width": 32, "layers": 2, "heads": 4, "feed_forward": 48, "words": 64, "max_words": 16,
    "queries": 4, "extra_queries": 6,
}  # fmt: skip
ROWS, TOKENS, ANSWER_WORDS = 8, 64, 60
QUESTION, INSTRUCTION = "what is it ?", "Only give the best option ."


def instruction(setting: Setting) -> list[Finding]:
    """Return V7: the speed of a step of the third stage over that of a product, and its memory."""
    objective = _objective(setting)
    batch = _batch(ROWS, setting)
    methods = {"step": lone_step(objective, batch, "bf16")}
    memory = peaks(methods, setting)
    methods["product"] = product(torch.bfloat16, setting)
    work = {
        "step": ROWS * _needed(objective, _batch(1, setting)),
        "product": operations(methods["product"]),
    }
    tokens = _tokens(objective, batch)
    costs = setting.measure(methods)
    speeds = per_unit(costs, work)
    parameters = list(objective.parameters())
    trained = sum(p.numel() for p in parameters if p.requires_grad)
    seconds = min(costs["step"])
    return [
        ratio("V7 operations per second, step of instruction / product", speeds, "product", "step",
              ">= 0.33"),
        Fact("V7 weights, and those of them that are trained, 10^6",
             f"{sum(p.numel() for p in parameters) / 1e6:.1f}, {trained / 1e6:.1f}"),
        Fact(f"V7 tokens per second, {ROWS} rows of {tokens // ROWS}", f"{tokens / seconds:.0f}"),
        Fact("V7 10^12 operations per second", f"{work['step'] / seconds / 1e12:.1f}"),
        *memory_facts("V7", {"step": None}, memory),
    ]  # fmt: skip


def answers(setting: Setting) -> list[Finding]:
    """Return V8: tokens per second of eight rows and of one, and of weights that are in bf16."""
    objective = _objective(setting).eval()
    brief = copy.deepcopy(objective)
    brief.chat.language.to(torch.bfloat16)
    count = setting.size(TOKENS, 4)
    ways = {"8 rows": (objective, ROWS), "1 row": (objective, 1), "8 rows, bf16": (brief, ROWS)}
    methods = {name: _writing(of, rows, count, setting) for name, (of, rows) in ways.items()}
    costs = per_unit(setting.measure(methods), {name: rows for name, (_, rows) in ways.items()})
    rates = {name: count / min(cost) for name, cost in costs.items()}
    return [
        ratio(f"V8 tokens per second, {ROWS} rows / 1", costs, "1 row", "8 rows", ">= 4"),
        ratio("V8 tokens per second, weights of the language model in bf16 / in float32", costs,
              "8 rows", "8 rows, bf16"),
        *(Fact(f"V8 tokens per second, {name}", f"{rate:.0f}") for name, rate in rates.items()),
    ]  # fmt: skip


def _objective(setting: Setting) -> Generation:
    """Return the objective of the third stage, whose language model has adapters and is frozen."""
    folder = setting.folder / "language"
    ends: dict[str, Any] = {"bos_token_id": 0, "eos_token_id": 1, "pad_token_id": 1}
    LlamaConfig(**setting.size(LANGUAGE, TINY_LANGUAGE), **ends).save_pretrained(folder)
    word_tokenizer().save_pretrained(folder)
    frames, size_px = _shape(setting)
    config = VideoChat2.Config.model_validate(
        {
            "video": setting.size(VIDEO, TINY_VIDEO),
            "frames": frames,
            "qformer": setting.size({}, TINY_QFORMER),
            "sources": {
                "language": str(folder),
                "qformer": str(reading_folder(folder / "qformer")),
            },
        }
    )
    torch.manual_seed(0)
    stage = STAGES["instruct"]
    with setting.device:
        model = VideoChat2(config, Sizes(frames=frames, size_px=size_px), stage["absent"])
    objective = Generation(Generation.Config(), model)
    for module in objective.frozen():
        module.requires_grad_(False)
    model.freeze(stage["frozen"])
    return objective.train().to(setting.device)  # type: ignore[return-value]


def _shape(setting: Setting) -> tuple[int, int]:
    """Return frames and pixels: the published ones, or fewest."""
    return setting.size((8, 224), (2, 16))


def _batch(rows: int, setting: Setting) -> Batch:
    """Return random clips (V, T, H, W, 3) with a conversation of as many words about each."""
    frames, size_px = _shape(setting)
    draw = torch.Generator().manual_seed(0)
    shape = (rows, frames, size_px, size_px, 3)
    said = [QUESTION, " ".join(["red"] * ANSWER_WORDS), INSTRUCTION]
    batch = {
        "frames": torch.randint(0, 256, shape, generator=draw, dtype=torch.uint8),
        "conversation_utf8": as_tensor([json.dumps(["video", [said]])] * rows),
        "video_index": torch.arange(rows), "video": torch.arange(rows),
        "row": torch.arange(rows), "weight": torch.ones(rows),
        "normalizer": torch.tensor(float(rows)), "workers": torch.tensor(1.0),
    }  # fmt: skip
    return {name: tensor.to(setting.device) for name, tensor in batch.items()}


def _needed(objective: Generation, batch: Batch) -> float:
    """Return the operations of a step that keeps what the video encoder needs for gradients."""
    video = objective.chat.video
    repeats = video.config
    video.config = repeats.model_copy(update={"recompute": False})
    try:
        return operations(lone_step(objective, batch, "bf16"))
    finally:
        video.config = repeats


@torch.inference_mode()
def _tokens(objective: Generation, batch: Batch) -> int:
    """Return the places of the language model that are no padding."""
    texts = objective.dialogue.learned(objective.conversations(batch), batch["weight"].device)
    return int(objective.given(batch, texts).mask.sum())


def _writing(
    objective: Generation, rows: int, count: int, setting: Setting
) -> Callable[[], object]:
    """Return what writes answers of so many tokens about clips."""
    batch = _batch(rows, setting)
    asked = [Conversation("video", (Turn(QUESTION, "", INSTRUCTION),))] * rows
    ends = endless(objective.chat.tokenizer, count)

    @torch.inference_mode()
    def run() -> None:
        with autocast(setting.device, "bf16"):
            objective.respond(batch, asked, **ends)

    return run
