"""VideoChat2: conversations as text and tokens, the Q-Former, its stages, adapters."""

from collections.abc import Callable, Iterator

from benchmarks.parity.recording import Comparison, Recording
from benchmarks.parity.videochat2 import network, stages, texts, vision

CHECKS: dict[str, Callable[[Recording], Iterator[Comparison]]] = {
    "conversations": texts.conversations,
    "labels": texts.labels,
    "truncation": texts.truncation,
    "frame_messages": texts.frame_messages,
    "qformer": network.qformer,
    "lora": network.lora,
    "stage1": stages.stage1,
    "stage2": network.stage2,
    "stage3": stages.stage3,
    "vision": vision.vision,
    "frame_sampling": vision.frame_sampling,
    "parameters": vision.parameters,
    **{f"tokenizer_{name}": vision.tokenizer for name in texts.TOKENIZERS},
}
"""Recorded files and what compares them."""
