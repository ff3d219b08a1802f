"""Videos with titles and tags, and pairs of them, as tables of media and examples.

Legend: n examples.
"""

import math
from dataclasses import dataclass
from typing import Any

import numpy as np
import pyarrow as pa

from msvqa.data.annotated import MEDIA_COLUMNS

VIDEOS = pa.schema([*MEDIA_COLUMNS, ("title", pa.string()), ("tags", pa.list_(pa.string()))])
"""Columns of media with their titles and tags."""


@dataclass(frozen=True)
class Labels:
    """Pairs of videos and how alike they are, as columns."""

    first: list[str]
    second: list[str]
    similarity: list[float]
    row: list[int]
    """Where each was read."""


def tag_examples(videos: pa.Table) -> pa.Table:
    """Return an example for every medium, present or not."""
    n = len(videos)
    media = pa.FixedSizeListArray.from_arrays(pa.array(np.arange(n), pa.int64()), 1)
    ones = pa.array(np.arange(n + 1), pa.int32())
    return pa.table(
        {
            "media": media,
            "split": videos["split"],
            "titles": pa.ListArray.from_arrays(ones, videos["title"].combine_chunks()),
            "tags": pa.ListArray.from_arrays(ones, videos["tags"].combine_chunks()),
        }
    )


def pair_examples(videos: pa.Table, labels: Labels, split: str) -> pa.Table:
    """Return an example for every pair, in the order of the file."""
    row_of = {video: row for row, video in enumerate(videos["id"].to_pylist())}
    ids = zip(labels.first, labels.second, strict=True)
    rows = np.array([row_of[video] for pair in ids for video in pair], dtype=np.int64)  # (2n,)
    n, taken = len(labels.row), videos.select(["title", "tags"]).take(pa.array(rows, pa.int64()))
    twos = pa.array(2 * np.arange(n + 1), pa.int32())
    return pa.table(
        {
            "media": pa.FixedSizeListArray.from_arrays(pa.array(rows, pa.int64()), 2),
            "split": pa.array([split] * n, pa.string()),
            "titles": pa.ListArray.from_arrays(twos, taken["title"].combine_chunks()),
            "tags": pa.ListArray.from_arrays(twos, taken["tags"].combine_chunks()),
            "similarity": pa.array(labels.similarity, pa.float32()),
        }
    )


def similarity_problem(value: Any) -> str:
    """Say why a value is no similarity; nothing where it is one."""
    try:
        similarity = float(value)
    except (TypeError, ValueError, OverflowError):
        return f"{str(value)[:40]!r} is not a number"
    if not (math.isfinite(similarity) and 0 <= similarity <= 1):
        return f"the similarity {similarity:g} is not between 0 and 1"
    return ""
