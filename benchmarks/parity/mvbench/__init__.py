"""MVBench: prompts, frames, letters from texts, likelihoods, aggregation."""

from collections.abc import Callable, Iterator

from benchmarks.parity.mvbench import counting, texts
from benchmarks.parity.recording import Comparison, Recording

CHECKS: dict[str, Callable[[Recording], Iterator[Comparison]]] = {
    "prompts": texts.prompts,
    "answer_matching": texts.answer_matching,
    "frame_index": counting.frame_index,
    "aggregation": counting.aggregation,
    "loglik": counting.likelihoods,
}
"""Recorded files and what compares them; the cases of `answer_matching` are recorded twice."""
