"""Numbers that come from outside: brought into the type of a store, and refused if not finite."""

from collections.abc import Mapping

import numpy as np

from msvqa.errors import VideoError

NOT_FINITE = "not_finite"
"""Outcome of a video whose numbers are not finite, or not as they would be stored."""

_HALF_INFINITY, _HALF_NEGATIVE_INFINITY = np.int16(0x7C00), np.uint16(0xFC00)


def to_type(values: np.ndarray, dtype: str) -> np.ndarray:
    """Return values in another type; what is too large for it becomes infinite, in silence."""
    if values.dtype == dtype:
        return values
    with np.errstate(over="ignore", invalid="ignore"):
        return values.astype(dtype)


def as_stored(values: np.ndarray, dtype: str, place: str) -> np.ndarray:
    """Return the features of a video in the type of the store.

    Raises:
        VideoError: some are not finite, or too large for the type; says how many of how many.
    """
    stored = to_type(values, dtype)
    if all_finite(stored):
        return stored
    finite = np.isfinite(values)
    if not finite.all():
        bad = f"{np.count_nonzero(~finite)} of {values.size} numbers are not finite"
        raise VideoError(NOT_FINITE, f"{place}: {bad}")
    bad = f"{np.count_nonzero(~np.isfinite(stored))} of {values.size} numbers are too large"
    largest, limit = np.abs(values).max(), np.finfo(dtype).max
    advice = "" if dtype == "float32" else "; features.dtype=float32 holds more"
    raise VideoError(
        NOT_FINITE, f"{place}: {bad} for {dtype}: {largest:.3g}, it ends at {limit:.3g}{advice}"
    )


def not_finite(arrays: Mapping[str, np.ndarray]) -> list[str]:
    """Return the names of the arrays that hold numbers which are not finite."""
    return [name for name, array in arrays.items() if not all_finite(array)]


def all_finite(array: np.ndarray) -> bool:
    """Whether all numbers are finite; whole numbers are."""
    if array.dtype.kind != "f" or not array.size:
        return True
    if array.dtype == np.float16 and array.flags.c_contiguous:
        # numpy has no fast test of half numbers. Those that are not finite have all bits of the
        # exponent: of positive ones that makes the largest whole numbers with a sign, of negative
        # ones the largest without.
        positive = array.view(np.int16).max() < _HALF_INFINITY
        return bool(positive and array.view(np.uint16).max() < _HALF_NEGATIVE_INFINITY)
    return bool(np.isfinite(array).all())
