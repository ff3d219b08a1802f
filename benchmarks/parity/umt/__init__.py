"""UMT: losses, masks, positions, student and teacher, schedules, frames."""

from collections.abc import Callable, Iterator

from benchmarks.parity.recording import Comparison, Recording
from benchmarks.parity.umt import contrast, data, networks

CHECKS: dict[str, Callable[[Recording], Iterator[Comparison]]] = {
    "attention_mask": networks.attention_mask,
    "frame_sampling": data.frame_sampling,
    "positions": networks.position_tables,
    "schedules": data.schedules,
    "student_tiny": networks.student,
    "teacher_tiny": networks.teacher,
    "uta_loss": contrast.imitation,
    "vtc_loss": contrast.contrastive,
    "vtm_loss": contrast.matching,
}
"""Recorded files and what compares them."""
