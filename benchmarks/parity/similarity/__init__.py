"""Video similarity: models, losses, learning rates, rank correlation, ensemble, data."""

from collections.abc import Callable, Iterator

from benchmarks.parity.recording import Comparison, Recording
from benchmarks.parity.similarity import data, models, scoring, training

CHECKS: dict[str, Callable[[Recording], Iterator[Comparison]]] = {
    "asl": training.asl,
    "contrastive": training.contrastive,
    "finetune": training.finetune,
    "lr_schedule": training.lr_schedule,
    "extensions": training.extensions,
    "nextvlad": models.nextvlad,
    "mix_head": models.mix_head,
    "uniter_bert": models.uniter,
    "uniter_roformer": models.uniter,
    "spearman": scoring.spearman,
    "ensemble": scoring.ensemble,
    **data.CHECKS,
}
"""Recorded files and what compares them."""
