"""Video similarity: sampling of frames, masked words, folds, records."""

from benchmarks.parity.similarity import data

CHECKS = {**data.CHECKS}
"""Recorded files and what compares them."""
